//! Tunnels: CONNECT over HTTP/1.1 (RFC 9110, section 9.3.6) and HTTP/2 (RFC 9113, section 8.5), to
//! the targets that a route allows.
//!
//! ```text
//!   CONNECT --token--> Authenticated --target allowed--> Bound --> connected --200--> flowing
//!      |                    |                              |           |                 |
//!      | 400, 401           | 403, 502 (no such name)      | 401, 503  | 502, 504        v
//!      v                    v                              v           v              closed,
//!   answered             answered                       answered    answered          or reset
//! ```
//!
//! What flows is opaque: there is no farewell within it. On HTTP/2 the connection gets GOAWAY, as
//! every other; then, as on HTTP/1.1, the cut. An end of one direction is passed on as the end of
//! that direction alone. What is no end is a reset, on either side: of the connection with
//! HTTP/1.1, of the stream with HTTP/2.

mod stream;
mod targets;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use self::stream::{Sending, Stream};
pub(crate) use self::targets::{InvalidTarget, Target, TargetNotAllowed, TargetTable};
use super::{
    connection::ConnectionContext,
    http::{
        bearer,
        body::{Received, ResponseBody},
        inspect::Inspected,
        service::Known,
    },
    rejection::Rejection,
    socket::Socket,
    stages::{Authenticated, Bound},
    tcp::relay::relay,
    upstream::claim,
};
use crate::{
    clock::{Now, boot_now, wall_now},
    config::{Config, ProxyVersion, TunnelRoute},
    gateway::tunnel::targets::{Host, Permit},
    policy::Purpose,
};

/// Longest wait for the addresses of a name, before it is known which route it is.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tunnels of all listeners.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    table: TargetTable,
    /// In the order of the configuration, as [`TargetTable`] counts.
    routes: Vec<Settings>,
}

#[derive(Debug)]
struct Settings {
    /// Its place in the configuration.
    place: usize,
    announces: Option<ProxyVersion>,
    connect_timeout: Duration,
}

impl Tunnels {
    /// The tunnels of a configuration.
    pub(crate) fn new(config: &Config) -> Self {
        Self::of(&config.tunnels)
    }

    pub(crate) fn of(routes: &[TunnelRoute]) -> Self {
        let settings = routes.iter().enumerate().map(|(place, route)| Settings {
            place,
            announces: route.proxy_protocol,
            connect_timeout: route.connect_timeout,
        });
        Self {
            table: TargetTable::new(routes),
            routes: settings.collect(),
        }
    }

    /// The route that allows the target, and the addresses that it leads to.
    async fn admit(
        &self,
        listener: &str,
        target: &Target,
    ) -> Result<(&Settings, Vec<IpAddr>), Rejection> {
        let way = self.table.find(listener, target)?;
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => resolve(name, target).await?,
        };
        let Permit { tunnel, addresses } = self.table.permit(listener, target, way, addresses)?;
        let settings = self.routes.get(tunnel).ok_or(Rejection::NoRoute)?;
        Ok((settings, addresses))
    }
}

async fn resolve(name: &str, target: &Target) -> Result<Vec<IpAddr>, Rejection> {
    let found = timeout(RESOLVE_TIMEOUT, lookup_host((name, target.port)))
        .await
        .map_err(|_| Rejection::TargetTimeout(target.clone()))?
        .map_err(|error| Rejection::TargetUnresolved(target.clone(), error))?;
    Ok(found.map(|address| address.ip().to_canonical()).collect())
}

/// Answers a CONNECT.
pub(crate) async fn answer(
    connection: &Arc<ConnectionContext>,
    request: Request<Received>,
    known: &mut Known,
) -> Result<Response<ResponseBody>, Rejection> {
    let gateway = &connection.gateway;
    if !gateway.tunnels.table.serves(&connection.listener) {
        return Err(Rejection::Method(request.method().clone()));
    }
    let target = Target::parse(request.uri())?;
    let authenticated = Authenticated::by_request(
        connection,
        bearer::for_proxy(request.headers())?,
        Now::read(),
    )
    .await?;
    known.principal = Some(authenticated.principal().clone());
    let (route, addresses) = gateway.tunnels.admit(&connection.listener, &target).await?;
    let client = &connection.client;
    let purpose = Purpose::Tunnel(route.place);
    let permitted = authenticated.permit(&gateway.policies, purpose, client, wall_now())?;
    if let Some(denied) = permitted.observed() {
        connection.report_observed(denied, known.principal.clone());
    }
    let bound = Bound::establish(&gateway.link, client, permitted).await?;
    bound.session().activity().note(&gateway.link, boot_now());
    let bound = known.bound.insert(bound);

    let tcp = dial(route, &target, &addresses).await?;
    let upstream = claim(tcp, &gateway.link, bound, route.announces, Some(&target)).await?;
    let tunnel = Tunnel {
        connection: Arc::clone(connection),
        bound: bound.clone(),
        target,
    };
    let (client, body) = client_side(request);
    tokio::spawn(tunnel.run(client, upstream));
    connection.inspection.become_raw();
    Ok(Response::new(body))
}

/// Where the client's side of the tunnel will be, and what the answer has to do with it.
fn client_side(mut request: Request<Received>) -> (ClientSide, ResponseBody) {
    let upgrade = hyper::upgrade::on(&mut request);
    match request.into_body() {
        Received::Http1(_) => (ClientSide::Connection(upgrade), ResponseBody::whole("")),
        Received::Http2(receiving) => {
            let (handover, sending) = oneshot::channel();
            let side = ClientSide::Stream(receiving.into_stream(), sending);
            (side, ResponseBody::Tunnel(handover))
        }
    }
}

async fn dial(
    route: &Settings,
    target: &Target,
    addresses: &[IpAddr],
) -> Result<TcpStream, Rejection> {
    let with_port = |address: &IpAddr| SocketAddr::new(*address, target.port);
    let addresses: Vec<_> = addresses.iter().map(with_port).collect();
    timeout(route.connect_timeout, TcpStream::connect(&*addresses))
        .await
        .map_err(|_| Rejection::TargetTimeout(target.clone()))?
        .map_err(|error| Rejection::TargetUnreachable(target.clone(), error))
}

/// A tunnel that is connected to its target.
struct Tunnel {
    connection: Arc<ConnectionContext>,
    bound: Bound,
    target: Target,
}

/// The client's side, once the CONNECT has been answered.
enum ClientSide {
    /// Of a whole connection, with HTTP/1.1.
    Connection(OnUpgrade),
    /// Of a stream, with HTTP/2.
    Stream(RecvStream, oneshot::Receiver<SendStream<Bytes>>),
}

impl Tunnel {
    /// Relays until both sides have ended, either has broken off, or the session is over.
    async fn run(self, client: ClientSide, upstream: Socket) {
        let session = self.bound.session();
        let is_stream = matches!(client, ClientSide::Stream(..));
        let result = tokio::select! {
            biased;
            _ = session.ended() => Err(io::ErrorKind::ConnectionAborted.into()),
            result = self.relay(client, upstream.clone()) => result,
        };
        // A stream has seen to its own end.
        match result {
            Ok(()) if is_stream => {}
            Ok(()) => self.connection.client.socket().linger().await,
            Err(error) => {
                debug!(target = %self.target, %error, "a tunnel broke off");
                upstream.abort();
                if !is_stream {
                    self.connection.client.socket().abort();
                }
            }
        }
    }

    async fn relay(&self, client: ClientSide, upstream: Socket) -> io::Result<()> {
        let (session, link) = (self.bound.session(), &self.connection.gateway.link);
        match client {
            ClientSide::Connection(upgrade) => {
                let client = upgrade.await.map_err(io::Error::other)?;
                relay(unwrap(client)?, upstream, session, link).await
            }
            ClientSide::Stream(receiving, sending) => {
                let sending = sending.await.map_err(io::Error::other)?;
                let sending = Sending::new(sending);
                let client = Stream::new(receiving, sending.clone());
                tokio::select! {
                    biased;
                    result = relay(client, upstream, session, link) => result,
                    error = sending.given_up() => Err(error),
                }
            }
        }
    }
}

/// The connection itself, with what was read from it already put back.
fn unwrap(client: Upgraded) -> io::Result<Inspected<TlsStream<Socket>>> {
    let parts = client
        .downcast::<TokioIo<Inspected<TlsStream<Socket>>>>()
        .map_err(|_| io::Error::other("a tunnel on a connection of another kind"))?;
    let mut client = parts.io.into_inner();
    client.put_back(&parts.read_buf);
    Ok(client)
}
