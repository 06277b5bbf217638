//! Upstreams: connections to them, and requests on those.
//!
//! | connection | bound | serves |
//! | --- | --- | --- |
//! | shared | no: the gateway checks the session before each write | one request at a time, of any session; with HTTP/2 many |
//! | of a session | yes, before its first byte | that session's requests |
//! | switched (WebSocket) | yes, before its first byte | one WebSocket |
//! | dialled (TCP listeners) | yes, before its first byte | one client's connection |

mod connect;
mod http2;
mod pool;
pub(crate) mod tls;

use std::{pin::pin, sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};
use http_body_util::{Either, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tracing::debug;

pub(crate) use self::connect::{Stream, claim};
use self::{
    connect::Connector,
    pool::{Owner, Pool},
};
use crate::{
    clock::{BootInstant, boot_now},
    config::{HttpVersion, Route, UpstreamPool},
    gateway::{
        http::{
            body::{BodyError, Progress, Received, RequestBody},
            interim::Way,
        },
        link::Link,
        rejection::Rejection,
        sessions::SessionHandle,
        socket::Socket,
        stages::Bound,
        upstream::tls::UpstreamTlsError,
    },
};

/// The upstream of a route.
#[derive(Debug)]
pub(crate) struct Upstream {
    connector: Connector,
    response_timeout: Duration,
    sharing: UpstreamPool,
    connections: Connections,
}

/// The connections that are open, by what is spoken on them.
#[derive(Debug)]
enum Connections {
    Http1(Arc<Pool>),
    Http2(http2::Connections),
}

/// A request on its way out.
pub(crate) struct Outgoing {
    pub(crate) head: Parts,
    pub(crate) body: RequestBody,
    pub(crate) progress: Arc<Progress>,
    /// Of what the upstream says before its response.
    pub(crate) way: Way,
    /// Idempotent and without a body: it may be sent once more.
    pub(crate) repeatable: bool,
}

/// A connection that can take a request.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    socket: Socket,
}

/// A request that got no response.
struct Failure {
    rejection: Rejection,
    /// The request, if nothing of it was sent.
    unsent: Option<Box<Request<RequestBody>>>,
    /// The upstream sent nothing.
    silent: bool,
}

impl Upstream {
    /// The upstream of this route. Reads certificates and keys.
    pub(crate) fn load(
        route: &Route,
        roots: &mut tls::NativeRoots,
    ) -> Result<Self, UpstreamTlsError> {
        Ok(Self {
            connector: Connector::load(route, roots)?,
            response_timeout: route.response_timeout,
            sharing: route.upstream_pool,
            connections: match route.upstream.version {
                HttpVersion::Http1 => Connections::Http1(Arc::default()),
                HttpVersion::Http2 => Connections::Http2(http2::Connections::default()),
            },
        })
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(
        &self,
        link: &Arc<Link>,
        bound: &Bound,
        outgoing: Outgoing,
    ) -> Result<Response<Received>, Rejection> {
        match &self.connections {
            Connections::Http1(pool) => self.send_http1(pool, link, bound, outgoing).await,
            Connections::Http2(open) => self.send_http2(open, link, bound, outgoing).await,
        }
    }

    async fn send_http1(
        &self,
        pool: &Arc<Pool>,
        link: &Arc<Link>,
        bound: &Bound,
        outgoing: Outgoing,
    ) -> Result<Response<Received>, Rejection> {
        let mut request = Request::from_parts(outgoing.head, ());
        outgoing.way.take(&mut request);
        let (head, ()) = request.into_parts();
        let again = outgoing.repeatable.then(|| head.clone());
        let mut request = Request::from_parts(head, outgoing.body);
        let progress = &outgoing.progress;
        if let Some(connection) = pool.take(self.owner(bound), boot_now()) {
            match self
                .exchange(pool, connection, bound, request, progress)
                .await
            {
                Ok(response) => return Ok(response),
                Err(failure) => request = failure.repeat(again)?,
            }
        }
        let connection = self.connect(link, bound).await?;
        self.exchange(pool, connection, bound, request, progress)
            .await
            .map_err(|failure| failure.rejection)
    }

    async fn send_http2(
        &self,
        open: &http2::Connections,
        link: &Arc<Link>,
        bound: &Bound,
        outgoing: Outgoing,
    ) -> Result<Response<Received>, Rejection> {
        let session = bound.session();
        let mut request = Request::from_parts(outgoing.head, outgoing.body);
        http2::translate(&mut request, self.connector.is_tls())?;
        let progress = &outgoing.progress;
        // Once more if the upstream closed the connection before it took the request.
        for last in [false, true] {
            let connect = async || {
                let owner = self.exclusive(bound);
                let (stream, _) = self
                    .connector
                    .connect(owner.map(|bound| (&**link, bound)))
                    .await?;
                let owner = owner.map(|bound| bound.session().clone());
                http2::Connection::begin(stream, owner).await
            };
            let patience = self.connector.connect_timeout();
            let connection = open.get(self.owner(bound), patience, connect).await?;
            let response = connection.send(request, session, &outgoing.way);
            match wait(response, self.response_timeout, progress).await? {
                Ok(response) => return Ok(response),
                Err(http2::Failure::Rejected(rejection)) => return Err(rejection),
                Err(http2::Failure::Unsent(_)) if last => break,
                Err(http2::Failure::Unsent(unsent)) => request = *unsent,
            }
        }
        Err(Rejection::UpstreamClosed)
    }

    /// Sends a request that asks for another protocol, on a connection of its own.
    pub(crate) async fn switch(
        &self,
        link: &Arc<Link>,
        bound: &Bound,
        request: Request<RequestBody>,
    ) -> Result<Response<Received>, Rejection> {
        if let Connections::Http2(_) = self.connections {
            return Err(Rejection::NoWebSocket);
        }
        let session = bound.session();
        let (stream, socket) = self.connector.connect(Some((link, bound))).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(rejection)?;
        tokio::spawn(driver.with_upgrades());
        let progress = Progress::new(boot_now());
        let mut connection = Connection { sender, socket };
        connection
            .send(session, request, self.response_timeout, &progress)
            .await
            .map_err(|failure| failure.rejection)
    }

    /// A connection for bytes of whatever protocol, of the session's own.
    pub(crate) async fn dial(
        &self,
        link: &Link,
        bound: &Bound,
    ) -> Result<(Stream, Socket), Rejection> {
        self.connector.connect(Some((link, bound))).await
    }

    /// Closes connections that have been idle for long.
    pub(crate) fn sweep(&self, now: BootInstant) {
        match &self.connections {
            Connections::Http1(pool) => pool.sweep(now),
            Connections::Http2(open) => open.sweep(),
        }
    }

    fn owner(&self, bound: &Bound) -> Option<Owner> {
        self.exclusive(bound).map(|bound| Owner {
            session: bound.session_id(),
            announced: self.connector.announced(bound),
        })
    }

    /// The proof of the session, if its connections are its own.
    fn exclusive<'a>(&self, bound: &'a Bound) -> Option<&'a Bound> {
        match self.sharing {
            UpstreamPool::Shared => None,
            UpstreamPool::Session => Some(bound),
        }
    }

    async fn connect(&self, link: &Arc<Link>, bound: &Bound) -> Result<Connection, Rejection> {
        let owner = self.exclusive(bound);
        let (stream, socket) = self
            .connector
            .connect(owner.map(|bound| (&**link, bound)))
            .await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(rejection)?;
        let owner = owner.map(|bound| bound.session().clone());
        tokio::spawn(async move {
            let result = match &owner {
                None => driver.await,
                Some(session) => tokio::select! {
                    result = driver => result,
                    _ = session.ended() => Ok(()),
                },
            };
            if let Err(error) = result {
                debug!(%error, "an upstream connection broke off");
            }
        });
        Ok(Connection { sender, socket })
    }

    /// Sends a request on a connection, which goes back to the pool when it is free again.
    async fn exchange(
        &self,
        pool: &Arc<Pool>,
        mut connection: Connection,
        bound: &Bound,
        request: Request<RequestBody>,
        progress: &Progress,
    ) -> Result<Response<Received>, Failure> {
        let response = connection
            .send(bound.session(), request, self.response_timeout, progress)
            .await?;
        let owner = self.owner(bound);
        let pool = Arc::clone(pool);
        tokio::spawn(async move {
            if connection.sender.ready().await.is_ok() {
                if owner.is_none() {
                    connection.socket.release();
                }
                pool.put(owner, connection, boot_now());
            }
        });
        Ok(response)
    }
}

impl Connection {
    async fn send(
        &mut self,
        session: &SessionHandle,
        request: Request<RequestBody>,
        response_timeout: Duration,
        progress: &Progress,
    ) -> Result<Response<Received>, Failure> {
        self.socket.serve(session);
        let response = self.sender.try_send_request(request);
        match wait(response, response_timeout, progress).await {
            Ok(Ok(response)) => Ok(response.map(Received::Http1)),
            Ok(Err(mut error)) => Err(Failure {
                unsent: error.take_message().map(Box::new),
                silent: !self.socket.has_received(),
                rejection: rejection(error.into_error()),
            }),
            Err(rejection) => Err(Failure::new(rejection)),
        }
    }
}

/// Waits for a response, for so long after the request's last progress.
async fn wait<T>(
    response: impl Future<Output = T>,
    response_timeout: Duration,
    progress: &Progress,
) -> Result<T, Rejection> {
    let mut response = pin!(response);
    loop {
        let waited = boot_now().saturating_duration_since(progress.last());
        let left = response_timeout.saturating_sub(waited);
        if left.is_zero() {
            return Err(Rejection::UpstreamTimeout);
        }
        tokio::select! {
            response = &mut response => return Ok(response),
            () = tokio::time::sleep(left) => {}
        }
    }
}

impl Failure {
    fn new(rejection: Rejection) -> Self {
        Self {
            rejection,
            unsent: None,
            silent: false,
        }
    }

    /// The request once more, if a connection that had been idle was closed under it.
    fn repeat(self, again: Option<Parts>) -> Result<Request<RequestBody>, Rejection> {
        if !matches!(self.rejection, Rejection::UpstreamClosed) {
            return Err(self.rejection);
        }
        match (self.unsent, again) {
            (Some(request), _) => Ok(*request),
            (None, Some(head)) if self.silent => {
                Ok(Request::from_parts(head, Either::Left(Empty::new())))
            }
            _ => Err(self.rejection),
        }
    }
}

/// What an error of the HTTP library means here.
fn rejection(error: hyper::Error) -> Rejection {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if cause.is::<BodyError>() {
            return Rejection::Incomplete;
        }
        source = cause.source();
    }
    if error.is_parse() {
        Rejection::UpstreamInvalid(error.into())
    } else {
        Rejection::UpstreamClosed
    }
}
