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
mod issuer;
mod listener;
mod listeners;
mod load;
mod location;
mod monitoring;
mod outbound;
mod policies;
mod postgres;
mod proxy;
mod raw;
mod route;
mod routes;
mod shape;
mod syslog;
mod tunnels;
mod upstream;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use assertion::Assertion;
pub use difference::differences;
pub(crate) use difference::route_name;
pub(crate) use error::reading_help;
pub use error::{ConfigError, Problem};
pub(crate) use files::{read_password, read_secret};
use http::Uri;
use ipnet::IpNet;
pub use issuer::{
    ClientProof, Identity, Introspection, IntrospectionClient, JwtIssuer, KeyLocation, KeySource,
    PublishedKeys,
};
pub use listener::{
    CertificateName, ClientAuthority, Listener, Protocol, RequestIdentity, ServerTls, TokenCookie,
    TrustDomain,
};
pub(crate) use outbound::parse as parse_outbound_url;
pub use policies::{Origin, PolicySettings, Setting};
pub use route::{
    HostPattern, HttpVersion, Login, LoginUser, PortRange, PostgresRoute, ProxyVersion, Route,
    TargetPattern, TlsOpening, TunnelRoute, Upstream, UpstreamPool, UpstreamTls,
};

use crate::{
    audit::{DetectorKind, DetectorSettings},
    policy::Policy,
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
    /// A receiver of syslog messages on a network.
    SyslogNetwork(SyslogReceiver),
    /// A collector of OpenTelemetry logs.
    Otlp {
        /// Where it takes them.
        url: Uri,
        /// How it is reached.
        outbound: Outbound,
    },
}

/// Who takes syslog messages on a network.
#[derive(Clone, Debug, PartialEq)]
pub struct SyslogReceiver {
    /// How messages get there.
    pub transport: SyslogTransport,
    /// Name or address, the latter without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is reached.
    pub outbound: Outbound,
}

/// How syslog messages (RFC 5424) get to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogTransport {
    /// TLS (RFC 5425).
    Tls,
    /// TCP, with octets counted (RFC 6587).
    Tcp,
    /// UDP (RFC 5426).
    Udp,
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

#[cfg(test)]
mod tests;
