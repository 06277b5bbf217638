//! Where a request carries its bearer token. Pure.

use http::{HeaderMap, HeaderName, header};

use crate::gateway::rejection::Rejection;

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
