//! Connections of the HTTP client.

use std::{
    io,
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
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{
    address::Nearness,
    dial::{ConnectError, Dialer, secured},
};

/// Makes connections of HTTP.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    dialer: Dialer,
    connect_timeout: Duration,
}

impl Connector {
    pub(super) fn new(mut tls: ClientConfig, dialer: Dialer, connect_timeout: Duration) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tls: TlsConnector::from(Arc::new(tls)),
            dialer,
            connect_timeout,
        }
    }

    /// The same for what a server at such an address redirects to.
    pub(super) fn redirected(&self, from: Nearness) -> Self {
        Self {
            dialer: self.dialer.redirected(from),
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
        let (tcp, nearness) = self.dialer.tcp(host, port).await?;
        let io: Box<dyn Duplex> = if secure {
            Box::new(secured(&self.tls, host, tcp).await?)
        } else {
            Box::new(tcp)
        };
        Ok(Stream {
            io: TokioIo::new(io),
            nearness,
        })
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
