//! Which host a request is for. Pure.

use http::{
    HeaderMap, HeaderValue, Uri, header,
    uri::{Authority, Scheme},
};

use crate::gateway::rejection::Rejection;

/// The host of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestHost {
    /// As the client wrote it, with port.
    pub(crate) written: String,
    /// As routes name it: lower case, no port, no final dot.
    pub(crate) name: String,
}

impl RequestHost {
    /// From the target if it is absolute (RFC 9112, section 3.2.2), else from `Host`.
    pub(crate) fn of(target: &Uri, headers: &HeaderMap) -> Result<Self, Rejection> {
        let written = match target.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => {
                let mut fields = headers.get_all(header::HOST).iter();
                match (fields.next(), fields.next()) {
                    (Some(host), None) => host.to_str().map_err(|_| Rejection::Host)?.to_owned(),
                    _ => return Err(Rejection::Host),
                }
            }
        };
        let authority: Authority = written.parse().map_err(|_| Rejection::Host)?;
        let host = authority.host();
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name.is_empty() || written.contains('@') {
            return Err(Rejection::Host);
        }
        Ok(Self { written, name })
    }
}

/// Whether every `Host` names what the target names (RFC 9113, section 8.3.1): in whatever case, and
/// with or without the port that the scheme implies.
pub(crate) fn agrees(target: &Uri, headers: &HeaderMap) -> bool {
    let Some(authority) = target.authority() else {
        return true;
    };
    let implied = target.scheme().and_then(implied_port);
    let same = |host: &HeaderValue| {
        let named = place(authority, implied);
        let other = Authority::try_from(host.as_bytes()).ok();
        let other = other.and_then(|other| place(&other, implied));
        host == authority.as_str() || (named.is_some() && named == other)
    };
    headers.get_all(header::HOST).iter().all(same)
}

fn implied_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host and port of an authority that has nothing else.
fn place(authority: &Authority, implied: Option<u16>) -> Option<(String, Option<u16>)> {
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host)? {
        "" => implied,
        port => {
            let digits = port.strip_prefix(':')?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            Some(is_number.then(|| digits.parse().ok()).flatten()?)
        }
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(target: &str, fields: &[&'static str]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::HOST, HeaderValue::from_static(field));
        }
        let host = RequestHost::of(&target.parse().unwrap(), &headers).ok()?;
        Some((host.name, host.written))
    }

    #[test]
    fn names_are_canonical() {
        let name = |field| host("/", &[field]).unwrap().0;
        assert_eq!(name("API.example.com:8443"), "api.example.com");
        assert_eq!(name("api.example.com."), "api.example.com");
        assert_eq!(name("[::1]:8443"), "[::1]");
    }

    #[test]
    fn an_absolute_target_wins() {
        let found = host("http://b:1/x", &["a"]).unwrap();
        assert_eq!(found, ("b".to_owned(), "b:1".to_owned()));
    }

    #[test]
    fn doubtful_hosts_are_refused() {
        assert_eq!(host("/", &[]), None);
        assert_eq!(host("/", &["a", "a"]), None);
        for field in ["", "a b", "user@a", "a/b", ":80", "."] {
            assert_eq!(host("/", &[field]), None, "{field}");
        }
    }
}
