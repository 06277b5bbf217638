//! The daemon's configuration file, as tests change it.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::certificates::SERVER_NAME;

/// The whole file.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[audit]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// `[listeners.NAME]`
    pub listeners: BTreeMap<String, Listener>,
    /// `[identity]`
    pub identity: Identity,
    /// `[assertion]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
    /// `[policies.NAME]`
    pub policies: BTreeMap<String, Policy>,
    /// `[[routes]]`
    pub routes: Vec<Route>,
    /// `[metrics]`, `[canary]`, `[detectors.NAME]` and the like, as they are to stand there.
    #[serde(skip)]
    pub monitoring: String,
}

/// `[daemon]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Daemon {
    pub state_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub bpf_dir: PathBuf,
    pub cgroup: PathBuf,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_authentication_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
}

/// `[audit]`
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// `[audit.exports.NAME]`
    pub exports: BTreeMap<String, Export>,
}

/// `[audit.exports.NAME]`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub enum Export {
    File {
        json_file: PathBuf,
    },
    Syslog {
        syslog: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        outbound: Option<CollectorOutbound>,
    },
    Otlp {
        otlp: String,
        outbound: CollectorOutbound,
    },
}

/// `outbound` of a collector.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct CollectorOutbound {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    pub allow_networks: Vec<String>,
}

/// `[listeners.NAME]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Listener {
    pub address: SocketAddr,
    pub protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_cookie: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Proxies>,
    pub tls: ServerTls,
}

/// `proxy_protocol` of a listener.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Proxies {
    pub from: Vec<String>,
}

/// `tls` of a listener.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct ServerTls {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_crl: Vec<PathBuf>,
}

/// `[identity]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Identity {
    pub jwt: Vec<JwtIssuer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub introspection: Vec<Introspection>,
}

/// `[[identity.jwt]]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct JwtIssuer {
    pub issuer: String,
    pub audience: String,
    #[serde(flatten)]
    pub keys: Keys,
    pub algorithms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
}

/// `[[identity.introspection]]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Introspection {
    pub issuer: String,
    pub endpoint: String,
    pub audience: String,
    pub client_id: String,
    pub client_secret_file: PathBuf,
    pub active_ttl: String,
    pub recheck_interval: String,
    pub certificate_bound: bool,
    pub outbound: Outbound,
}

/// `outbound` of an issuer.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Outbound {
    pub ca: PathBuf,
    pub allow_networks: Vec<String>,
    pub timeout: String,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub enum Keys {
    JwksFile(PathBuf),
    PublicKeyFile(PathBuf),
    SecretFile(PathBuf),
    Discovery(bool),
}

/// `[assertion]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Assertion {
    pub issuer: String,
    pub private_key: PathBuf,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub former_keys: Vec<PathBuf>,
}

/// `[policies.NAME]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Policy {
    pub max_session: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub farewell: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Other keys.
    #[serde(flatten)]
    pub more: toml::Table,
}

/// `[[routes]]`
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Route {
    pub listener: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    pub policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_tls: Option<UpstreamTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assertion_audience: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<String>,
    /// Other keys.
    #[serde(flatten)]
    pub more: toml::Table,
}

/// `upstream_tls` of a route.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct UpstreamTls {
    pub ca: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    pub server_name: String,
}

impl UpstreamTls {
    /// Trusts what `ca` has signed for [`SERVER_NAME`], and shows nothing.
    pub fn trusting(ca: PathBuf) -> Self {
        Self {
            ca,
            certificate: None,
            private_key: None,
            server_name: SERVER_NAME.to_owned(),
        }
    }
}

/// Name of the one listener and the one policy.
pub const MAIN: &str = "main";

impl Config {
    /// The file's text.
    pub fn text(&self) -> Result<String> {
        let text = toml::to_string(self).context("write the configuration")?;
        Ok(format!("{text}\n{}", self.monitoring))
    }

    /// The one listener.
    pub fn listener(&mut self) -> Result<&mut Listener> {
        self.listeners.get_mut(MAIN).context("the listener")
    }

    /// The one policy.
    pub fn policy(&mut self) -> &mut Policy {
        self.policies.entry(MAIN.to_owned()).or_default()
    }
}

impl Default for Policy {
    /// An hour, and no farewell: what is there at the deadline is the kernel's to cut.
    fn default() -> Self {
        Self {
            max_session: "1h".to_owned(),
            idle_timeout: None,
            warn_before: None,
            farewell: Some("0s".to_owned()),
            activity: None,
            more: toml::Table::new(),
        }
    }
}

impl Route {
    /// Everything on the one listener, under the one policy, to `upstream`.
    pub fn to(upstream: impl Into<String>) -> Self {
        Self {
            listener: MAIN.to_owned(),
            protocol: None,
            path: None,
            upstream: upstream.into(),
            targets: Vec::new(),
            policy: MAIN.to_owned(),
            upstream_tls: None,
            assertion_audience: None,
            upstream_pool: None,
            proxy_protocol: None,
            response_timeout: None,
            more: toml::Table::new(),
        }
    }

    /// Tunnels on the one listener, under the one policy, to `targets`.
    pub fn tunnel(targets: &[&str]) -> Self {
        Self {
            protocol: Some("tunnel".to_owned()),
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            ..Self::to("")
        }
    }
}
