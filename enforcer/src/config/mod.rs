//! The configuration: TOML -> raw structures -> [`Config`], in which nothing needs a second look.
//!
//! Paths are absolute (relative ones are resolved against the folder of the file), durations are
//! durations, names that refer to something refer to something that exists.

mod assertion;
mod audit;
mod cookies;
mod daemon;
mod difference;
mod draft;
mod duration;
mod error;
mod files;
mod fixed;
mod identity;
mod listeners;
mod load;
mod location;
mod monitoring;
mod outbound;
mod policies;
mod postgres;
mod proxy;
mod raw;
mod routes;
mod shape;
mod tunnels;
mod upstream;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use assertion::Assertion;
pub use difference::differences;
pub(crate) use difference::route_name;
pub(crate) use error::reading_help;
pub use error::{ConfigError, Problem};
pub(crate) use files::{read_password, read_secret};
use http::Uri;
use ipnet::IpNet;
pub(crate) use outbound::parse as parse_outbound_url;
pub use policies::{Origin, PolicySettings, Setting};

use crate::{
    audit::{DetectorKind, DetectorSettings},
    policy::{Policy, Requirements},
};

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[audit]`
    pub audit: Audit,
    /// `[listeners.NAME]`
    pub listeners: BTreeMap<String, Listener>,
    /// `[identity]`
    pub identity: Identity,
    /// `[assertion]`
    pub assertion: Option<Assertion>,
    /// `[policies.NAME]`
    pub policies: BTreeMap<String, Policy>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<Route>,
    /// `[[routes]]` with `protocol = "tunnel"`, in the order of the file.
    pub tunnels: Vec<TunnelRoute>,
    /// What the daemon says of itself.
    pub monitoring: Monitoring,
}

/// What the daemon says of itself, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitoring {
    /// `[metrics] address`: where they are served to anybody; nowhere by default.
    pub metrics_address: Option<SocketAddr>,
    /// `[canary] interval`; default 1 h.
    pub canary_interval: Option<Duration>,
    /// `[detectors.NAME]`: those that are on, which is all by default.
    pub detectors: BTreeMap<DetectorKind, DetectorSettings>,
    /// `[[alerts.webhook]]`
    pub webhooks: Vec<Webhook>,
    /// `[traces]`
    pub traces: Option<Traces>,
}

/// A receiver of alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// What it is called in figures, messages and the queue on the disk.
    pub name: String,
    /// Where alerts are posted.
    pub url: Uri,
    /// The secret that signs them: the file's bytes without a final line break, at least 32.
    pub secret_file: PathBuf,
    /// How.
    pub outbound: Outbound,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The collector's OTLP/HTTP endpoint.
    pub url: Uri,
    /// A client's `traceparent` is continued. Otherwise each request begins a trace.
    pub continue_clients: bool,
    /// How.
    pub outbound: Outbound,
}

/// Where the daemon lives and how much it may hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    /// Store and audit log; default `/var/lib/enforcer`.
    pub state_dir: PathBuf,
    /// Admin and gateway sockets; default `/run/enforcer`.
    pub runtime_dir: PathBuf,
    /// Pins of programs and maps; default `/sys/fs/bpf/enforcer`.
    pub bpf_dir: PathBuf,
    /// The daemon's cgroup, parent of the warden's and the gateways'. Without it: the
    /// service's that the process was started in (systemd with Delegate=yes), else `enforcer` below
    /// the root.
    pub cgroup: Option<PathBuf>,
    /// The gateway's user; default `nobody`.
    pub user: String,
    /// Members may use the admin socket, besides root.
    pub admin_group: Option<String>,
    /// How long an accepted connection may stay without a session; default 10 s.
    pub pre_authentication_timeout: Duration,
    /// Size of the session maps; default 65,536.
    pub max_sessions: u32,
    /// Size of the connection maps; default 131,072.
    pub max_connections: u32,
    /// Applies the file when it is changed; default false.
    pub watch: bool,
}

/// How the audit log is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// Records that are older are removed; by default none for their age.
    pub keep: Option<Duration>,
    /// Bytes that its database may use; default 1 GiB.
    pub max_size: u64,
    /// Where signed heads are appended; default `audit.heads` in `state_dir`.
    pub heads_file: PathBuf,
    /// How often a head is signed, if there are new records; default 1 min.
    pub heads_interval: Duration,
    /// `[audit.exports.NAME]`: where records are passed on to.
    pub exports: BTreeMap<String, Export>,
}

/// Where audit records are passed on to.
#[derive(Clone, Debug, PartialEq)]
pub enum Export {
    /// A file of JSON lines.
    JsonFile(PathBuf),
    /// A datagram socket of this machine that takes syslog messages.
    Syslog(PathBuf),
    /// A collector of OpenTelemetry logs.
    Otlp {
        /// Where it takes them.
        url: Uri,
        /// How it is reached.
        outbound: Outbound,
    },
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// `spiffe`: the one alternative URI, which is a workload's SPIFFE ID.
    Spiffe,
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

/// Who may come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// `[[identity.jwt]]`
    pub jwt: Vec<JwtIssuer>,
    /// `[[identity.introspection]]`
    pub introspection: Vec<Introspection>,
}

impl Identity {
    /// The names of all issuers of tokens.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        let jwt = self.jwt.iter().map(|issuer| issuer.issuer.as_str());
        let asked = self.introspection.iter().map(|it| it.issuer.as_str());
        jwt.chain(asked)
    }
}

/// A token issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtIssuer {
    /// Exact `iss`.
    pub issuer: String,
    /// One of these must be in `aud`; one string or a list in the file.
    pub audience: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// `certificate_bound`: only tokens that are bound to the client's certificate are accepted
    /// (RFC 8705). Bound ones are held to theirs in any case.
    pub certificate_bound: bool,
    /// The algorithms it may sign with.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Tolerance for `nbf` and `iat`; default 30 s. `exp` is a deadline and has none.
    pub leeway: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// A JWK set (RFC 7517).
    JwksFile(PathBuf),
    /// One PEM public key or certificate.
    PublicKeyFile(PathBuf),
    /// A shared secret: the file's bytes without a final line break, at least 32 of them.
    SecretFile(PathBuf),
    /// What the issuer publishes.
    Published(Box<PublishedKeys>),
}

impl KeySource {
    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::JwksFile(path) | Self::PublicKeyFile(path) | Self::SecretFile(path) => Some(path),
            Self::Published(_) => None,
        }
    }

    /// The key that names the source in the configuration.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::JwksFile(_) => "jwks_file",
            Self::PublicKeyFile(_) => "public_key_file",
            Self::SecretFile(_) => "secret_file",
            Self::Published(published) => match published.location {
                KeyLocation::Jwks(_) => "jwks_url",
                KeyLocation::Discovery(_) => "discovery",
            },
        }
    }
}

/// Keys that are fetched from the issuer, again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedKeys {
    /// Where they are.
    pub location: KeyLocation,
    /// Longest time until they are fetched again; a shorter `max-age` of the answer shortens it.
    /// Default 5 min.
    pub refresh_interval: Duration,
    /// How long they are used beyond that while the issuer cannot be asked; default 1 h.
    pub stale_ttl: Duration,
    /// How they are asked for.
    pub outbound: Outbound,
}

/// Where an issuer publishes its keys.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyLocation {
    /// `jwks_url`: a JWK set.
    Jwks(Uri),
    /// `discovery`: the issuer's configuration document (OpenID Connect Discovery), which names the
    /// JWK set.
    Discovery(Uri),
}

/// An issuer whose tokens are asked about (RFC 7662).
#[derive(Clone, Debug, PartialEq)]
pub struct Introspection {
    /// The issuer of its principals.
    pub issuer: String,
    /// Where its tokens are asked about.
    pub endpoint: Uri,
    /// One of these must be in `aud`; empty: `aud` is not looked at.
    pub audience: Vec<String>,
    /// What its opaque tokens start with; empty: anything.
    pub token_prefix: String,
    /// Who asks.
    pub client: IntrospectionClient,
    /// How long an active token is believed to be so; default 30 s, zero: it is asked about at
    /// every request.
    pub active_ttl: Duration,
    /// How long an inactive one is; default 10 s.
    pub inactive_ttl: Duration,
    /// How long an active token is believed beyond `active_ttl` while nobody answers; default 1 min.
    pub stale_ttl: Duration,
    /// How often the token of a session with open connections is asked about; default 30 s.
    pub recheck_interval: Duration,
    /// Life of a token whose `exp` is not told, from when it was last found active; default 10 min.
    pub default_token_lifetime: Duration,
    /// Tolerance for `nbf` and `iat`; default 30 s.
    pub leeway: Duration,
    /// How the endpoint is asked.
    pub outbound: Outbound,
}

/// How the gateway proves who it is to an introspection endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionClient {
    /// `client_id`.
    pub id: String,
    /// The proof.
    pub proof: ClientProof,
}

/// Methods of client authentication (RFC 6749, section 2.3.1; RFC 8705).
#[derive(Clone, Debug, PartialEq)]
pub enum ClientProof {
    /// `client_secret_basic`: the secret in this file, in the `Authorization` field.
    SecretBasic(PathBuf),
    /// `client_secret_post`: the secret in this file, in the request's body.
    SecretPost(PathBuf),
    /// `tls_client_auth`: the certificate of `outbound`.
    Tls,
}

/// How the gateway asks something of others over HTTP: `outbound = { .. }` of the section that says
/// what is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// PEM roots; without it the system's.
    pub ca: Option<PathBuf>,
    /// PEM chain and key that the gateway shows.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Networks that may be reached although they are loopback or link-local.
    pub allow_networks: Vec<IpNet>,
    /// Longest wait for a connection, TLS included; default 2 s.
    pub connect_timeout: Duration,
    /// Longest time for a whole exchange; default 5 s.
    pub timeout: Duration,
}

/// From a listener to an upstream, under a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Name of the listener.
    pub listener: String,
    /// Exact host, lower case, without port, an IPv6 address in brackets; `None` for any.
    pub host: Option<String>,
    /// Path prefix that ends at a segment border (`/admin` covers `/admin` and `/admin/x`), in
    /// characters that need no percent-encoding, without a final slash; `/` for all. Of a TCP
    /// listener the one route has neither host nor path.
    pub path: String,
    /// Where requests go.
    pub upstream: Upstream,
    /// Names of the policies; never empty.
    pub policies: Vec<String>,
    /// What is asked of each request.
    pub require: Requirements,
    /// The bearer token goes on to the upstream.
    pub forward_token: bool,
    /// `aud` of the assertion that requests carry to the upstream; without it they carry none.
    pub assertion_audience: Option<String>,
    /// `login` and `forward_identity`, from a PostgreSQL listener.
    pub postgres: Option<PostgresRoute>,
    /// Upstream connections are shared by sessions, or each belongs to one.
    pub upstream_pool: UpstreamPool,
    /// `proxy_protocol`: upstream connections start with a PROXY protocol header, which says who
    /// the client is.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Longest wait for a connection to the upstream; default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait for the upstream's response head; default 60 s.
    pub response_timeout: Duration,
}

/// How a PostgreSQL upstream is told who comes.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresRoute {
    /// Who logs in to it.
    pub login: Login,
    /// `forward_identity`: the start-up message carries the principal and the session.
    pub forward_identity: bool,
}

/// Who logs in to a PostgreSQL upstream.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// No `login`: the client itself, with what the upstream asks it for.
    Client,
    /// The gateway, as this user; with the password in this file (its bytes without a final line
    /// break) if the upstream wants one.
    Gateway(LoginUser, Option<PathBuf>),
}

/// The user that the gateway logs in as.
#[derive(Clone, Debug, PartialEq)]
pub enum LoginUser {
    /// `user_from = "client"`: the one that the client names. The default.
    Client,
    /// `user_from = "subject"`: the principal's subject.
    Subject,
    /// `user`: this one.
    Fixed(String),
}

/// From a listener to the targets that CONNECT may reach, under a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelRoute {
    /// Name of the listener.
    pub listener: String,
    /// Where tunnels may lead.
    pub targets: Vec<TargetPattern>,
    /// Names of the policies; never empty.
    pub policies: Vec<String>,
    /// What is asked of each request.
    pub require: Requirements,
    /// Connections to targets start with a PROXY protocol header, which says who the client is.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Longest wait for the name and for a connection to the target; default 5 s.
    pub connect_timeout: Duration,
}

/// Targets of tunnels: `db.internal:5432`, `*.internal:22`, `10.0.0.0/8:5900-5999`, `[::1]:*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetPattern {
    /// Which hosts.
    pub host: HostPattern,
    /// Which of their ports.
    pub ports: PortRange,
}

/// Hosts of tunnels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this name, in lower case, without a final dot.
    Name(String),
    /// All names that end with this: a dot and a name in lower case.
    Suffix(String),
    /// Addresses, whether the client names them or a name that resolves to them.
    Network(IpNet),
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// An upstream: `http://host:port` or `https://host:port`, or with HTTP/2 `h2c://` (in the clear,
/// without a handshake about it) and `h2://` (TLS); for a TCP listener `tcp://host:port` or
/// `tls://host:port`; for a PostgreSQL listener `postgres://host:port` or `postgres+tls://host:port`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port; 80 or 443 for HTTP and 5432 for PostgreSQL unless given.
    pub port: u16,
    /// The HTTP that it speaks; says nothing of a TCP or PostgreSQL listener's.
    pub version: HttpVersion,
    /// TLS towards the upstream, for `https://`, `h2://`, `tls://` and `postgres+tls://`.
    pub tls: Option<UpstreamTls>,
}

/// The HTTP that an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1: one request at a time on a connection.
    Http1,
    /// HTTP/2: many on one.
    Http2,
}

/// TLS towards an upstream (`upstream_tls = { ca, certificate, private_key, server_name }`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamTls {
    /// PEM roots; without it the system's.
    pub ca: Option<PathBuf>,
    /// PEM chain and key that the gateway shows.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Name to verify instead of the host.
    pub server_name: Option<String>,
    /// How it starts.
    pub opening: TlsOpening,
}

/// How TLS towards an upstream starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsOpening {
    /// With the first byte.
    #[default]
    AtOnce,
    /// After PostgreSQL's SSLRequest.
    SslRequest,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// `v1`: a line of text.
    V1,
    /// `v2`: binary.
    V2,
}

/// Who shares an upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamPool {
    /// All sessions of a route: the gateway checks the session before each write.
    Shared,
    /// One session: the connection is bound to it and cut with it by the kernel.
    Session,
}

#[cfg(test)]
mod tests;
