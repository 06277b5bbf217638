//! Clients: TLS, HTTP and WebSocket from crates that enforcer's gateway has no say in, and curl.
//!
//! Every connection lives on a runtime in the client's namespace. What is called here blocks; what
//! runs on by itself ([`Download`], [`Talk`]) is joined later and tells how and when it ended.

mod ending;
mod flow;
mod http1;
pub mod http2;
mod raw;
mod talk;
mod websocket;

use std::{net::SocketAddr, path::Path, process::Output, sync::Arc};

use anyhow::{Context as _, Result, bail};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, pki_types::ServerName};
use tokio::{net::TcpStream, runtime::Runtime};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub use self::{
    ending::{End, Ending},
    flow::Flow,
    http1::{Answer, Connection, Download},
    raw::Raw,
    talk::{Pattern, Talk, TalkEnd},
    websocket::Socket,
};
use crate::{
    certificates::{Identity, SERVER_NAME},
    namespace::{Namespace, Task},
    process,
};

type Tls = TlsStream<TcpStream>;

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    server: SocketAddr,
    namespace: Namespace,
    runtime: Arc<Runtime>,
    tls: Arc<ClientConfig>,
}

impl Client {
    /// A client in `namespace` that trusts `roots`.
    pub fn new(namespace: &Namespace, server: SocketAddr, roots: RootCertStore) -> Result<Self> {
        let tls = builder()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            server,
            namespace: namespace.clone(),
            runtime: namespace.runtime(2)?,
            tls: Arc::new(tls),
        })
    }

    /// The same client, which shows a certificate.
    pub fn showing(&self, identity: &Identity, roots: RootCertStore) -> Result<Self> {
        let (chain, key) = identity.chain()?;
        let tls = builder()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .context("a client's certificate")?;
        Ok(Self {
            tls: Arc::new(tls),
            ..self.clone()
        })
    }

    /// The same client, which offers these protocols in TLS (ALPN).
    pub fn speaking(&self, protocols: &[&[u8]]) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self {
            tls: Arc::new(tls),
            ..self.clone()
        }
    }

    /// The same client of another server.
    pub fn of(&self, server: SocketAddr) -> Self {
        Self {
            server,
            ..self.clone()
        }
    }

    /// The server.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// A TCP connection, nothing sent.
    pub fn tcp(&self) -> Result<Raw<TcpStream>> {
        let server = self.server;
        let stream = self.run(async move { connect(server).await })?;
        Raw::new(self, stream?, TcpStream::local_addr)
    }

    /// A TLS connection, nothing sent inside.
    pub fn tls(&self) -> Result<Raw<Tls>> {
        let stream = self.run(self.dial())?;
        Raw::new(self, stream?, |tls| tls.get_ref().0.local_addr())
    }

    /// A stream of bytes that goes on until something ends it, and begins with this line.
    pub fn flow(&self, command: &str) -> Result<Flow> {
        Flow::start(self, command)
    }

    /// An HTTP connection for several requests.
    pub fn connection(&self) -> Result<Connection> {
        Connection::new(self)
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str, token: &str) -> Result<Answer> {
        self.connection()?.get(path, token)
    }

    /// A download that goes on until something ends it.
    pub fn download(&self, path: &str, token: &str) -> Result<Download> {
        Download::start(self, path, token)
    }

    /// An open WebSocket.
    pub fn websocket(&self, path: &str, token: &str) -> Result<Socket> {
        Socket::open(self, path, token)
    }

    /// Runs curl in the client's namespace; it knows the server as [`SERVER_NAME`].
    pub fn curl(&self, cgroup: &Path, ca: &Path, arguments: &[&str]) -> Result<Output> {
        let resolve = format!("{SERVER_NAME}:{}:{}", self.server.port(), self.server.ip());
        process::command(&self.namespace, cgroup, "curl")
            .args([
                "--silent",
                "--show-error",
                "--http1.1",
                "--resolve",
                &resolve,
            ])
            .arg("--cacert")
            .arg(ca)
            .args(arguments)
            .output()
            .context("run curl")
    }

    fn dial(&self) -> impl Future<Output = Result<Tls>> + Send + use<> {
        let (server, connector) = (self.server, TlsConnector::from(Arc::clone(&self.tls)));
        async move {
            let name = ServerName::try_from(SERVER_NAME).context("the server's name")?;
            let stream = connect(server).await?;
            connector
                .connect(name, stream)
                .await
                .context("TLS handshake")
        }
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Task::spawn(&self.runtime, future)
    }

    fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.spawn(future).join()
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("configure TLS")
}

async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(server).await;
    let stream = stream.with_context(|| format!("connect to {server}"))?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    Ok(stream)
}

/// An error unless a response has this status.
fn expect_status(expected: http::StatusCode, found: http::StatusCode) -> Result<()> {
    if expected != found {
        bail!("expected {expected}, the answer was {found}");
    }
    Ok(())
}
