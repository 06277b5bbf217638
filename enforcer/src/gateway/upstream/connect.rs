//! Connections to an upstream: TCP, bound if they belong to a session, then TLS.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::tls::{NativeRoots, Tls, UpstreamTlsError};
use crate::{
    config::{ProxyVersion, Route},
    gateway::{
        link::Link, proxy, rejection::Rejection, socket::Socket, stages::Bound, tunnel::Target,
    },
};

/// How to reach an upstream.
#[derive(Debug)]
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<Tls>,
    /// Connections start with an announcement of the client.
    announces: Option<ProxyVersion>,
    connect_timeout: Duration,
}

impl Connector {
    pub(super) fn load(route: &Route, roots: &mut NativeRoots) -> Result<Self, UpstreamTlsError> {
        let upstream = &route.upstream;
        let tls = upstream.tls.as_ref();
        Ok(Self {
            host: upstream.host.clone(),
            port: upstream.port,
            tls: tls.map(|tls| Tls::load(tls, upstream, roots)).transpose()?,
            announces: route.proxy_protocol,
            connect_timeout: route.connect_timeout,
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The client that a connection for it announces; others must not share it.
    pub(super) fn announced(&self, bound: &Bound) -> Option<SocketAddr> {
        self.announces.map(|_| bound.client())
    }

    /// A connection; with an owner it is bound to the owner's session before its first byte.
    pub(super) async fn connect(
        &self,
        owner: Option<(&Link, &Bound)>,
    ) -> Result<(Stream, Socket), Rejection> {
        let tcp = timeout(self.connect_timeout, self.connect_tcp())
            .await
            .map_err(|_| Rejection::UpstreamConnectTimeout)?
            .map_err(Rejection::UpstreamUnreachable)?;
        let socket = match owner {
            Some((link, bound)) => claim(tcp, link, bound, self.announces, None).await?,
            None => Socket::new(tcp),
        };
        let stream = match &self.tls {
            None => Stream::Plain(socket.clone()),
            Some(tls) => {
                let stream = timeout(self.connect_timeout, tls.connect(socket.clone()))
                    .await
                    .map_err(|_| Rejection::UpstreamConnectTimeout)?
                    .map_err(Rejection::UpstreamUnreachable)?;
                Stream::Tls(Box::new(stream))
            }
        };
        Ok((stream, socket))
    }

    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect((&*self.host, self.port)).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// Makes a connection the session's own before its first byte, and announces the client on it
/// where that is wanted. `target`: where the client asked to be connected to.
pub(crate) async fn claim(
    tcp: TcpStream,
    link: &Link,
    bound: &Bound,
    announces: Option<ProxyVersion>,
    target: Option<&Target>,
) -> Result<Socket, Rejection> {
    tcp.set_nodelay(true)
        .map_err(Rejection::UpstreamUnreachable)?;
    let socket = Socket::new(tcp);
    let session = bound.session();
    let cookie = socket.cookie().map_err(Rejection::UpstreamUnreachable)?;
    let target = target.map(ToString::to_string);
    link.bind_upstream(cookie, session.id(), target).await?;
    socket.serve(session);
    if let Some(version) = announces {
        let header = proxy::header(version, bound.client(), bound.local());
        let sent = socket.clone().write_all(&header).await;
        sent.map_err(Rejection::UpstreamUnreachable)?;
    }
    Ok(socket)
}

/// Towards an upstream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// The certificate that the upstream has shown.
    pub(crate) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::<&mut Socket>::new(socket),
            Self::Tls(stream) => Pin::<&mut TlsStream<Socket>>::new(stream),
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Duplex for T {}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::{
        config::{ClientAuthority, HttpVersion, ServerTls, Upstream, UpstreamTls},
        gateway::{http::route::tests::route, tls},
    };

    fn issue(folder: &Path, name: &str) {
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let write = |kind: &str, pem: String| {
            std::fs::write(folder.join(format!("{name}.{kind}")), pem).unwrap();
        };
        write("cert", issued.cert.pem());
        write("key", issued.signing_key.serialize_pem());
    }

    fn connector(port: u16, tls: UpstreamTls) -> Connector {
        let route = Route {
            upstream: Upstream {
                host: "127.0.0.1".to_owned(),
                port,
                version: HttpVersion::Http1,
                tls: Some(tls),
            },
            ..route("public", None, "/")
        };
        Connector::load(&route, &mut NativeRoots::default()).unwrap()
    }

    #[tokio::test]
    async fn an_upstream_is_verified_and_shown_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        issue(folder.path(), "upstream.internal");
        issue(folder.path(), "gateway.internal");
        let acceptor = tls::load(
            &ServerTls {
                certificate: path("upstream.internal.cert"),
                private_key: path("upstream.internal.key"),
                client: Some(ClientAuthority {
                    roots: path("gateway.internal.cert"),
                    revocation_lists: Vec::new(),
                    required: true,
                }),
            },
            &[],
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shaken = tls::accept(&acceptor, &Socket::new(stream)).await;
                if let Ok(Some(mut stream)) = shaken {
                    let _ = stream.write_all(b"x").await;
                }
            }
        });

        let trusted = UpstreamTls {
            ca: Some(path("upstream.internal.cert")),
            client_certificate: Some((path("gateway.internal.cert"), path("gateway.internal.key"))),
            server_name: Some("upstream.internal".to_owned()),
            ..UpstreamTls::default()
        };
        let (mut stream, _) = connector(port, trusted.clone())
            .connect(None)
            .await
            .unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');

        for untrusted in [
            UpstreamTls {
                server_name: None,
                ..trusted.clone()
            },
            UpstreamTls {
                ca: Some(path("gateway.internal.cert")),
                ..trusted.clone()
            },
        ] {
            let result = connector(port, untrusted).connect(None).await;
            assert!(matches!(result, Err(Rejection::UpstreamUnreachable(_))));
        }
        let nobody = UpstreamTls {
            client_certificate: None,
            ..trusted
        };
        // In TLS 1.3 the refusal comes after the handshake.
        let (mut stream, _) = connector(port, nobody).connect(None).await.unwrap();
        assert!(stream.read_u8().await.is_err());
    }
}
