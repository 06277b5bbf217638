//! One HTTP/2 connection to an upstream.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::Either;
use hyper::body::Body;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
};
use tracing::debug;

use super::keep_alive::{self, Patience};
use crate::{
    channel::Refusal,
    clock::boot_now,
    gateway::{
        http::{
            body::{BodyError, Progress, Received, RequestBody},
            head::MAX_HEAD,
            http2::{
                self,
                receiving::Receiving,
                sending::{self, Unfinished},
            },
            interim::Way,
        },
        rejection::Rejection,
        sessions::SessionHandle,
        upstream::connect::Stream,
    },
};

/// A response that nobody takes holds back its own stream, and never the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = i32::MAX as u32;
const MAX_UNSENT: usize = 64 * 1024;
const MAX_ERROR_RESETS: usize = 1024;
const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(30),
    answer: Duration::from_secs(10),
};

/// An open connection.
#[derive(Clone, Debug)]
pub(in crate::gateway::upstream) struct Connection(Arc<Open>);

#[derive(Debug)]
struct Open {
    /// Requests begin one after the other, when the upstream allows one more.
    requests: Mutex<SendRequest<Bytes>>,
    /// It takes no more requests, but may still answer some.
    leaving: AtomicBool,
    driver: JoinHandle<()>,
    heard: Arc<Progress>,
}

/// A request that got no response.
#[derive(Debug)]
pub(in crate::gateway::upstream) enum Failure {
    /// The connection did not take it.
    Unsent(Box<Request<RequestBody>>),
    Rejected(Rejection),
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Unfinished<BodyError>>> + Send>>;

impl Connection {
    /// Begins HTTP/2 on a stream. A connection of a session's own ends with it.
    pub(in crate::gateway::upstream) async fn begin(
        stream: Stream,
        owner: Option<SessionHandle>,
    ) -> Result<Self, Rejection> {
        let (requests, mut connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(MAX_UNSENT)
            .max_header_list_size(MAX_HEAD as u32)
            .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(closed)?;
        let heard = Arc::new(Progress::new(boot_now()));
        let pings = connection.ping_pong();
        let pings = pings.ok_or(Rejection::Internal("pings are somebody else's"))?;
        let lost = keep_alive::lost(pings, Arc::clone(&heard), PATIENCE);
        let driver = tokio::spawn(async move {
            let over = async {
                let Some(session) = owner else {
                    return std::future::pending().await;
                };
                session.ended().await;
            };
            tokio::select! {
                result = connection => {
                    if let Err(error) = result {
                        debug!(%error, "an upstream connection broke off");
                    }
                }
                () = over => {}
                () = lost => debug!("an upstream does not answer any more"),
            }
        });
        Ok(Self(Arc::new(Open {
            requests: Mutex::new(requests),
            leaving: AtomicBool::new(false),
            driver,
            heard,
        })))
    }

    /// It takes no more requests.
    pub(in crate::gateway::upstream) fn is_closed(&self) -> bool {
        self.0.leaving.load(Ordering::Relaxed) || self.0.driver.is_finished()
    }

    /// Sends a request of a session that is not halted, and waits for the head of the response.
    /// Interim responses go their way.
    pub(in crate::gateway::upstream) async fn send(
        &self,
        request: Request<RequestBody>,
        session: &SessionHandle,
        way: &Way,
    ) -> Result<Response<Received>, Failure> {
        let (mut head, body) = request.into_parts();
        announce_length(&head.method, &mut head.headers, &body);
        // It may end at any time; what counts is what is said with the head.
        let bodiless = body.is_end_stream();
        let under_way = Arc::clone(&self.0.heard);
        let (response, stream) = {
            let Some(mut requests) = self.turn(session).await? else {
                let request = Request::from_parts(head, body);
                return Err(Failure::Unsent(Box::new(request)));
            };
            under_way.note(boot_now());
            let head = Request::from_parts(head, ());
            requests.send_request(head, bodiless).map_err(closed)?
        };
        let mut sending = match body {
            Either::Right(body) if !bodiless => {
                Some(Box::pin(sending::send(stream, body)) as Sending)
            }
            Either::Left(_) | Either::Right(_) => None,
        };
        let response = exchange(response, &mut sending, way).await?;
        under_way.note(boot_now());
        if let Some(sending) = sending {
            let under_way = Arc::clone(&under_way);
            tokio::spawn(async move {
                note_end(sending.await);
                drop(under_way);
            });
        }
        let (head, stream) = response.into_parts();
        let body = Receiving::new(stream, &head.headers).noting(under_way);
        Ok(Response::from_parts(head, Received::Http2(body)))
    }

    /// Waits until a request of the session may begin. `None`: there is no more turn.
    async fn turn(
        &self,
        session: &SessionHandle,
    ) -> Result<Option<MutexGuard<'_, SendRequest<Bytes>>>, Rejection> {
        loop {
            session.decided().await;
            if let Some(reason) = session.state().end_reason(boot_now()) {
                return Err(Refusal::SessionEnded(reason).into());
            }
            let mut requests = self.0.requests.lock().await;
            if let Err(error) = poll_fn(|cx| requests.poll_ready(cx)).await {
                debug!(%error, "an upstream connection takes no more requests");
                self.0.leaving.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            // It may have been halted meanwhile.
            if !session.is_halted(boot_now()) {
                return Ok(Some(requests));
            }
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Says how long a body is, where nobody has.
fn announce_length(method: &Method, fields: &mut HeaderMap, body: &RequestBody) {
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE];
    let length = body.size_hint().exact();
    if let Some(length) = length.filter(|length| *length > 0 || !bodiless.contains(method)) {
        let length = || HeaderValue::from(length);
        fields.entry(header::CONTENT_LENGTH).or_insert_with(length);
    }
}

/// Sends the body until the response comes; what is left of it then stays.
async fn exchange(
    mut response: ResponseFuture,
    body: &mut Option<Sending>,
    way: &Way,
) -> Result<Response<RecvStream>, Rejection> {
    poll_fn(|cx| {
        if let Poll::Ready(response) = poll_response(&mut response, way, cx) {
            return Poll::Ready(response);
        }
        if let Some(sending) = body {
            let sent = ready!(sending.as_mut().poll(cx));
            *body = None;
            if let Err(Unfinished::Body(_)) = sent {
                return Poll::Ready(Err(Rejection::Incomplete));
            }
            note_end(sent);
        }
        Poll::Pending
    })
    .await
}

fn poll_response(
    response: &mut ResponseFuture,
    way: &Way,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<RecvStream>, Rejection>> {
    while let Some(interim) = ready!(response.poll_informational(cx)) {
        let interim = interim.map_err(closed)?;
        check_values(interim.headers())?;
        way.pass(interim.status(), interim.headers());
    }
    let response = ready!(Pin::new(response).poll(cx)).map_err(closed)?;
    check_values(response.headers())?;
    Poll::Ready(Ok(response))
}

fn check_values(fields: &HeaderMap) -> Result<(), Rejection> {
    if http2::has_padded_value(fields) {
        let what = "a field value with space around it";
        return Err(Rejection::UpstreamInvalid(what.into()));
    }
    Ok(())
}

fn note_end(sent: Result<(), Unfinished<BodyError>>) {
    if let Err(error) = sent {
        debug!(%error, "a request was not sent to its end");
    }
}

fn closed(error: h2::Error) -> Rejection {
    debug!(%error, "an upstream did not answer");
    Rejection::UpstreamClosed
}
