//! From a listener to an upstream, under policies.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::policy::Requirements;

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
