//! `[listeners.NAME]`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use toml::Spanned;

use super::{
    CertificateName, ClientAuthority, Listener, Protocol, RequestIdentity, ServerTls, TrustDomain,
    cookies,
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
        let subject = certificate_name(draft, &raw);
        let protocol = protocol(draft, &raw, &subject);
        let identity = request_identity(draft, &raw, &protocol, &subject);
        let cookie = cookies::convert(draft, &raw, &protocol);
        let proxies = proxy::networks(draft, raw.proxy_protocol.as_ref());
        let tls = server_tls(draft, raw.tls);
        if let Some(address) = address {
            let listener = Listener {
                address,
                protocol,
                identity,
                cookie,
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
    let address = parse_address(draft, value)?;
    if let Some((other, line)) = taken.iter().find(|(other, _)| overlap(*other, address)) {
        let what = format!("`{address}` is taken by the listener on line {line} (`{other}`)");
        draft.report(value, what, "write another address or port");
    }
    taken.push((address, draft.line(value)));
    Some(address)
}

pub(super) fn parse_address(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<SocketAddr> {
    let text = value.get_ref();
    let address = text.parse().ok();
    if address.is_none() {
        draft.report(
            value,
            format!("`{text}` is not an address with a port"),
            "write an IP address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\"",
        );
    }
    address
}

/// Whether the kernel would refuse the second of two listening sockets.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |one: IpAddr, other: IpAddr| {
        one.is_unspecified() && (one.is_ipv6() || one.is_ipv4() == other.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (x == y || covers(x, y) || covers(y, x))
}

fn protocol(draft: &mut Draft<'_>, raw: &RawListener, subject: &CertificateName) -> Protocol {
    let value = raw.protocol.as_ref();
    let protocols = [
        ("http", Protocol::Http),
        ("tcp", Protocol::Tcp(subject.clone())),
        ("postgres", Protocol::Postgres),
    ];
    let protocol = draft.word("protocol", value, protocols);
    if let (Protocol::Tcp(_), Some(value)) = (&protocol, value) {
        if let Some(identity) = &raw.identity {
            draft.report(
                identity,
                "`identity` has no effect on a TCP listener: certificates say who a client is",
                "remove it, or write `protocol = \"http\"`",
            );
        }
        require_certificates(draft, value, raw, "a TCP listener");
    }
    protocol
}

/// How requests, and clients of a PostgreSQL listener, say whose they are.
fn request_identity(
    draft: &mut Draft<'_>,
    raw: &RawListener,
    protocol: &Protocol,
    subject: &CertificateName,
) -> RequestIdentity {
    if protocol.carries() == Carried::Bytes {
        return RequestIdentity::Token;
    }
    let kinds = [
        ("token", RequestIdentity::Token),
        ("certificate", RequestIdentity::Certificate(subject.clone())),
        (
            "token_or_certificate",
            RequestIdentity::TokenOrCertificate(subject.clone()),
        ),
    ];
    let identity = draft.word("identity", raw.identity.as_ref(), kinds);
    match (&identity, &raw.principal, &raw.identity) {
        (RequestIdentity::Token, Some(principal), _) => draft.report(
            principal,
            "`principal` has no effect here: tokens say who a client is",
            "add `identity = \"certificate\"` (or `\"token_or_certificate\"`), or remove it",
        ),
        (RequestIdentity::Certificate(_), _, Some(value)) => {
            require_certificates(draft, value, raw, "`identity = \"certificate\"`");
        }
        (RequestIdentity::TokenOrCertificate(_), _, Some(value)) if raw.tls.client_ca.is_none() => {
            draft.report(
                value,
                "without `client_ca` no client shows a certificate",
                ADD_CLIENT_CA,
            );
        }
        _ => {}
    }
    identity
}

impl Protocol {
    /// What upstreams of its routes must carry.
    pub(super) const fn carries(&self) -> Carried {
        match self {
            Self::Http => Carried::Http,
            Self::Tcp(_) => Carried::Bytes,
            Self::Postgres => Carried::Postgres,
        }
    }
}

const ADD_CLIENT_CA: &str =
    "add `client_ca` to `tls`, with the authority that signs the clients' certificates";

/// Where clients are known by their certificates alone.
fn require_certificates<T>(draft: &mut Draft<'_>, at: &Spanned<T>, raw: &RawListener, whose: &str) {
    if raw.tls.client_ca.is_none() {
        let what = format!("{whose} without `client_ca` could not tell who a client is");
        return draft.report(at, what, ADD_CLIENT_CA);
    }
    let optional = raw.tls.client_certificate.as_ref();
    if let Some(optional) = optional.filter(|it| it.get_ref() == "optional") {
        draft.report(
            optional,
            "clients are known by their certificates here: none can be optional",
            "remove `client_certificate`, or take tokens too: `identity = \"token_or_certificate\"`",
        );
    }
}

fn certificate_name(draft: &mut Draft<'_>, raw: &RawListener) -> CertificateName {
    let value = raw.principal.as_ref();
    let spiffe = trust_domain(draft, raw).map_or(CertificateName::Any, CertificateName::Spiffe);
    if value.is_none() {
        return CertificateName::Any;
    }
    let names = [
        ("subject_cn", CertificateName::SubjectCommonName),
        ("san_dns", CertificateName::Dns),
        ("san_email", CertificateName::Email),
        ("san_uri", CertificateName::Uri),
        ("spiffe", spiffe),
    ];
    draft.word("principal", value, names)
}

/// The trust domain that SPIFFE IDs are to be of. `None` if none is asked for, or it is reported.
fn trust_domain(draft: &mut Draft<'_>, raw: &RawListener) -> Option<TrustDomain> {
    let principal = raw.principal.as_ref();
    let principal = principal.filter(|it| it.get_ref() == "spiffe");
    let Some(value) = &raw.trust_domain else {
        if let Some(principal) = principal {
            draft.report(
                principal,
                "`client_ca` could speak for the workloads of any trust domain",
                "add `trust_domain = \"example.org\"`, the one that it is the authority of",
            );
        }
        return None;
    };
    if principal.is_none() {
        draft.report(
            value,
            "`trust_domain` has no effect without `principal = \"spiffe\"`",
            "add that, or remove it",
        );
    }
    let domain = TrustDomain::new(value.get_ref());
    if domain.is_none() {
        draft.report(
            value,
            format!("`{}` is not the name of a trust domain", value.get_ref()),
            "write it as SPIFFE IDs have it, without `spiffe://`: \"example.org\"",
        );
    }
    domain
}

fn server_tls(draft: &mut Draft<'_>, raw: RawServerTls) -> ServerTls {
    let client = client_authority(draft, &raw);
    let certificate = draft.file(&raw.certificate, Content::Certificates);
    let content = Content::PrivateKeyOf(certificate.clone());
    ServerTls {
        private_key: draft.file(&raw.private_key, content),
        certificate,
        client,
    }
}

fn client_authority(draft: &mut Draft<'_>, raw: &RawServerTls) -> Option<ClientAuthority> {
    let presence = [("required", true), ("optional", false)];
    let required = draft.word(
        "client_certificate",
        raw.client_certificate.as_ref(),
        presence,
    );
    let Some(roots) = &raw.client_ca else {
        let what = "has no effect without `client_ca`: clients are asked for no certificate";
        if let Some(value) = &raw.client_certificate {
            draft.report(value, format!("`client_certificate` {what}"), ADD_CLIENT_CA);
        }
        if let Some(list) = raw.client_crl.first() {
            draft.report(list, format!("`client_crl` {what}"), ADD_CLIENT_CA);
        }
        return None;
    };
    let authorities = draft.file(roots, Content::Roots);
    Some(ClientAuthority {
        revocation_lists: raw
            .client_crl
            .iter()
            .map(|path| draft.file(path, Content::RevocationListOf(authorities.clone())))
            .collect(),
        roots: authorities,
        required,
    })
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
