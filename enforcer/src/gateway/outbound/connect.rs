//! Connections of the client: the name is resolved here, each address is looked at, and only then
//! is there a socket. It lives in the gateway's cgroup, where the kernel takes it for an upstream
//! connection that belongs to no session.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use ipnet::IpNet;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::address::{Forbidden, Nearness, admit};

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the URL has no host")]
    NoHost,
    #[error("`{0}` cannot be resolved: {1}")]
    Unresolved(String, Arc<io::Error>),
    #[error("`{0}` has no address")]
    NoAddress(String),
    #[error("`{0}` is not asked: {1}")]
    Forbidden(String, Forbidden),
    #[error("`{0}` cannot be reached: {1}")]
    Unreachable(String, Arc<io::Error>),
    #[error("TLS with `{0}`: {1}")]
    Tls(String, Arc<io::Error>),
    #[error("no connection to `{0}` in time")]
    Timeout(String),
}

/// Makes connections, each to an address that may be connected to.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
    allowed: Arc<[IpNet]>,
    connect_timeout: Duration,
    /// How near the server was that sent us here.
    redirected_from: Option<Nearness>,
}

impl Connector {
    pub(super) fn new(mut tls: ClientConfig, allowed: &[IpNet], connect_timeout: Duration) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tls: Arc::new(tls),
            allowed: allowed.into(),
            connect_timeout,
            redirected_from: None,
        }
    }

    /// The same for what a server at such an address redirects to.
    pub(super) fn redirected(&self, from: Nearness) -> Self {
        Self {
            redirected_from: Some(from),
            ..self.clone()
        }
    }

    async fn connect(self, url: Uri) -> Result<Stream, ConnectError> {
        let host = url.host().ok_or(ConnectError::NoHost)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        timeout(self.connect_timeout, self.reach(&host, port, secure))
            .await
            .map_err(|_| ConnectError::Timeout(host.clone()))?
    }

    async fn reach(&self, host: &str, port: u16, secure: bool) -> Result<Stream, ConnectError> {
        let (tcp, nearness) = self.connect_tcp(host, port).await?;
        let io: Box<dyn Duplex> = if secure {
            let broken = |error| ConnectError::Tls(host.to_owned(), Arc::new(error));
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| broken(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let tls = TlsConnector::from(Arc::clone(&self.tls));
            Box::new(tls.connect(name, tcp).await.map_err(broken)?)
        } else {
            Box::new(tcp)
        };
        Ok(Stream {
            io: TokioIo::new(io),
            nearness,
        })
    }

    /// The first of the addresses that may be connected to and answers.
    async fn connect_tcp(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(TcpStream, Nearness), ConnectError> {
        let resolved = lookup_host((host, port))
            .await
            .map_err(|error| ConnectError::Unresolved(host.to_owned(), error.into()))?;
        let mut fault = ConnectError::NoAddress(host.to_owned());
        for address in resolved {
            match self.admit(address.ip()) {
                Err(forbidden) => fault = ConnectError::Forbidden(host.to_owned(), forbidden),
                Ok(nearness) => match TcpStream::connect(address).await {
                    Ok(stream) => {
                        // Small messages both ways; a failure costs some latency.
                        let _ = stream.set_nodelay(true);
                        return Ok((stream, nearness));
                    }
                    Err(error) => {
                        fault = ConnectError::Unreachable(host.to_owned(), error.into());
                    }
                },
            }
        }
        Err(fault)
    }

    fn admit(&self, address: IpAddr) -> Result<Nearness, Forbidden> {
        admit(address, &self.allowed, self.redirected_from)
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.clone().connect(url))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, and how near its other end is: the response carries that along.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Duplex>>,
    nearness: Nearness,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.nearness)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
