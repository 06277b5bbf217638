//! The gateway, and HTTP/2 connections to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header, uri::Authority};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    TlsArgs,
    address::Address,
    failure::{Failure, Refused},
    token::Token,
};
use crate::{
    clock::{BootInstant, boot_now},
    gateway::{read_certificates, read_private_key, read_roots},
};

const ALPN: &[u8] = b"h2";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for an answer. The gateway gives up on a target sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// No answer of the gateway's is longer.
const MAX_ANSWER: usize = 64 * 1024;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Tunnels on one connection. The gateway takes 128 streams: some are left for what is said about
/// the session.
const MOST_TUNNELS: usize = 100;

const EXPIRES_IN: &str = "session-expires-in";

/// How to reach the gateway.
pub(super) struct Gateway {
    address: Address,
    name: ServerName<'static>,
    tls: TlsArgs,
}

impl Gateway {
    /// Checks that certificates and keys can be read.
    pub(super) fn new(address: Address, tls: TlsArgs) -> Result<Self, Failure> {
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            // An address was parsed as a server name.
            None => ServerName::try_from(address.host.clone())
                .map_err(|_| rustls::Error::General("the gateway's name".to_owned()))?,
        };
        let gateway = Self { address, name, tls };
        gateway.connector()?;
        Ok(gateway)
    }

    /// Reads certificates and keys as they are now: who gets new ones every hour replaces the files.
    fn connector(&self) -> Result<TlsConnector, Failure> {
        let mut roots = RootCertStore::empty();
        match &self.tls.ca {
            Some(path) => roots = read_roots(path)?,
            None => {
                let native = rustls_native_certs::load_native_certs().certs;
                roots.add_parsable_certificates(native);
            }
        }
        if roots.is_empty() {
            return Err(Failure::NoRoots);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match (&self.tls.client_certificate, &self.tls.client_key) {
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(read_certificates(certificate)?, read_private_key(key)?)?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Connects, without a word yet.
    pub(super) async fn connect(&self, token: Token) -> Result<Arc<Line>, Failure> {
        let (address, tls) = (&self.address, self.connector()?);
        let unreachable = |error| Failure::Unreachable(address.clone(), error);
        let connecting = async {
            let tcp = TcpStream::connect((&*address.host, address.port))
                .await
                .map_err(unreachable)?;
            keep_alive(&tcp).map_err(unreachable)?;
            let stream = tls.connect(self.name.clone(), tcp);
            let stream = stream.await.map_err(unreachable)?;
            if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                return Err(Failure::NotHttp2(address.clone()));
            }
            Line::start(stream, address.to_string(), token).await
        };
        timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| Failure::Timeout(address.clone()))?
    }
}

/// Dead gateways are found by the kernel: an HTTP/2 PING would be payload of the client's.
fn keep_alive(tcp: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt::{
        set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay,
    };
    set_tcp_nodelay(tcp, true)?;
    set_socket_keepalive(tcp, true)?;
    set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    Ok(())
}

/// A connection to the gateway, and the session that it serves.
pub(super) struct Line {
    authority: String,
    sender: SendRequest<Bytes>,
    /// The latest token of the session.
    token: watch::Sender<Token>,
    /// When the session ends, as the gateway last said.
    expires_at: watch::Sender<Option<BootInstant>>,
    /// Room for more tunnels.
    room: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    /// Why it closed, once that is found out: the session's end, or nothing of the kind.
    verdict: watch::Sender<Option<Verdict>>,
    kept: AtomicBool,
}

/// Why a connection with tunnels on it closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The session is over, and why.
    SessionOver(String),
    /// The session goes on, as far as is known.
    Lost,
}

/// An open stream to the target.
pub(super) struct Tunnel {
    pub(super) receiving: RecvStream,
    pub(super) sending: SendStream<Bytes>,
    pub(super) line: Arc<Line>,
    _place: OwnedSemaphorePermit,
}

/// A connection with room for a tunnel.
pub(super) struct Place {
    pub(super) line: Arc<Line>,
    place: OwnedSemaphorePermit,
}

impl Line {
    /// Speaks HTTP/2 on a stream, for as long as anybody holds the line.
    async fn start<S>(stream: S, authority: String, token: Token) -> Result<Arc<Self>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .map_err(Failure::Broken)?;
        let line = Arc::new(Self {
            authority,
            sender,
            token: watch::Sender::new(token),
            expires_at: watch::Sender::new(None),
            room: Arc::new(Semaphore::new(MOST_TUNNELS)),
            closed: watch::Sender::new(false),
            verdict: watch::Sender::new(None),
            kept: AtomicBool::new(false),
        });
        // Whoever may still send keeps the connection open.
        let driven = Arc::downgrade(&line);
        tokio::spawn(async move {
            // Who waits for an answer learns of an error there.
            let _ = driver.await;
            if let Some(line) = driven.upgrade() {
                line.closed.send_replace(true);
            }
        });
        Ok(line)
    }

    pub(super) fn token(&self) -> Token {
        self.token.borrow().clone()
    }

    /// From now on the session has this token.
    pub(super) fn adopt(&self, token: Token) {
        self.token.send_replace(token);
    }

    /// Whether the session's time is up, as far as the gateway has said.
    pub(super) fn is_expired(&self, now: BootInstant) -> bool {
        self.expires_at.borrow().is_some_and(|at| at <= now)
    }

    pub(super) fn expires_at(&self) -> watch::Receiver<Option<BootInstant>> {
        self.expires_at.subscribe()
    }

    /// How many tunnels there are on it, or are about to be.
    pub(super) fn tunnels(&self) -> usize {
        MOST_TUNNELS - self.room.available_permits()
    }

    /// Room for one more tunnel.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let line = Arc::clone(self);
        Some(Place { line, place })
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(super) async fn closed(&self) {
        // The sender is here, too.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// True for the one that is to look after the session.
    pub(super) fn take_care(&self) -> bool {
        !self.kept.swap(true, Ordering::Relaxed)
    }

    pub(super) fn judge(&self, verdict: Verdict) {
        self.verdict.send_replace(Some(verdict));
    }

    /// Waits until it is known why the connection closed.
    pub(super) async fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict.subscribe();
        let known = verdict.wait_for(Option::is_some).await;
        known
            .ok()
            .and_then(|it| it.clone())
            .unwrap_or(Verdict::Lost)
    }

    /// The session ends after so many seconds.
    pub(super) fn learn(&self, expires_in: u64) {
        let at = boot_now().saturating_add(Duration::from_secs(expires_in));
        self.expires_at.send_replace(Some(at));
    }

    /// Sends a request to the gateway itself, with a token.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &Token,
    ) -> Result<Response<RecvStream>, Failure> {
        let authority = Authority::try_from(&*self.authority);
        let uri = authority.map_err(http::Error::from).and_then(|authority| {
            Uri::builder()
                .scheme("https")
                .authority(authority)
                .path_and_query(path)
                .build()
        });
        let request = request(method, uri, header::AUTHORIZATION, token)?;
        let (response, _) = self.send(request, true).await?;
        granted(response).await
    }

    async fn send(
        &self,
        request: Request<()>,
        whole: bool,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), Failure> {
        let sender = self.sender.clone().ready().await;
        let mut sender = sender.map_err(Failure::Broken)?;
        let (response, sending) = sender
            .send_request(request, whole)
            .map_err(Failure::Broken)?;
        let response = timeout(ANSWER_TIMEOUT, response)
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
            .map_err(Failure::Broken)?;
        Ok((response, sending))
    }

    fn heed(&self, headers: &HeaderMap) {
        let field = headers.get(EXPIRES_IN).and_then(|it| it.to_str().ok());
        if let Some(expires_in) = field.and_then(|text| text.parse().ok()) {
            self.learn(expires_in);
        }
    }
}

impl Place {
    /// Asks for a tunnel.
    pub(super) async fn tunnel(self, target: &Address) -> Result<Tunnel, Failure> {
        let Self { line, place } = self;
        let authority = target.to_string();
        let uri = Uri::builder().authority(authority).build();
        let request = request(
            Method::CONNECT,
            uri,
            header::PROXY_AUTHORIZATION,
            &line.token(),
        )?;
        let (response, sending) = line.send(request, false).await?;
        let response = granted(response).await?;
        line.heed(response.headers());
        Ok(Tunnel {
            receiving: response.into_body(),
            sending,
            line,
            _place: place,
        })
    }
}

fn request(
    method: Method,
    uri: Result<Uri, http::Error>,
    field: http::HeaderName,
    token: &Token,
) -> Result<Request<()>, Failure> {
    let request = uri.and_then(|uri| {
        let mut request = Request::builder().method(method).uri(uri).body(())?;
        if let Some(bearer) = token.bearer() {
            request.headers_mut().insert(field, bearer);
        }
        Ok(request)
    });
    request.map_err(|error| Failure::Local(std::io::Error::other(error)))
}

async fn granted(response: Response<RecvStream>) -> Result<Response<RecvStream>, Failure> {
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let status = response.status();
    let body = read(response.into_body()).await.unwrap_or_default();
    Err(Failure::Refused(Refused::new(status, &body)))
}

/// Reads a short body.
pub(super) async fn read(mut body: RecvStream) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(Failure::Broken)?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
        if bytes.len() > MAX_ANSWER {
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{super::token::TokenSource, *};

    #[tokio::test]
    async fn a_connection_closes_when_nobody_holds_it_any_more() {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let token = TokenSource::Certificate.read().await.unwrap();
        let server = tokio::spawn(async move {
            let mut server = h2::server::handshake(theirs).await.unwrap();
            while let Some(request) = server.accept().await {
                let (_, mut answer) = request.unwrap();
                answer.send_response(Response::new(()), true).unwrap();
            }
        });
        let line = Line::start(ours, "gateway:443".to_owned(), token.clone())
            .await
            .unwrap();
        line.ask(Method::GET, "/", &token).await.unwrap();
        assert!(!line.is_closed());
        drop(line);
        timeout(CONNECT_TIMEOUT, server).await.unwrap().unwrap();
    }
}
