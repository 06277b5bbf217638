//! Sockets that reach out: the name is resolved here, each address is looked at, and only then is
//! there a socket. It lives in the gateway's cgroup, where the kernel takes it for an upstream
//! connection that belongs to no session.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};

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

/// Makes sockets, each to an address that may be connected to.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    allowed: Arc<[IpNet]>,
    /// How near the server was that sent us here.
    redirected_from: Option<Nearness>,
}

impl Dialer {
    /// Also to loopback and link-local addresses in these networks.
    pub(crate) fn new(allowed: &[IpNet]) -> Self {
        Self {
            allowed: allowed.into(),
            redirected_from: None,
        }
    }

    pub(super) fn redirected(&self, from: Nearness) -> Self {
        Self {
            redirected_from: Some(from),
            ..self.clone()
        }
    }

    /// The first of the addresses that may be connected to and answers.
    pub(crate) async fn tcp(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(TcpStream, Nearness), ConnectError> {
        self.first(host, port, async |address| {
            let stream = TcpStream::connect(address).await?;
            // Small messages both ways; a failure costs some latency.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        })
        .await
    }

    /// A socket that sends to the first of the addresses that may be connected to.
    pub(crate) async fn udp(&self, host: &str, port: u16) -> Result<UdpSocket, ConnectError> {
        let socket = self.first(host, port, async |address| {
            let any: IpAddr = match address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(address).await?;
            Ok(socket)
        });
        socket.await.map(|(socket, _)| socket)
    }

    async fn first<S>(
        &self,
        host: &str,
        port: u16,
        connect: impl AsyncFn(SocketAddr) -> io::Result<S>,
    ) -> Result<(S, Nearness), ConnectError> {
        let resolved = lookup_host((host, port))
            .await
            .map_err(|error| ConnectError::Unresolved(host.to_owned(), error.into()))?;
        let mut fault = ConnectError::NoAddress(host.to_owned());
        for address in resolved {
            match admit(address.ip(), &self.allowed, self.redirected_from) {
                Err(forbidden) => fault = ConnectError::Forbidden(host.to_owned(), forbidden),
                Ok(nearness) => match connect(address).await {
                    Ok(socket) => return Ok((socket, nearness)),
                    Err(error) => {
                        fault = ConnectError::Unreachable(host.to_owned(), error.into());
                    }
                },
            }
        }
        Err(fault)
    }
}

/// TLS with `host` over a connection.
pub(crate) async fn secured(
    tls: &TlsConnector,
    host: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let broken = |error| ConnectError::Tls(host.to_owned(), Arc::new(error));
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| broken(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    tls.connect(name, tcp).await.map_err(broken)
}
