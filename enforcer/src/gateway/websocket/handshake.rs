//! The opening handshake, as far as a proxy must understand it. Pure.

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use crate::gateway::{http::headers::lists, rejection::Rejection};

/// The request wants to become a WebSocket. Other upgrades are not served: such a request is
/// forwarded as if it had not asked.
pub(crate) fn is_requested<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(headers, &header::CONNECTION, "upgrade")
        && lists(headers, &header::UPGRADE, "websocket")
}

/// RFC 6455, section 4.2.1.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Rejection> {
    let headers = request.headers();
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    if versions.next().is_none_or(|version| version != "13") || versions.next().is_some() {
        return Err(Rejection::WebSocketVersion);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().map(HeaderValue::as_bytes).unwrap_or_default();
    if !is_key(key) || keys.next().is_some() {
        return Err(Rejection::WebSocketHandshake("Sec-WebSocket-Key"));
    }
    let length = headers.get(header::CONTENT_LENGTH);
    if length.is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING)
    {
        return Err(Rejection::WebSocketHandshake("it has a body"));
    }
    Ok(())
}

/// Sets the fields that hop-by-hop stripping has taken away.
pub(crate) fn announce(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Checks the upstream's 101. True: with extensions, so that reserved bits have a meaning.
pub(crate) fn accepted(headers: &HeaderMap) -> Result<bool, Rejection> {
    let complete = lists(headers, &header::UPGRADE, "websocket")
        && headers.contains_key(header::SEC_WEBSOCKET_ACCEPT);
    if !complete {
        let what = "it switches to something else than a WebSocket";
        return Err(Rejection::UpstreamInvalid(what.into()));
    }
    Ok(headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS))
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(alphabet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn an_upgrade_is_recognised() {
        let asks = |fields: &[(&str, &str)]| is_requested(&request(fields));
        let upgrade = ("upgrade", "WebSocket");
        assert!(asks(&[("connection", "keep-alive, Upgrade"), upgrade]));
        assert!(!asks(&[upgrade]));
        assert!(!asks(&[("connection", "upgrade"), ("upgrade", "h2c")]));
    }

    #[test]
    fn a_handshake_is_checked() {
        assert!(check(&request(&[KEY, VERSION])).is_ok());
        for (fields, code) in [
            (&[KEY][..], "websocket_version"),
            (&[KEY, ("sec-websocket-version", "8")], "websocket_version"),
            (&[VERSION], "invalid_websocket_handshake"),
            (&[VERSION, KEY, KEY], "invalid_websocket_handshake"),
            (
                &[VERSION, ("sec-websocket-key", "short")],
                "invalid_websocket_handshake",
            ),
            (
                &[VERSION, KEY, ("content-length", "3")],
                "invalid_websocket_handshake",
            ),
        ] {
            let rejection = check(&request(fields)).unwrap_err();
            assert_eq!(rejection.verdict().code, code, "{fields:?}");
        }
    }
}
