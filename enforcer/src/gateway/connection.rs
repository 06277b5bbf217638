//! A client's connection, from the handshake to its end.
//!
//! ```text
//!   Accepted --TLS--> serving --request--> serving a session --Farewell--> finishing
//!      |                 |                        |                           |
//!      | no session in time                       | the session has ended     |
//!      v                 v                        v                           v
//!    closed            closed                   reset                  closed or reset
//! ```

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::http1::{self, UpgradeableConnection},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::{
    channel::ToWarden,
    clock::boot_now,
    config::{CertificateName, RequestIdentity, TokenCookie},
    gateway::{
        Gateway, Service, Work,
        accept::Front,
        client_certificate::ClientCertificate,
        http::{
            body::Received,
            error::HttpError,
            grpc::Calls,
            guarded::Guarded,
            head::MAX_HEADERS,
            http2::{self, Patience},
            inspect::{Inspected, Inspection},
            service,
        },
        link::Orders,
        postgres::{self, PostgresService},
        proxy::{self, Announcement},
        rejection::{Blame, Rejection},
        sessions::{Ended, SessionHandle},
        socket::Socket,
        stages::{Accepted, Client},
        tcp::{self, TcpService},
        tls,
    },
    policy::Denied,
    session::Principal,
};

/// Longest wait until a client has been told why its connection ends.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// What the parts that serve a connection share.
pub(crate) struct ConnectionContext {
    pub(crate) gateway: Arc<Gateway>,
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    /// How requests say whose they are.
    pub(crate) identity: RequestIdentity,
    /// The cookie that tokens may come in.
    pub(crate) cookie: Option<Arc<TokenCookie>>,
    pub(crate) client: Client,
    pub(crate) inspection: Arc<Inspection>,
    pub(crate) patience: Patience,
    pub(crate) calls: Calls,
    asked: watch::Sender<bool>,
    leaving: Notify,
    /// The gateway does not exit while there is work.
    pub(crate) _work: Work,
}

impl ConnectionContext {
    /// The name in the client's certificate that a request with this token, or without one, is
    /// made in; `None` if it needs the token.
    pub(crate) fn certificate_name(&self, token: Option<&str>) -> Option<&CertificateName> {
        match &self.identity {
            RequestIdentity::Token => None,
            RequestIdentity::Certificate(name) => Some(name),
            RequestIdentity::TokenOrCertificate(name) => {
                (token.is_none() && self.client.has_certificate()).then_some(name)
            }
        }
    }

    /// A request has come.
    pub(crate) fn note_request(&self) {
        let first = |asked: &mut bool| !std::mem::replace(asked, true);
        self.asked.send_if_modified(first);
    }

    /// The connection is to take no more requests.
    pub(crate) fn leave(&self) {
        self.leaving.notify_one();
    }

    /// Records why something on the connection is not served.
    pub(crate) fn report(&self, rejection: &Rejection, principal: Option<Principal>) {
        let client = &self.client;
        let verdict = rejection.verdict();
        match verdict.blame {
            // What is behind the gateway is for the operator to know, and not for clients.
            Blame::Upstream => {
                let cause = std::error::Error::source(rejection).map(ToString::to_string);
                let cause = cause.unwrap_or_default();
                self.gateway.counters.upstream_error(verdict.code);
                warn!(code = verdict.code, client = %client.peer(), cause, "{rejection}");
            }
            Blame::Client | Blame::Issuer | Blame::Us => {
                debug!(code = verdict.code, client = %client.peer(), "refused: {rejection}");
                let record =
                    rejection.record(client.peer(), &self.listener, client.cookie(), principal);
                self.gateway.link.tell(ToWarden::RefusedRequest(record));
            }
        }
    }

    /// Tells the warden what a policy would have refused that only observes.
    pub(crate) fn report_observed(&self, denied: &Denied, principal: Option<Principal>) {
        let client = &self.client;
        let rejection = Rejection::Denied(denied.clone());
        let record = rejection.record(client.peer(), &self.listener, client.cookie(), principal);
        self.gateway.link.tell(ToWarden::ObservedRequest(record));
    }
}

/// Serves an accepted connection to its end.
pub(crate) async fn serve(gateway: Arc<Gateway>, front: Front, mut accepted: Accepted, work: Work) {
    // The kernel drops what an unbound connection sends from `pre_authentication_timeout` on;
    // this only tidies up after it.
    let limit = gateway.unbound_limit;
    let shaken = tokio::select! {
        shaken = shake_hands(&front, &mut accepted) => shaken,
        () = sleep(limit) => return,
    };
    if let Some(done) = handshake(&shaken) {
        gateway.counters.handshake(&front.name, done);
    }
    let (opening, certificate) = match shaken {
        Ok(Some(shaken)) => shaken,
        Ok(None) => return,
        Err(rejection) => {
            return refuse(&gateway, &front.name, &accepted, &rejection).await;
        }
    };
    let context = Arc::new(ConnectionContext {
        gateway,
        listener: front.name,
        identity: front.identity,
        cookie: front.cookie,
        client: Client::new(accepted, certificate),
        inspection: Arc::default(),
        patience: Patience::default(),
        calls: Calls::default(),
        asked: watch::Sender::new(false),
        leaving: Notify::new(),
        _work: work,
    });
    match opening {
        Opening::Http(stream) => serve_http(&context, *stream).await,
        Opening::Tcp(service, stream) => tcp::serve(&context, &service, *stream).await,
        Opening::Postgres(service, opening) => {
            postgres::serve(&context, service, opening).await;
        }
    }
}

/// Whether there was a TLS handshake, and it was done.
fn handshake(shaken: &Result<Shaken, Rejection>) -> Option<bool> {
    match shaken {
        Ok(Some((Opening::Postgres(_, opening), _))) => opening.tls().map(|_| true),
        Ok(opening) => opening.as_ref().map(|_| true),
        Err(Rejection::Tls(_) | Rejection::PlainHttp) => Some(false),
        Err(_) => None,
    }
}

/// A connection on which a listener's service can begin.
enum Opening {
    Http(Box<TlsStream<Socket>>),
    Tcp(TcpService, Box<TlsStream<Socket>>),
    Postgres(PostgresService, postgres::Opening),
}

type Shaken = Option<(Opening, Option<ClientCertificate>)>;

/// What comes before anything that is carried: the proxy's announcement, then TLS. `None`: the
/// client left without a word.
async fn shake_hands(front: &Front, accepted: &mut Accepted) -> Result<Shaken, Rejection> {
    let peer = accepted.peer().ip();
    if front.proxies.iter().any(|network| network.contains(&peer)) {
        match proxy::read_announcement(accepted.socket()).await? {
            None => return Ok(None),
            Some(Announcement::Client(client)) => accepted.announce(client),
            Some(Announcement::Own) => {}
        }
    }
    if let Service::Postgres(service) = front.service {
        // TLS begins within the protocol.
        let opening = postgres::open(&front.acceptor, accepted.socket()).await?;
        let Some(opening) = opening else {
            return Ok(None);
        };
        let tls = opening.tls().map(ClientCertificate::shown).transpose()?;
        return Ok(Some((Opening::Postgres(service, opening), tls.flatten())));
    }
    let Some(stream) = tls::accept(&front.acceptor, accepted.socket()).await? else {
        return Ok(None);
    };
    let certificate = ClientCertificate::shown(stream.get_ref().1)?;
    let stream = Box::new(stream);
    let opening = match &front.service {
        Service::Tcp(service) => Opening::Tcp(service.clone(), stream),
        _ => Opening::Http(stream),
    };
    Ok(Some((opening, certificate)))
}

/// Neither TLS nor a session: there may be nothing to answer with.
async fn refuse(gateway: &Gateway, listener: &str, accepted: &Accepted, rejection: &Rejection) {
    let record = rejection.record(accepted.client(), listener, accepted.cookie(), None);
    gateway.link.tell(ToWarden::RefusedRequest(record));
    debug!(client = %accepted.client(), "refused: {rejection}");
    let socket = accepted.socket();
    let said = match rejection {
        Rejection::PlainHttp => tls::refuse_plain(socket, rejection).await,
        Rejection::PlainPostgres | Rejection::Packet(_) => {
            postgres::refuse_plain(socket, rejection).await
        }
        // An alert, if there was a reason for one, has been sent.
        _ => socket.clone().shutdown().await,
    };
    if said.is_ok() {
        socket.linger().await;
    }
}

async fn serve_http(context: &Arc<ConnectionContext>, stream: TlsStream<Socket>) {
    let inspection = Arc::clone(&context.inspection);
    if stream.get_ref().1.alpn_protocol() == Some(http2::ALPN) {
        let stream = Guarded::new(stream, inspection);
        let served = http2::Connection::new(Arc::clone(context), stream);
        let shut_down = http2::Connection::graceful_shutdown;
        drive(context, served, shut_down, http2::Connection::calm_down).await;
    } else {
        let io = TokioIo::new(Inspected::new(stream, inspection));
        let service = {
            let context = Arc::clone(context);
            service_fn(move |request: Request<Incoming>| {
                let answer = service::answer(Arc::clone(&context), request.map(Received::Http1));
                async { Ok::<_, Infallible>(answer.await) }
            })
        };
        let mut server = http1::Builder::new();
        let served = server
            .max_headers(MAX_HEADERS)
            .serve_connection(io, service);
        let shut_down = UpgradeableConnection::graceful_shutdown;
        drive(context, served.with_upgrades(), shut_down, shut_down).await;
    }
}

/// Drives a connection to its end, whatever version it speaks. `shut_down` makes it take no more
/// requests, and `calm_down` makes it end, and say why.
async fn drive<C, E>(
    context: &ConnectionContext,
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    calm_down: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = Result<(), E>>,
    E: Into<HttpError>,
{
    let socket = context.client.socket();
    let mut connection = pin!(connection);
    let mut orders = context.gateway.link.orders();
    let mut unbound_limit = pin!(sleep(context.gateway.unbound_limit));
    let mut session: Option<SessionHandle> = None;
    let mut finishing = false;
    let result = loop {
        tokio::select! {
            biased;
            proof = ended(session.as_ref()) => return socket.reset(proof),
            bound = context.client.session(), if session.is_none() => session = Some(bound),
            () = context.patience.lost() => {
                context.report(&Rejection::GivenUp, None);
                calm_down(connection.as_mut());
                // Who does not take that either is not waited for.
                if timeout(LAST_WORD_TIMEOUT, connection.as_mut()).await.is_ok() {
                    socket.linger().await;
                }
                return socket.abort();
            }
            result = connection.as_mut() => break result,
            () = finish(context, session.as_ref(), &mut orders), if !finishing => {
                finishing = true;
                shut_down(connection.as_mut());
            }
            () = unbound_limit.as_mut(), if session.is_none() => return,
        }
    };
    if let Some(session) = session.filter(|session| session.is_over(boot_now())) {
        return socket.reset(session.ended().await);
    }
    match result {
        Ok(()) if context.inspection.is_raw() => {}
        Ok(()) => socket.linger().await,
        Err(error) => {
            let error = error.into();
            let flooded = context.inspection.is_flooded().then_some(Rejection::Flood);
            let violation = || match &error {
                HttpError::Http1(_) => None,
                HttpError::Http2(error) => http2::violation(error),
            };
            if let Some(rejection) = flooded.or_else(violation) {
                context.report(&rejection, None);
                if socket.clone().shutdown().await.is_ok() {
                    socket.linger().await;
                }
            }
            debug!(client = %context.client.peer(), %error, "a connection broke off");
        }
    }
}

/// Waits until the connection should take no more requests.
async fn finish(
    context: &ConnectionContext,
    session: Option<&SessionHandle>,
    orders: &mut watch::Receiver<Orders>,
) {
    let farewell = async {
        match session {
            Some(session) => {
                session.farewell().await;
                end_calls(context, session).await;
            }
            None => std::future::pending().await,
        }
    };
    let drained = async {
        Orders::drained(orders).await;
        // Who has just connected is about to ask, and would see the connection break off. Who does
        // not ask is not waited for long: see `unbound_limit`.
        let _ = context.asked.subscribe().wait_for(|asked| *asked).await;
    };
    tokio::select! {
        () = farewell => {}
        () = context.leaving.notified() => {}
        () = drained => {}
    }
}

/// Waits until the connection has been given the ends of its gRPC calls; for half of what is left, as
/// a client may not take them.
async fn end_calls(context: &ConnectionContext, session: &SessionHandle) {
    let left = session.state().left(boot_now());
    let _ = timeout(left / 2, context.calls.ended()).await;
    // The connection is driven once more before it hears of more.
    tokio::task::yield_now().await;
}

async fn ended(session: Option<&SessionHandle>) -> Ended {
    match session {
        Some(session) => session.ended().await,
        None => std::future::pending().await,
    }
}
