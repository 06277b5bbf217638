//! The address of an upstream: `http://host:port` or `https://host:port`; with HTTP/2 `h2c://` or
//! `h2://`.

use rustls::pki_types::ServerName;

use super::{HttpVersion, error::did_you_mean};

/// The parts of an upstream's URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) version: HttpVersion,
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why it is none: what is wrong with it, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadAddress {
    pub(super) what: String,
    pub(super) help: String,
}

/// Takes the URL apart.
pub(super) fn parse(url: &str) -> Result<Address, BadAddress> {
    let Some((scheme, authority)) = url.split_once("://") else {
        return Err(bad(
            format!("`{url}` has no scheme"),
            format!("write `http://{url}` or `https://{url}`"),
        ));
    };
    let (version, tls) = match scheme {
        "http" => (HttpVersion::Http1, false),
        "https" => (HttpVersion::Http1, true),
        "h2c" => (HttpVersion::Http2, false),
        "h2" => (HttpVersion::Http2, true),
        _ => {
            let known = ["http", "https", "h2c", "h2"];
            let scheme = did_you_mean(scheme, known).unwrap_or("http");
            return Err(bad(
                format!("`{url}` is of an unknown scheme"),
                format!("write `{scheme}://{authority}`"),
            ));
        }
    };
    if let Some(end) = authority.find(['/', '?', '#']) {
        return Err(bad(
            format!("`{url}` has a path: requests keep the path that the client sent"),
            format!("write `{scheme}://{}`", &authority[..end]),
        ));
    }
    if let Some((_, rest)) = authority.rsplit_once('@') {
        return Err(bad(
            "the upstream has a user name in it".to_owned(),
            format!("write `{scheme}://{rest}`"),
        ));
    }
    let (host, port) = split(authority)
        .ok_or_else(|| malformed(url))
        .and_then(|(host, port)| Ok((host, parse_port(url, port, tls)?)))?;
    if ServerName::try_from(host).is_err() {
        return Err(malformed(url));
    }
    Ok(Address {
        version,
        tls,
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// Host without brackets, and port if there is a colon for it.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':')?),
        };
        return host.contains(':').then_some((host, port));
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn parse_port(url: &str, port: Option<&str>, tls: bool) -> Result<u16, BadAddress> {
    let Some(port) = port else {
        return Ok(if tls { 443 } else { 80 });
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if port != 0 && digits => Ok(port),
        _ => Err(bad(
            format!("`{url}` has no valid port"),
            "write a port from 1 to 65535, and an IPv6 address in brackets".to_owned(),
        )),
    }
}

fn malformed(url: &str) -> BadAddress {
    bad(
        format!("`{url}` has no valid host"),
        "write a host name or an address, such as `http://127.0.0.1:9000` or `http://[::1]:9000`"
            .to_owned(),
    )
}

fn bad(what: String, help: String) -> BadAddress {
    BadAddress { what, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_taken_apart() {
        use HttpVersion::{Http1, Http2};
        for (url, version, tls, host, port) in [
            ("http://127.0.0.1:9000", Http1, false, "127.0.0.1", 9000),
            (
                "http://Backend.internal",
                Http1,
                false,
                "backend.internal",
                80,
            ),
            ("https://backend", Http1, true, "backend", 443),
            ("https://[::1]:8443", Http1, true, "::1", 8443),
            ("http://[2001:db8::1]", Http1, false, "2001:db8::1", 80),
            ("h2c://127.0.0.1:50051", Http2, false, "127.0.0.1", 50051),
            ("h2://backend", Http2, true, "backend", 443),
        ] {
            let address = Address {
                version,
                tls,
                host: host.to_owned(),
                port,
            };
            assert_eq!(parse(url), Ok(address), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_answered_with_one() {
        for (url, what, help) in [
            ("127.0.0.1:9000", "no scheme", "`http://127.0.0.1:9000`"),
            ("tcp://db:5432", "unknown scheme", "`http://db:5432`"),
            ("http://api/v1", "has a path", "`http://api`"),
            ("http://api/", "has a path", "`http://api`"),
            ("http://api?x", "has a path", "`http://api`"),
            ("http://me:pw@api:1", "user name", "`http://api:1`"),
            ("http://", "no valid host", "`http://127.0.0.1:9000`"),
            ("http://a b", "no valid host", "host name"),
            ("http://::1:80", "no valid port", "brackets"),
            ("http://api:", "no valid port", "1 to 65535"),
            ("http://api:0", "no valid port", "1 to 65535"),
            ("http://api:+80", "no valid port", "1 to 65535"),
            ("http://api:65536", "no valid port", "1 to 65535"),
            ("http://[::1", "no valid host", "host name"),
            ("http://[api]", "no valid host", "host name"),
        ] {
            let bad = parse(url).unwrap_err();
            assert!(bad.what.contains(what), "{url}: {bad:?}");
            assert!(bad.help.contains(help), "{url}: {bad:?}");
            assert!(!bad.what.contains("pw"), "{url}: {bad:?}");
        }
    }
}
