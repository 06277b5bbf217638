//! HTTP/2 towards clients (RFC 9113): what it may cost, and how it differs.
//!
//! | limit | value | against |
//! | --- | --- | --- |
//! | concurrent streams | 128 | a connection that takes all |
//! | window of a stream | 256 KiB | uploads that nobody takes; the client may send no more |
//! | window of a connection | 1 MiB | the same, on many streams at once |
//! | unsent data of a stream | 64 KiB | a client that never reads |
//! | interim responses to a request | 64 KiB | an upstream that says more than is taken |
//! | header list | 64 KiB, 100 fields | large heads: 431 |
//! | frame | 16 KiB | |
//! | CONTINUATION frames of a head | 5, from the two above | CONTINUATION floods |
//! | DATA frames without data | 100, the library's own | GOAWAY, ENHANCE_YOUR_CALM |
//! | other frames that carry nothing | see [`super::frames`] | the same |
//! | streams reset before they are looked at | 20 | rapid reset: GOAWAY, ENHANCE_YOUR_CALM |
//! | streams reset for the client's errors | 128 | the same, provoked |
//! | requests given up, less those answered since | 100 | the same after they are looked at |
//! | HPACK table | 4 KiB | |
//!
//! A SETTINGS or PING frame is answered before the next one is read, and who doesn't take the
//! answers is not read from. Neither they nor window updates are activity: requests and their
//! bodies are.
//!
//! Bodies stream: a window opens as far as the other side has taken what came before. Trailers
//! pass, both ways. A body whose request says `Expect: 100-continue` is asked for when it is taken.
//! A request of another session is answered with 421, then GOAWAY; so is what else no later request
//! on the connection could change.

mod connection;
mod patience;
pub(crate) mod receiving;
pub(crate) mod reply;
pub(crate) mod sending;
mod stream;

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, HeaderValue, Request, header};

pub(crate) use self::{connection::Connection, patience::Patience};
use super::{
    head::{HeadFault, MAX_HEAD, MAX_HEADERS, content_length},
    host,
};
use crate::gateway::rejection::Rejection;

/// Its name in TLS.
pub(crate) const ALPN: &[u8] = b"h2";

const MAX_STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const MAX_UNSENT: usize = 64 * 1024;
const MAX_FRAME: u32 = 16 * 1024;
const HPACK_TABLE: u32 = 4 * 1024;
const MAX_UNSEEN_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 128;

/// A server with these limits.
fn server() -> server::Builder {
    let mut server = server::Builder::new();
    server
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(MAX_UNSENT)
        .max_header_list_size(MAX_HEAD as u32)
        .max_frame_size(MAX_FRAME)
        .header_table_size(HPACK_TABLE)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS));
    server
}

/// Whether the peer broke the protocol, or a limit. Otherwise the connection just broke off.
pub(crate) fn violation(error: &h2::Error) -> Option<Rejection> {
    error
        .is_library()
        .then(|| Rejection::Http2(error.to_string()))
}

/// Checks what the library doesn't, and makes one `Cookie` of its pieces (RFC 9113, section
/// 8.2.3): HTTP/1.1 knows only one.
pub(crate) fn normalize<B>(request: &mut Request<B>) -> Result<(), Rejection> {
    if !host::agrees(request.uri(), request.headers()) {
        return Err(Rejection::Host);
    }
    if has_padded_value(request.headers()) {
        return Err(Rejection::Head(HeadFault::PaddedValue));
    }
    check_length(request.headers())?;
    join_cookies(request.headers_mut())?;
    if request.headers().len() > MAX_HEADERS {
        return Err(Rejection::Head(HeadFault::TooManyHeaders));
    }
    Ok(())
}

/// Every upstream must see the same length, and one of HTTP/1.1 sees all fields.
fn check_length(fields: &HeaderMap) -> Result<(), HeadFault> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (_, Some(_)) => Err(HeadFault::SeveralLengths),
        (Some(length), None) if content_length(length.as_bytes()).is_none() => {
            Err(HeadFault::InvalidLength)
        }
        _ => Ok(()),
    }
}

/// Whether a value starts or ends with a space or a tab: malformed (RFC 9113, section 8.2.1), and
/// something else to an HTTP/1.1 server.
pub(crate) fn has_padded_value(fields: &HeaderMap) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = fields.values().map(HeaderValue::as_bytes);
    values.any(|value| is_space(value.first()) || is_space(value.last()))
}

fn join_cookies(headers: &mut HeaderMap) -> Result<(), Rejection> {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return Ok(());
    };
    let mut joined = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(Bytes::from(joined))
        .map_err(|_| Rejection::Internal("pieces of a cookie make none"))?;
    headers.insert(header::COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_cookie_in_pieces_becomes_one() {
        let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
        let mut request = request("https://a/", &fields);
        normalize(&mut request).unwrap();
        let cookies: Vec<_> = request.headers().get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn host_and_authority_agree() {
        assert!(normalize(&mut request("https://a/", &[("host", "a")])).is_ok());
        assert!(normalize(&mut request("/", &[("host", "a")])).is_ok());
        for (authority, host) in [
            ("gw.test:8443", "GW.test:8443"),
            ("gw.test:443", "gw.test"),
            ("gw.test", "GW.TEST:443"),
            ("[::1]", "[::1]:443"),
        ] {
            let uri = format!("https://{authority}/");
            let mut same = request(&uri, &[("host", host)]);
            assert!(normalize(&mut same).is_ok(), "{authority} and {host}");
        }
        for (authority, host) in [
            ("a", "b"),
            ("a", "a:80"),
            ("a:8443", "a"),
            ("a:443", "a:8443"),
            ("a", "a:"),
            ("a", "eve@a"),
            ("a", "a:+443"),
            ("a", ""),
            ("a", "a/b"),
        ] {
            let uri = format!("https://{authority}/");
            let two = normalize(&mut request(&uri, &[("host", host)]));
            let code = two.unwrap_err().verdict().code;
            assert_eq!(code, "invalid_host", "{authority} and {host}");
        }
    }

    #[test]
    fn a_length_is_said_once() {
        let code = |values: &[&'static str]| {
            let fields: Vec<_> = values.iter().map(|it| ("content-length", *it)).collect();
            let refused = normalize(&mut request("https://a/", &fields)).err();
            refused.map(|rejection| rejection.verdict().code)
        };
        assert_eq!(code(&["7"]), None);
        for doubtful in [
            &["7", "7"][..],
            &["7", "8"],
            &["7, 7"],
            &["9223372036854775808"],
        ] {
            assert_eq!(code(doubtful), Some("bad_request"), "{doubtful:?}");
        }
    }

    #[test]
    fn fields_are_counted() {
        let many = [("x", "y"); MAX_HEADERS + 1];
        assert!(normalize(&mut request("https://a/", &many[1..])).is_ok());
        let rejection = normalize(&mut request("https://a/", &many)).unwrap_err();
        assert_eq!(rejection.verdict().code, "header_too_large");
    }
}
