//! A listening socket: where it is, what it speaks, and how its clients say who they are.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;

/// A listening socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// How requests on it say whose they are; says nothing of a TCP listener's clients.
    pub identity: RequestIdentity,
    /// `token_cookie`: requests of browsers may carry their token in it.
    pub cookie: Option<TokenCookie>,
    /// `proxy_protocol = { from = [..] }`: networks of the proxies that stand in front of it. Their
    /// connections start with a PROXY protocol header, which says who the client is; those of
    /// others don't. Empty without proxies.
    pub proxies: Vec<IpNet>,
    /// Its TLS; every listener has one.
    pub tls: ServerTls,
}

impl Listener {
    /// Clients may say who they are by a token.
    pub fn takes_tokens(&self) -> bool {
        let by_certificate = matches!(self.identity, RequestIdentity::Certificate(_));
        !by_certificate && !matches!(self.protocol, Protocol::Tcp(_))
    }

    /// Clients may say who they are by a certificate alone.
    pub fn takes_certificates(&self) -> bool {
        matches!(self.protocol, Protocol::Tcp(_)) || self.identity != RequestIdentity::Token
    }
}

/// A cookie that a token may come in, and who may have it sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCookie {
    /// Its name.
    pub name: String,
    /// `allowed_origins`: beside pages of the same origin, those of these may send requests that
    /// change something, and open WebSockets. As browsers write them.
    pub origins: Vec<String>,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP over TLS.
    Http,
    /// Any protocol over TLS, passed on as it is. Clients show a certificate, and this name in it
    /// is the principal's.
    Tcp(CertificateName),
    /// PostgreSQL, within TLS.
    Postgres,
}

/// How requests on an HTTP listener, and clients of a PostgreSQL listener, say whose they are
/// (`identity` of a listener). A PostgreSQL client gives its token as the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestIdentity {
    /// `token`: by a bearer token. The default.
    Token,
    /// `certificate`: by the client's certificate.
    Certificate(CertificateName),
    /// `token_or_certificate`: by a bearer token if there is one, else by the client's certificate.
    TokenOrCertificate(CertificateName),
}

/// Which name in a certificate is the subject of its principal (`principal` of a listener). Of
/// several of a kind it is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The first alternative name that is a URI, a DNS name or an email address, in the order of
    /// the certificate; without one the whole subject. The default.
    Any,
    /// `subject_cn`: the common name in the subject.
    SubjectCommonName,
    /// `san_dns`: an alternative DNS name.
    Dns,
    /// `san_email`: an alternative email address.
    Email,
    /// `san_uri`: an alternative URI.
    Uri,
    /// `spiffe`: the one alternative URI, which is a workload's SPIFFE ID, and of this trust domain:
    /// the listener's authorities speak for no other.
    Spiffe(TrustDomain),
}

/// The name of a SPIFFE trust domain (`trust_domain` of a listener), such as `example.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// A domain with this name; `None` if no domain can have it.
    pub fn new(name: &str) -> Option<Self> {
        Self::is_name(name).then(|| Self(name.into()))
    }

    /// Whether a domain may have this name (SPIFFE-ID, section 2.1).
    pub fn is_name(name: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        (1..=255).contains(&name.len()) && name.bytes().all(allowed)
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTls {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub private_key: PathBuf,
    /// Whose clients' certificates are accepted; without it clients are asked for none.
    pub client: Option<ClientAuthority>,
}

/// The authority that signs clients' certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuthority {
    /// `client_ca`: PEM roots.
    pub roots: PathBuf,
    /// `client_crl`: PEM lists of revoked certificates. With any, every certificate of a chain
    /// must be covered by a list that is up to date.
    pub revocation_lists: Vec<PathBuf>,
    /// `client_certificate = "required"`, the default, or `"optional"`.
    pub required: bool,
}
