//! `[listeners.NAME]`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use toml::Spanned;

use super::{
    CertificateName, Listener, PostgresCredential, Protocol, ServerTls,
    draft::Draft,
    files::Content,
    proxy,
    raw::{Named, RawListener, RawServerTls},
    upstream::Carried,
};

pub(super) fn convert(
    draft: &mut Draft<'_>,
    raw: Named<RawListener>,
) -> BTreeMap<String, Listener> {
    if raw.is_empty() {
        draft.report_file(
            "there is no listener",
            "add a section `[listeners.public]` with `address` and `tls`",
        );
    }
    let mut taken: Vec<(SocketAddr, usize)> = Vec::new();
    let mut listeners = BTreeMap::new();
    for (name, raw) in raw {
        draft.name("listener", &name);
        let address = address(draft, &raw.address, &mut taken);
        let protocol = protocol(draft, &raw);
        let proxies = proxy::networks(draft, raw.proxy_protocol.as_ref());
        let tls = server_tls(draft, raw.tls);
        if let Some(address) = address {
            let listener = Listener {
                address,
                protocol,
                proxies,
                tls,
            };
            listeners.insert(name.into_inner(), listener);
        }
    }
    listeners
}

fn address(
    draft: &mut Draft<'_>,
    value: &Spanned<String>,
    taken: &mut Vec<(SocketAddr, usize)>,
) -> Option<SocketAddr> {
    let text = value.get_ref();
    let Ok(address) = text.parse::<SocketAddr>() else {
        draft.report(
            value,
            format!("`{text}` is not an address with a port"),
            "write an IP address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\"",
        );
        return None;
    };
    if let Some((other, line)) = taken.iter().find(|(other, _)| overlap(*other, address)) {
        let what = format!("`{address}` is taken by the listener on line {line} (`{other}`)");
        draft.report(value, what, "write another address or port");
    }
    taken.push((address, draft.line(value)));
    Some(address)
}

/// Whether the kernel would refuse the second of two listening sockets.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |one: IpAddr, other: IpAddr| {
        one.is_unspecified() && (one.is_ipv6() || one.is_ipv4() == other.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (x == y || covers(x, y) || covers(y, x))
}

fn protocol(draft: &mut Draft<'_>, raw: &RawListener) -> Protocol {
    let value = raw.protocol.as_ref();
    let name = certificate_name(draft, raw.principal.as_ref());
    let credentials = [
        ("certificate", PostgresCredential::Certificate(name)),
        ("token", PostgresCredential::Token),
    ];
    let credential = draft.word("credential", raw.credential.as_ref(), credentials);
    let protocols = [
        ("http", Protocol::Http),
        ("tcp", Protocol::Tcp(name)),
        ("postgres", Protocol::Postgres(credential)),
    ];
    let protocol = draft.word("protocol", value, protocols);
    if let Some(credential) = &raw.credential
        && protocol.carries() != Carried::Postgres
    {
        draft.report(
            credential,
            "`credential` has an effect on PostgreSQL listeners only",
            "remove it, or write `protocol = \"postgres\"`",
        );
    }
    match (protocol, value, &raw.principal) {
        (Protocol::Http, _, Some(principal)) => draft.report(
            principal,
            "`principal` has no effect on an HTTP listener: tokens say who a client is",
            "remove it, or write `protocol = \"tcp\"`",
        ),
        (Protocol::Postgres(PostgresCredential::Token), _, Some(principal)) => draft.report(
            principal,
            "`principal` has no effect with `credential = \"token\"`: tokens say who a client is",
            "remove it, or write `credential = \"certificate\"`",
        ),
        (
            Protocol::Tcp(_) | Protocol::Postgres(PostgresCredential::Certificate(_)),
            Some(value),
            _,
        ) if raw.tls.client_ca.is_none() => {
            let listener = protocol.carries().listener();
            let help = "add `client_ca` to `tls`, with the authority that signs the clients' \
                        certificates";
            draft.report(
                value,
                format!("{listener} without `client_ca` could not tell who a client is"),
                match protocol {
                    Protocol::Postgres(_) => format!("{help}, or write `credential = \"token\"`"),
                    _ => help.to_owned(),
                },
            );
        }
        _ => {}
    }
    protocol
}

impl Protocol {
    /// What upstreams of its routes must carry.
    pub(super) const fn carries(self) -> Carried {
        match self {
            Self::Http => Carried::Http,
            Self::Tcp(_) => Carried::Bytes,
            Self::Postgres(_) => Carried::Postgres,
        }
    }
}

fn certificate_name(draft: &mut Draft<'_>, value: Option<&Spanned<String>>) -> CertificateName {
    if value.is_none() {
        return CertificateName::Any;
    }
    let names = [
        ("subject_cn", CertificateName::SubjectCommonName),
        ("san_dns", CertificateName::Dns),
        ("san_email", CertificateName::Email),
        ("san_uri", CertificateName::Uri),
    ];
    draft.word("principal", value, names)
}

fn server_tls(draft: &mut Draft<'_>, raw: RawServerTls) -> ServerTls {
    let certificate = draft.file(&raw.certificate, Content::Certificates);
    let content = Content::PrivateKeyOf(certificate.clone());
    ServerTls {
        private_key: draft.file(&raw.private_key, content),
        certificate,
        client_ca: raw.client_ca.map(|path| draft.file(&path, Content::Roots)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_every_address_of_its_port() {
        let overlap = |a: &str, b: &str| overlap(a.parse().unwrap(), b.parse().unwrap());
        assert!(overlap("127.0.0.1:1", "127.0.0.1:1"));
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1"));
        assert!(overlap("127.0.0.1:1", "[::]:1"));
        assert!(overlap("[::ffff:127.0.0.1]:1", "127.0.0.1:1"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.1:2"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlap("0.0.0.0:1", "[::1]:1"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"));
    }
}
