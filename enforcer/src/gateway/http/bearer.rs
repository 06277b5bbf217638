//! Where a request carries its bearer token. Pure.
//!
//! In this order: `Authorization`, as every client can; a WebSocket's subprotocol
//! `bearer.<token>`, as scripts of pages can; the listener's cookie, as pages do by themselves. What
//! comes by itself may come from any page: with the cookie, a request that could do harm must say
//! that it comes from a page of the same origin, or of an allowed one. A client's certificate comes by
//! itself, too, but not only from browsers: there it must not say that it comes from elsewhere.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use super::{headers::listed, host::RequestHost};
use crate::{
    config::TokenCookie,
    gateway::{rejection::Rejection, websocket::handshake},
};

const SUBPROTOCOL: &str = "bearer.";

/// The token of a request.
pub(crate) fn of_request<'a, B>(
    request: &'a Request<B>,
    cookie: Option<&TokenCookie>,
) -> Result<Option<&'a str>, Rejection> {
    let headers = request.headers();
    if let Some(token) = for_origin(headers)? {
        return Ok(Some(token));
    }
    let socket = handshake::is_requested(request);
    if socket && let Some(token) = single(offered(headers))? {
        return Ok(Some(token));
    }
    let Some(cookie) = cookie else {
        return Ok(None);
    };
    let Some(token) = single(values(headers, &cookie.name))? else {
        return Ok(None);
    };
    if is_risky(request) && !is_from(request, &cookie.origins)? {
        return Err(Rejection::CrossSite);
    }
    Ok(Some(token))
}

/// Refuses a request that a page of another site makes a browser send with the user's certificate.
pub(crate) fn check_certificates_origin<B>(
    request: &Request<B>,
    cookie: Option<&TokenCookie>,
) -> Result<(), Rejection> {
    let origins = cookie.map_or(&[][..], |cookie| &cookie.origins);
    let says = request.headers().contains_key(header::ORIGIN);
    if says && is_risky(request) && !is_from(request, origins)? {
        return Err(Rejection::CrossSite);
    }
    Ok(())
}

/// Whether a page of another site could do harm with the request: it changes something, or opens
/// a WebSocket, which any page may read.
fn is_risky<B>(request: &Request<B>) -> bool {
    let safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    !safe || handshake::is_requested(request)
}

/// Makes the request the upstream's: without the subprotocol, and without the cookie; with
/// `forward`, the token goes on in `Authorization`. Returns the subprotocol if it was the only
/// one: a browser wants one of those that it offers.
pub(crate) fn strip<B>(
    request: &mut Request<B>,
    cookie: Option<&TokenCookie>,
    forward: bool,
) -> Option<HeaderValue> {
    let socket = handshake::is_requested(request);
    let headers = request.headers_mut();
    let token = offered(headers).next().filter(|_| socket);
    let field = token.map(|token| format!("Bearer {token}"));
    if let Some(cookie) = cookie.filter(|_| !forward) {
        strip_cookie(headers, &cookie.name);
    }
    let field = HeaderValue::try_from(field?).ok();
    let protocols = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let (ours, others): (Vec<&str>, Vec<&str>) =
        protocols.partition(|protocol| protocol.starts_with(SUBPROTOCOL));
    let only = if others.is_empty() {
        ours.first().and_then(|it| HeaderValue::try_from(*it).ok())
    } else {
        None
    };
    let others = HeaderValue::try_from(others.join(", ")).ok();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let (Some(others), None) = (others, &only) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
    }
    if let Some(field) = field.filter(|_| forward) {
        headers.entry(header::AUTHORIZATION).or_insert(field);
    }
    only
}

/// The tokens among the subprotocols that a WebSocket's client offers.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    listed(headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|protocol| protocol.strip_prefix(SUBPROTOCOL))
}

/// The values of the cookies with this name.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(move |pair| pair.trim().split_once('=').filter(|(it, _)| *it == name))
        .map(|(_, value)| value)
}

/// A page of another host below the same domain can set a second cookie with the name: which of
/// them is the right one, nobody knows.
fn single<'a>(mut tokens: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, Rejection> {
    let token = tokens.next();
    match tokens.next() {
        None => Ok(token),
        Some(_) => Err(Rejection::SeveralTokens),
    }
}

fn strip_cookie(headers: &mut HeaderMap, name: &str) {
    let is_ours = |pair: &str| {
        pair.trim()
            .split_once('=')
            .is_some_and(|(it, _)| it == name)
    };
    let fields: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for field in fields {
        let kept = match field.to_str() {
            Ok(text) if text.split(';').any(is_ours) => {
                let others: Vec<_> = text
                    .split(';')
                    .filter(|pair| !is_ours(pair))
                    .map(str::trim)
                    .collect();
                HeaderValue::try_from(others.join("; "))
                    .ok()
                    .filter(|value| !value.is_empty())
            }
            _ => Some(field),
        };
        if let Some(kept) = kept {
            headers.append(header::COOKIE, kept);
        }
    }
}

/// Whether the request says that it comes from a page of the same origin, or of an allowed one.
/// Browsers say where every such request comes from.
fn is_from<B>(request: &Request<B>, allowed: &[String]) -> Result<bool, Rejection> {
    let mut fields = request.headers().get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (fields.next(), fields.next()) else {
        return Ok(false);
    };
    let host = RequestHost::of(request.uri(), request.headers())?;
    let own = host.written.to_ascii_lowercase();
    let own = format!("https://{}", own.strip_suffix(":443").unwrap_or(&own));
    let allowed = allowed.iter().map(String::as_str);
    Ok(allowed.chain([&*own]).any(|it| origin == it))
}

/// The token of a request (RFC 6750, section 2.1).
pub(crate) fn for_origin(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    bearer(headers, header::AUTHORIZATION)
}

/// The token of a CONNECT: the proxy's own, else the request's.
pub(crate) fn for_proxy(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    match bearer(headers, header::PROXY_AUTHORIZATION)? {
        None => for_origin(headers),
        found => Ok(found),
    }
}

/// What the field says with the scheme `Bearer`. Another scheme is not for us.
fn bearer(headers: &HeaderMap, field: HeaderName) -> Result<Option<&str>, Rejection> {
    let mut fields = headers.get_all(field).iter();
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(Rejection::SeveralTokens);
    }
    let credentials = field.to_str().ok().map(str::trim);
    Ok(credentials
        .and_then(|credentials| credentials.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    fn cookie() -> TokenCookie {
        TokenCookie {
            name: "t".to_owned(),
            origins: vec!["https://app.example".to_owned()],
        }
    }

    fn request(method: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// A WebSocket's opening with these fields.
    fn socket(fields: &[(&'static str, &'static str)]) -> Request<()> {
        let upgrade = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("host", "a"),
        ];
        request("GET", &[&upgrade, fields].concat())
    }

    fn token(request: &Request<()>) -> Result<Option<String>, &'static str> {
        of_request(request, Some(&cookie()))
            .map(|token| token.map(str::to_owned))
            .map_err(|rejection| rejection.verdict().code)
    }

    const PROTOCOL: &str = "sec-websocket-protocol";

    #[test]
    fn a_socket_may_have_it_as_its_subprotocol() {
        let found = |value| token(&socket(&[(PROTOCOL, value)]));
        assert_eq!(found("chat, bearer.a.b, x"), Ok(Some("a.b".to_owned())));
        assert_eq!(found("chat"), Ok(None));
        assert_eq!(found("bearer.a, bearer.b"), Err("invalid_request"));
        let plain = request("GET", &[(PROTOCOL, "bearer.a")]);
        assert_eq!(token(&plain), Ok(None));
        let both = socket(&[("authorization", "Bearer b"), (PROTOCOL, "bearer.a")]);
        assert_eq!(token(&both), Ok(Some("b".to_owned())));
    }

    #[test]
    fn the_upstream_never_sees_the_subprotocol() {
        let left = |fields: &[(&'static str, &'static str)], forward| {
            let mut request = socket(fields);
            let only = strip(&mut request, None, forward);
            let field = |name| {
                let field = request.headers().get(name)?;
                Some(field.to_str().unwrap().to_owned())
            };
            (field(PROTOCOL), field("authorization"), only)
        };
        let chat = Some("chat, x".to_owned());
        assert_eq!(
            left(&[(PROTOCOL, "chat, bearer.a, x")], false),
            (chat, None, None)
        );
        let only = Some(HeaderValue::from_static("bearer.a"));
        assert_eq!(
            left(&[(PROTOCOL, "bearer.a")], false),
            (None, None, only.clone())
        );
        let authorized = Some("Bearer a".to_owned());
        assert_eq!(
            left(&[(PROTOCOL, "bearer.a")], true),
            (None, authorized, only)
        );
        let chat = Some("chat".to_owned());
        assert_eq!(left(&[(PROTOCOL, "chat")], false), (chat, None, None));
    }

    #[test]
    fn a_cookie_is_believed_from_pages_that_may_send_it() {
        const COOKIE: (&str, &str) = ("cookie", "x=1; t=a.b;y=2");
        const HOST: (&str, &str) = ("host", "A.example:443");
        let a = Ok(Some("a.b".to_owned()));
        assert_eq!(token(&request("GET", &[HOST, COOKIE])), a);
        for (origin, wanted) in [
            ("https://a.example", a.clone()),
            ("https://app.example", a.clone()),
            ("http://a.example", Err("cross_site")),
            ("https://a.example:8443", Err("cross_site")),
            ("https://evil.example", Err("cross_site")),
            ("null", Err("cross_site")),
        ] {
            for method in ["POST", "DELETE", "PATCH"] {
                let request = request(method, &[HOST, COOKIE, ("origin", origin)]);
                assert_eq!(token(&request), wanted, "{method} {origin}");
            }
        }
        assert_eq!(token(&request("POST", &[HOST, COOKIE])), Err("cross_site"));
        assert_eq!(token(&socket(&[COOKIE])), Err("cross_site"));
        assert_eq!(token(&socket(&[COOKIE, ("origin", "https://a")])), a);
        let field = ("authorization", "Bearer b");
        let by_field = request("POST", &[HOST, COOKIE, field]);
        assert_eq!(token(&by_field), Ok(Some("b".to_owned())));
        let two = request("GET", &[HOST, ("cookie", "t=a; t=b")]);
        assert_eq!(token(&two), Err("invalid_request"));
        let unnamed = request("GET", &[HOST, COOKIE]);
        assert!(of_request(&unnamed, None).unwrap().is_none());
    }

    #[test]
    fn a_certificate_is_believed_unless_a_page_of_elsewhere_sends_it() {
        const HOST: (&str, &str) = ("host", "a.example");
        let check = |request: &Request<()>| {
            let checked = check_certificates_origin(request, Some(&cookie()));
            checked.map_err(|rejection| rejection.verdict().code)
        };
        for origin in ["https://a.example", "https://app.example"] {
            assert_eq!(check(&request("POST", &[HOST, ("origin", origin)])), Ok(()));
        }
        for origin in ["https://evil.example", "null"] {
            let elsewhere = ("origin", origin);
            let refused = Err("cross_site");
            assert_eq!(check(&request("POST", &[HOST, elsewhere])), refused);
            assert_eq!(check(&request("GET", &[HOST, elsewhere])), Ok(()));
            assert_eq!(check(&socket(&[elsewhere])), refused);
        }
        assert_eq!(check(&request("POST", &[HOST])), Ok(()));
        assert_eq!(check(&socket(&[])), Ok(()));
    }

    #[test]
    fn the_upstream_sees_the_other_cookies() {
        let left = |field: &'static str, forward| {
            let mut request = request("GET", &[("cookie", field)]);
            strip(&mut request, Some(&cookie()), forward);
            let field = request.headers().get("cookie");
            field.map(|field| field.to_str().unwrap().to_owned())
        };
        assert_eq!(left("x=1; t=a; y=2", false).as_deref(), Some("x=1; y=2"));
        assert_eq!(left("t=a", false), None);
        assert_eq!(left("x=1;tt=2", false).as_deref(), Some("x=1;tt=2"));
        assert_eq!(left("x=1; t=a", true).as_deref(), Some("x=1; t=a"));
    }

    #[test]
    fn only_one_bearer_token_counts() {
        let found = |value| {
            let headers = headers(&[(header::AUTHORIZATION, value)]);
            for_origin(&headers).unwrap().map(str::to_owned)
        };
        assert_eq!(found("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(found("bearer  abc ").as_deref(), Some("abc"));
        for none in ["Basic abc", "Bearer", "abc", ""] {
            assert_eq!(found(none), None, "{none}");
        }
        let two = headers(&[
            (header::AUTHORIZATION, "Bearer a"),
            (header::AUTHORIZATION, "Basic b"),
        ]);
        assert!(matches!(for_origin(&two), Err(Rejection::SeveralTokens)));
        assert!(for_origin(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_proxys_own_token_goes_first() {
        let both = headers(&[
            (header::AUTHORIZATION, "Bearer origin"),
            (header::PROXY_AUTHORIZATION, "Bearer proxy"),
        ]);
        assert_eq!(for_proxy(&both).unwrap(), Some("proxy"));
        assert_eq!(for_origin(&both).unwrap(), Some("origin"));
        let origin = headers(&[(header::AUTHORIZATION, "Bearer origin")]);
        assert_eq!(for_proxy(&origin).unwrap(), Some("origin"));
    }
}
