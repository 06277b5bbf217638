//! Everything that most tests need, with a configuration to change before the daemon starts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use enforcer::clock::{self, WallInstant};
use jsonwebtoken::Algorithm;

use crate::{
    bed::{Bed, DAEMON_IPV4},
    capture::Capture,
    certificates::{Authority, Identity},
    client::Client,
    config::{self, Config, MAIN},
    daemon::Daemon,
    issuer::{AUDIENCE, Claims, ISSUER, Issuer},
    upstream::Upstream,
};

/// Where the listener is, unless a test says otherwise.
pub const PORT: u16 = 8443;

/// The whole bed.
#[derive(Debug)]
pub struct Scene {
    /// The configuration that the next daemon starts with.
    pub config: Config,
    /// Who signs certificates.
    pub authority: Authority,
    /// Who signs tokens.
    pub issuer: Issuer,
    /// Who answers requests.
    pub upstream: Upstream,
    /// Where it all happens.
    pub bed: Bed,
}

impl Scene {
    /// A scene in namespaces of its own.
    pub fn new(label: &str) -> Result<Self> {
        Self::in_bed(Bed::new(label)?, SocketAddr::new(DAEMON_IPV4, PORT))
    }

    /// A scene in the host's own network, on loopback.
    pub fn on_host(label: &str, port: u16) -> Result<Self> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self::in_bed(Bed::on_host(label)?, SocketAddr::new(loopback, port))
    }

    fn in_bed(bed: Bed, address: SocketAddr) -> Result<Self> {
        let upstream = Upstream::start(bed.daemon())?;
        let authority = Authority::new()?;
        let issuer = Issuer::new(Algorithm::ES256)?;
        bed.write("ca.pem", authority.pem())?;
        let (certificate, private_key) = authority.server()?.write(&bed, "server")?;
        let keys = config::Keys::JwksFile(bed.write("jwks.json", issuer.jwks()?)?);
        let config = Config {
            daemon: config::Daemon {
                state_dir: bed.path("state"),
                runtime_dir: bed.path("run"),
                bpf_dir: bed.bpf_dir(),
                cgroup: bed.daemon_cgroup()?,
                user: "nobody".to_owned(),
                pre_authentication_timeout: None,
                max_sessions: None,
                max_connections: None,
                watch: false,
            },
            audit: None,
            listeners: BTreeMap::from([(
                MAIN.to_owned(),
                config::Listener {
                    address,
                    protocol: "http".to_owned(),
                    identity: None,
                    principal: None,
                    trust_domain: None,
                    token_cookie: None,
                    allowed_origins: Vec::new(),
                    proxy_protocol: None,
                    tls: config::ServerTls {
                        certificate,
                        private_key,
                        client_ca: None,
                        client_certificate: None,
                        client_crl: Vec::new(),
                    },
                },
            )]),
            identity: config::Identity {
                jwt: vec![config::JwtIssuer {
                    issuer: ISSUER.to_owned(),
                    audience: AUDIENCE.to_owned(),
                    keys,
                    algorithms: vec![issuer.algorithm()],
                    refresh_interval: None,
                    outbound: None,
                }],
                introspection: Vec::new(),
            },
            assertion: None,
            policies: BTreeMap::from([(MAIN.to_owned(), config::Policy::default())]),
            routes: vec![config::Route::to(upstream.url())],
            monitoring: String::new(),
        };
        Ok(Self {
            config,
            authority,
            issuer,
            upstream,
            bed,
        })
    }

    /// Starts the daemon with the configuration as it is now.
    pub fn start(&self) -> Result<Daemon<'_>> {
        Daemon::start(&self.bed, &self.config.text()?)
    }

    /// A client of the listener.
    pub fn client(&self) -> Result<Client> {
        let listener = self.config.listeners.get(MAIN).context("the listener")?;
        Client::new(self.bed.client(), listener.address, self.authority.roots()?)
    }

    /// Makes the listener a TCP listener that leads to `upstream`.
    pub fn serve_tcp(&mut self, upstream: impl Into<String>) -> Result<()> {
        let ca_file = self.ca_file();
        let listener = self.config.listener()?;
        listener.protocol = "tcp".to_owned();
        listener.tls.client_ca = Some(ca_file);
        self.config.routes = vec![config::Route::to(upstream)];
        Ok(())
    }

    /// A client of the listener that shows a certificate.
    pub fn client_showing(&self, identity: &Identity) -> Result<Client> {
        self.client()?.showing(identity, self.authority.roots()?)
    }

    /// Starts to record the cable.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(&self.bed)
    }

    /// The authority's certificate, as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.bed.path("ca.pem")
    }

    /// A token for `subject`, with a day to live: the policy's limits come first.
    pub fn token(&self, subject: &str) -> Result<String> {
        let day = std::time::Duration::from_secs(86_400);
        self.token_until(subject, clock::wall_now().saturating_add(day))
    }

    /// A token for `subject` that expires at a whole second.
    pub fn token_until(&self, subject: &str, expires_at: WallInstant) -> Result<String> {
        self.issuer.sign(&Claims::new(subject, expires_at))
    }
}
