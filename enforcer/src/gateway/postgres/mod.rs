//! PostgreSQL's protocol: TLS and a principal on the client's side, a login and a connection of the
//! session's own on the upstream's.
//!
//! ```text
//!   SSLRequest --TLS--> StartupMessage --certificate, or token as password--> Authenticated
//!       |                  |                                                       |
//!       | CancelRequest    | CancelRequest                                         v
//!       +------------------+--key--> Bound --> cancelled, closed                 Bound
//!                                                                                  | dialled
//!                                                                                  v
//!        closed <--a side closes, or the farewell-- flowing <--ReadyForQuery-- logging in
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | `packet`, `message`, `answer` | what is said before and besides what is relayed |
//! | `scanner`, `exchange` | where messages end, and whether the upstream is at work |
//! | `messages`, `login` | whole messages, up to the first ReadyForQuery |
//! | `relay` | bytes, from then on |
//! | `cancel` | keys, and the connections that come with one |
//!
//! Refusals are ErrorResponses, in the clear before TLS. What is cut is reset, as everywhere.

mod answer;
mod cancel;
mod exchange;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod login;
mod message;
mod messages;
pub(super) mod packet;
mod relay;
pub(super) mod scanner;

use std::{io, time::Duration};

use rustls::ServerConnection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tracing::debug;

pub(super) use self::{
    cancel::CancelKeys,
    login::{Login, LoginRefused},
};
use self::{
    login::{Failure, LoggingIn},
    message::kind,
    messages::{Message, Messages, read_packet},
    packet::{CancelKey, Packet, PacketFault, Startup},
    relay::{End, Relay},
};
use crate::{
    clock::{Now, boot_now, wall_now},
    config::RequestIdentity,
    gateway::{
        connection::ConnectionContext,
        http::route::RouteIndex,
        rejection::Rejection,
        socket::Socket,
        stages::{Authenticated, Bound},
        tls::{self, Acceptor},
    },
    policy::Purpose,
    session::Principal,
};

/// Of TLS that starts with the first byte (PostgreSQL 17), and allowed otherwise.
pub(super) const ALPN: &[u8] = b"postgresql";
/// The first byte of TLS.
const HANDSHAKE: u8 = 0x16;
/// Longest login to an upstream: as long as PostgreSQL's own `authentication_timeout`.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

type Client = Messages<TlsStream<Socket>>;

/// What a PostgreSQL listener leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PostgresService {
    /// The listener's one route.
    pub(super) route: RouteIndex,
}

/// What a connection comes for.
enum Admitted {
    Session(Box<Bound>, Startup),
    Cancel(CancelKey),
}

/// What a connection starts with.
pub(super) enum Opening {
    /// TLS, with its first byte or after SSLRequest.
    Tls {
        stream: Box<TlsStream<Socket>>,
        direct: bool,
    },
    Cancel(CancelKey),
}

/// What packets in the clear have come to.
enum Negotiated {
    Tls,
    Cancel(CancelKey),
}

impl Opening {
    /// TLS, if that is what it starts with.
    pub(super) fn tls(&self) -> Option<&ServerConnection> {
        match self {
            Self::Tls { stream, .. } => Some(stream.get_ref().1),
            Self::Cancel(_) => None,
        }
    }
}

/// Serves a connection after its opening.
pub(super) async fn serve(context: &ConnectionContext, service: PostgresService, opening: Opening) {
    let (stream, direct) = match opening {
        Opening::Tls { stream, direct } => (stream, direct),
        Opening::Cancel(key) => return cancel::serve(context, service.route, &key).await,
    };
    let mut client = Messages::new(*stream);
    // What comes before a session is bounded: the kernel drops what is sent after the limit, and
    // this tidies up.
    let admitted = tokio::select! {
        admitted = admit(context, service, &mut client, direct) => admitted,
        () = sleep(context.gateway.unbound_limit) => return,
    };
    match admitted {
        None => {}
        Some(Admitted::Cancel(key)) => {
            cancel::serve(context, service.route, &key).await;
            // The client only waits for the end.
            let _ = client.close().await;
        }
        Some(Admitted::Session(bound, startup)) => {
            serve_session(context, service, &bound, &startup, client).await;
        }
    }
}

/// Up to a session, or a key that leads to one. `None`: the client has left or been refused.
async fn admit(
    context: &ConnectionContext,
    service: PostgresService,
    client: &mut Client,
    direct: bool,
) -> Option<Admitted> {
    let mut principal = None;
    let identified = match direct && !agreed_on_alpn(client) {
        true => Err(Rejection::from(PacketFault::NoAlpn).into()),
        false => identify(context, service, client, &mut principal).await,
    };
    match identified {
        Ok(admitted) => admitted,
        Err(Failure::Rejected(rejection)) => {
            refuse(context, client, &rejection, principal).await;
            None
        }
        Err(Failure::Told(rejection)) => {
            context.report(&rejection, principal);
            None
        }
        Err(Failure::BrokenOff(error)) => {
            debug!(client = %context.client.peer(), %error, "a client left");
            None
        }
    }
}

/// Says no in the clear.
pub(super) async fn refuse_plain(socket: &Socket, rejection: &Rejection) -> io::Result<()> {
    let mut socket = socket.clone();
    socket.write_all(&answer::refusal(rejection)).await?;
    socket.shutdown().await
}

/// What is said in the clear, up to TLS. `None`: the client left without a word.
pub(super) async fn open(
    acceptor: &Acceptor,
    socket: &Socket,
) -> Result<Option<Opening>, Rejection> {
    let direct = match socket.first_byte().await.map_err(Rejection::Tls)? {
        None => return Ok(None),
        Some(first) => first == HANDSHAKE,
    };
    if !direct {
        match negotiate(&mut socket.clone()).await? {
            None => return Ok(None),
            Some(Negotiated::Cancel(key)) => return Ok(Some(Opening::Cancel(key))),
            Some(Negotiated::Tls) => {}
        }
    }
    let stream = tls::shake_hands(acceptor, socket).await?;
    let stream = Box::new(stream);
    Ok(Some(Opening::Tls { stream, direct }))
}

/// Packets in the clear, up to the one that asks for TLS, which is granted, or that has a key.
/// `None`: the client left.
async fn negotiate(socket: &mut Socket) -> Result<Option<Negotiated>, Rejection> {
    let mut gss_refused = false;
    loop {
        let packet = read_packet(socket).await.map_err(Rejection::Tls)?;
        let Some(packet) = packet else {
            return Ok(None);
        };
        match packet? {
            Packet::SslRequest => {
                socket.write_all(b"S").await.map_err(Rejection::Tls)?;
                return Ok(Some(Negotiated::Tls));
            }
            Packet::GssRequest if gss_refused => return Err(PacketFault::Repeated.into()),
            Packet::GssRequest => {
                socket.write_all(b"N").await.map_err(Rejection::Tls)?;
                gss_refused = true;
            }
            Packet::Cancel(key) => return Ok(Some(Negotiated::Cancel(key))),
            Packet::Startup(_) => return Err(Rejection::PlainPostgres),
        }
    }
}

/// Asks an upstream for TLS. What comes after its answer is TLS, or an attack.
pub(super) async fn request_tls(socket: &mut Socket) -> io::Result<()> {
    socket.write_all(&packet::ssl_request()).await?;
    match socket.read_u8().await? {
        b'S' => Ok(()),
        _ => {
            let message = "it does not speak TLS";
            Err(io::Error::new(io::ErrorKind::Unsupported, message))
        }
    }
}

fn agreed_on_alpn(client: &Client) -> bool {
    let (_, tls) = client.stream().get_ref();
    tls.alpn_protocol() == Some(ALPN)
}

/// From the start-up message to a session that the client's socket is bound to. `None`: the client
/// has left.
async fn identify(
    context: &ConnectionContext,
    service: PostgresService,
    client: &mut Client,
    principal: &mut Option<Principal>,
) -> Result<Option<Admitted>, Failure> {
    let gateway = &context.gateway;
    let Some(packet) = client.packet().await.map_err(Failure::BrokenOff)? else {
        return Ok(None);
    };
    let startup = match packet.map_err(Rejection::from)? {
        Packet::Startup(startup) => startup,
        Packet::Cancel(key) => return Ok(Some(Admitted::Cancel(key))),
        Packet::SslRequest | Packet::GssRequest => {
            return Err(Rejection::from(PacketFault::Repeated).into());
        }
    };
    if startup.asks_too_much() {
        let spoken = message::negotiate(startup.spoken_minor(), &startup.protocol_options);
        client.send(&spoken).await.map_err(Failure::BrokenOff)?;
    }
    let by_certificate = match &context.identity {
        RequestIdentity::Certificate(_) => true,
        RequestIdentity::TokenOrCertificate(_) => context.client.shows_certificate(),
        RequestIdentity::Token => false,
    };
    let mut password = None;
    if !by_certificate {
        let asked = client.send(&message::ask_for_password()).await;
        asked.map_err(Failure::BrokenOff)?;
        password = client.next().await?;
        if password.is_none() {
            return Ok(None);
        }
    }
    let token = password.as_ref().map(token).transpose()?;
    let authenticated = Authenticated::by_request(context, token, Now::read()).await?;
    *principal = Some(authenticated.principal().clone());
    let client = &context.client;
    let purpose = Purpose::Route(service.route);
    let permitted = authenticated.permit(&gateway.policies, purpose, client, wall_now())?;
    if let Some(denied) = permitted.observed() {
        context.report_observed(denied, principal.clone());
    }
    let bound = Bound::establish(&gateway.link, client, permitted).await?;
    Ok(Some(Admitted::Session(Box::new(bound), startup)))
}

/// The text of a PasswordMessage.
fn token(password: &Message) -> Result<&str, Rejection> {
    let text = match password.kind() {
        kind::PASSWORD => password.body().strip_suffix(&[0]),
        _ => None,
    };
    let token = text.and_then(|text| std::str::from_utf8(text).ok());
    token
        .filter(|token| !token.is_empty())
        .ok_or(Rejection::MissingToken)
}

/// Says no, and why.
async fn refuse(
    context: &ConnectionContext,
    client: &mut Client,
    rejection: &Rejection,
    principal: Option<Principal>,
) {
    context.report(rejection, principal);
    let said = async {
        client.send(&answer::refusal(rejection)).await?;
        client.close().await
    };
    if said.await.is_ok() {
        context.client.socket().linger().await;
    }
}

/// From the session to the connection's end.
async fn serve_session(
    context: &ConnectionContext,
    service: PostgresService,
    bound: &Bound,
    startup: &Startup,
    client: Client,
) {
    let socket = context.client.socket();
    let session = bound.session();
    let result = tokio::select! {
        biased;
        proof = session.ended() => return socket.reset(proof),
        result = carry(context, service, bound, startup, client) => result,
    };
    if session.is_over(boot_now()) {
        return socket.reset(session.ended().await);
    }
    match result {
        Ok(()) => socket.linger().await,
        Err(error) => {
            debug!(client = %context.client.peer(), %error, "a connection broke off");
            socket.abort();
        }
    }
}

async fn carry(
    context: &ConnectionContext,
    service: PostgresService,
    bound: &Bound,
    startup: &Startup,
    mut client: Client,
) -> io::Result<()> {
    let gateway = &context.gateway;
    let principal = Some(bound.principal().clone());
    let Some((target, login)) = gateway
        .targets
        .get(service.route)
        .and_then(|target| Some((target, target.login.as_ref()?)))
    else {
        let rejection = Rejection::Internal("a route without a login");
        refuse(context, &mut client, &rejection, principal).await;
        return Ok(());
    };
    let log_in = async {
        let (stream, socket) = target.upstream.dial(&gateway.link, bound).await?;
        let mut upstream = Messages::new(stream);
        let logging_in = LoggingIn {
            login,
            bound,
            route: service.route,
            keys: &gateway.cancel_keys,
            client: &mut client,
            upstream: &mut upstream,
        };
        let registration = logging_in.run(startup).await?;
        Ok((upstream, socket, registration))
    };
    let logged_in = timeout(LOGIN_TIMEOUT, log_in).await;
    let (upstream, upstream_socket, registration) = match logged_in {
        Ok(Ok(logged_in)) => logged_in,
        Ok(Err(Failure::BrokenOff(error))) => return Err(error),
        Ok(Err(Failure::Told(rejection))) => {
            context.report(&rejection, principal);
            return client.close().await;
        }
        Ok(Err(Failure::Rejected(rejection))) => {
            refuse(context, &mut client, &rejection, principal).await;
            return Ok(());
        }
        Err(_) => {
            refuse(context, &mut client, &Rejection::UpstreamTimeout, principal).await;
            return Ok(());
        }
    };
    let relay = Relay::new(client, upstream, bound.session(), &gateway.link);
    let end = relay.run().await;
    match (&end, &registration) {
        (Ok(End::Farewell { busy: true }), Some(registration)) => {
            // Else the upstream would go on working for nobody.
            let cancellable = registration.cancellable();
            let cancelled = cancellable.cancel(&gateway.link, target, bound).await;
            if let Err(error) = cancelled {
                debug!(client = %context.client.peer(), %error, "cannot cancel a query");
            }
        }
        (Ok(End::Violated(violation)), _) => {
            context.report(&Rejection::from(*violation), principal);
            upstream_socket.abort();
        }
        (Err(_), _) => upstream_socket.abort(),
        (Ok(_), _) => {}
    }
    end.map(drop)
}
