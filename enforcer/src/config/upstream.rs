//! The address of an upstream: `http://host:port` and the like.

use rustls::pki_types::ServerName;

use super::{HttpVersion, TlsOpening, error::did_you_mean};

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    /// HTTP/2 in the clear, without a handshake about it.
    H2c,
    H2,
    /// Whatever the client speaks.
    Tcp,
    /// The same within TLS.
    Tls,
    Postgres,
    PostgresTls,
}

/// What a listener and its upstreams carry alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    Http,
    Bytes,
    Postgres,
}

impl Carried {
    /// A listener that carries it.
    pub(super) const fn listener(self) -> &'static str {
        match self {
            Self::Http => "an HTTP listener",
            Self::Bytes => "a TCP listener",
            Self::Postgres => "a PostgreSQL listener",
        }
    }
}

impl Scheme {
    const ALL: [Self; 8] = [
        Self::Http,
        Self::Https,
        Self::H2c,
        Self::H2,
        Self::Tcp,
        Self::Tls,
        Self::Postgres,
        Self::PostgresTls,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Postgres => "postgres",
            Self::PostgresTls => "postgres+tls",
        }
    }

    pub(super) const fn has_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2 | Self::Tls | Self::PostgresTls)
    }

    pub(super) const fn carries(self) -> Carried {
        match self {
            Self::Http | Self::Https | Self::H2c | Self::H2 => Carried::Http,
            Self::Tcp | Self::Tls => Carried::Bytes,
            Self::Postgres | Self::PostgresTls => Carried::Postgres,
        }
    }

    pub(super) const fn version(self) -> HttpVersion {
        match self {
            Self::H2c | Self::H2 => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        }
    }

    pub(super) const fn tls_opening(self) -> TlsOpening {
        match self {
            Self::PostgresTls => TlsOpening::SslRequest,
            _ => TlsOpening::AtOnce,
        }
    }

    /// The same with TLS.
    pub(super) const fn secured(self) -> Self {
        match self {
            Self::Http | Self::Https => Self::Https,
            Self::H2c | Self::H2 => Self::H2,
            Self::Tcp | Self::Tls => Self::Tls,
            Self::Postgres | Self::PostgresTls => Self::PostgresTls,
        }
    }

    /// The scheme with the same security that carries something else.
    pub(super) const fn counterpart(self, carried: Carried) -> Self {
        match (carried, self.has_tls()) {
            (Carried::Http, false) => Self::Http,
            (Carried::Http, true) => Self::Https,
            (Carried::Bytes, false) => Self::Tcp,
            (Carried::Bytes, true) => Self::Tls,
            (Carried::Postgres, false) => Self::Postgres,
            (Carried::Postgres, true) => Self::PostgresTls,
        }
    }

    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http | Self::H2c => Some(80),
            Self::Https | Self::H2 => Some(443),
            Self::Tcp | Self::Tls => None,
            Self::Postgres | Self::PostgresTls => Some(5432),
        }
    }
}

/// The parts of an upstream's URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
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
    let Some((written, authority)) = url.split_once("://") else {
        return Err(bad(
            format!("`{url}` has no scheme"),
            format!("write `http://{url}` or `https://{url}`"),
        ));
    };
    let Some(scheme) = Scheme::ALL.into_iter().find(|it| it.name() == written) else {
        let known = Scheme::ALL.map(Scheme::name);
        let scheme = did_you_mean(written, known).unwrap_or("http");
        return Err(bad(
            format!("`{url}` is of an unknown scheme"),
            format!("write `{scheme}://{authority}`"),
        ));
    };
    let name = scheme.name();
    if let Some(end) = authority.find(['/', '?', '#']) {
        return Err(bad(
            format!("`{url}` has a path: what the client sends passes as it is"),
            format!("write `{name}://{}`", &authority[..end]),
        ));
    }
    if let Some((_, rest)) = authority.rsplit_once('@') {
        return Err(bad(
            "the upstream has a user name in it".to_owned(),
            format!("write `{name}://{rest}`"),
        ));
    }
    let (host, port) = split(authority)
        .ok_or_else(|| malformed(url))
        .and_then(|(host, port)| Ok((host, parse_port(url, port, scheme)?)))?;
    if ServerName::try_from(host).is_err() {
        return Err(malformed(url));
    }
    Ok(Address {
        scheme,
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

fn parse_port(url: &str, port: Option<&str>, scheme: Scheme) -> Result<u16, BadAddress> {
    let Some(port) = port else {
        return scheme.default_port().ok_or_else(|| {
            bad(
                format!("`{url}` has no port"),
                format!("write the port that the upstream listens on, such as `{url}:5432`"),
            )
        });
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
        use Scheme::{H2, H2c, Http, Https, Postgres, PostgresTls, Tcp, Tls};
        for (url, scheme, host, port) in [
            ("http://127.0.0.1:9000", Http, "127.0.0.1", 9000),
            ("http://Backend.internal", Http, "backend.internal", 80),
            ("https://backend", Https, "backend", 443),
            ("https://[::1]:8443", Https, "::1", 8443),
            ("http://[2001:db8::1]", Http, "2001:db8::1", 80),
            ("h2c://127.0.0.1:50051", H2c, "127.0.0.1", 50051),
            ("h2://backend", H2, "backend", 443),
            ("tcp://db:5432", Tcp, "db", 5432),
            ("tls://[::1]:636", Tls, "::1", 636),
            ("postgres://db", Postgres, "db", 5432),
            ("postgres+tls://db:6432", PostgresTls, "db", 6432),
        ] {
            let host = host.to_owned();
            let address = Address { scheme, host, port };
            assert_eq!(parse(url), Ok(address), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_answered_with_one() {
        for (url, what, help) in [
            ("127.0.0.1:9000", "no scheme", "`http://127.0.0.1:9000`"),
            ("httpss://db", "unknown scheme", "`https://db`"),
            ("udp://db:53", "unknown scheme", "`http://db:53`"),
            ("tcp://db", "has no port", "`tcp://db:5432`"),
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
