//! Interim responses (1xx) of upstreams, for clients of HTTP/1.1 and HTTP/2.
//!
//! ```text
//!   upstream: HTTP/1.1 --callback--+         +--> HTTP/1.1: between two of the library's responses
//!                                  +--> Way -+
//!             HTTP/2 -----polled---+         +--> HTTP/2: a HEADERS frame on the request's stream
//! ```
//!
//! The library for HTTP/1.1 hands them over, but does not send any. They are written when it has
//! written all that it has to say: what comes then is a place between two responses, because a
//! request's final response is held back until its interim ones are out.
//!
//! `100 Continue` is not among them: the gateway says it itself, when it takes the body.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header, request::Parts};
use tokio::{io::AsyncWrite, sync::Notify};

use super::{headers::prepare_response, http2::reply::Reply};

/// More that waits for one client is dropped: they are hints. With HTTP/2, where it can't be known
/// how much waits, more for one request.
pub(super) const MOST_WAITING: usize = 64 * 1024;
const CONTINUE: &[u8] = b"100-continue";

/// How those for one request reach the client.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Not at all: it speaks HTTP/1.0.
    None,
    Http1 {
        interims: Arc<Interims>,
        /// As [`Waiting`] counts.
        request: u64,
    },
    Http2 {
        reply: Reply,
        /// The client waits to be asked for the body.
        expecting: bool,
    },
}

impl Way {
    /// The way back of a client's request. `interims`: its connection's.
    pub(super) fn to_client(request: &mut Parts, interims: &Arc<Interims>) -> Self {
        match (request.version, request.extensions.remove()) {
            (Version::HTTP_2, Some(reply)) => Self::Http2 {
                reply,
                expecting: expects_continue(&request.headers),
            },
            (Version::HTTP_11, _) => Self::Http1 {
                interims: Arc::clone(interims),
                request: interims.lock().request,
            },
            _ => Self::None,
        }
    }

    /// Makes those that come for a request over HTTP/1.1 go this way.
    pub(crate) fn take<B>(&self, request: &mut Request<B>) {
        if !matches!(self, Self::None) {
            let way = self.clone();
            hyper::ext::on_informational(request, move |response| {
                way.pass(response.status(), response.headers());
            });
        }
    }

    /// Passes one on.
    pub(crate) fn pass(&self, status: StatusCode, fields: &HeaderMap) {
        if [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS].contains(&status) {
            return;
        }
        let mut fields = fields.clone();
        prepare_response(&mut fields);
        match self {
            Self::None => {}
            Self::Http1 { interims, request } => interims.add(*request, head(status, &fields)),
            Self::Http2 { reply, .. } => reply.say(status, fields),
        }
    }

    /// Waits for a request's final response, until what comes before it has been said.
    pub(super) async fn before<T>(&self, response: impl Future<Output = T>) -> T {
        match self {
            Self::Http1 { interims, .. } => interims.before(response).await,
            Self::None | Self::Http2 { .. } => response.await,
        }
    }

    /// Where to ask for the body, if that is not the library's.
    pub(super) fn expecting(&self) -> Option<Reply> {
        match self {
            Self::Http2 {
                reply,
                expecting: true,
            } => Some(reply.clone()),
            _ => None,
        }
    }
}

/// RFC 9110, section 10.1.1.
fn expects_continue(fields: &HeaderMap) -> bool {
    let expectation = fields.get(header::EXPECT).map(HeaderValue::as_bytes);
    expectation.is_some_and(|it| it.eq_ignore_ascii_case(CONTINUE))
}

/// Those of one client's connection.
#[derive(Debug, Default)]
pub(crate) struct Interims {
    waiting: Mutex<Waiting>,
    came: Notify,
    gone: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Counts the requests: what comes for an earlier one is late.
    request: u64,
    heads: VecDeque<Bytes>,
    length: usize,
    /// Part of the first has been written.
    begun: bool,
}

impl Interims {
    /// Waits for a request's final response. Whoever polls this writes what comes before.
    async fn before<T>(&self, response: impl Future<Output = T>) -> T {
        let mut response = std::pin::pin!(response);
        let response = loop {
            tokio::select! {
                response = &mut response => break response,
                () = self.came.notified() => {}
            }
        };
        self.lock().request += 1;
        while !self.lock().heads.is_empty() {
            self.gone.notified().await;
        }
        response
    }

    fn add(&self, request: u64, head: Bytes) {
        let mut waiting = self.lock();
        if waiting.request == request && waiting.length + head.len() <= MOST_WAITING {
            waiting.length += head.len();
            waiting.heads.push_back(head);
            self.came.notify_one();
        }
    }

    /// Finishes one that was begun.
    pub(super) fn poll_finish(
        &self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        self.poll_write(cx, stream, false)
    }

    /// Writes those that wait.
    pub(super) fn poll_all(
        &self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        self.poll_write(cx, stream, true)
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        mut stream: Pin<&mut impl AsyncWrite>,
        begin: bool,
    ) -> Poll<io::Result<()>> {
        let mut waiting = self.lock();
        while waiting.begun || begin {
            let Some(head) = waiting.heads.front_mut() else {
                break;
            };
            let length = ready!(stream.as_mut().poll_write(cx, head))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            head.advance(length);
            let done = head.is_empty();
            waiting.length -= length;
            waiting.begun = !done;
            if done {
                waiting.heads.pop_front();
            }
            if waiting.heads.is_empty() {
                self.gone.notify_one();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn head(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_not_for_the_client_does_not_pass() {
        let interims = Arc::<Interims>::default();
        let way = Way::Http1 {
            interims: Arc::clone(&interims),
            request: 0,
        };
        let mut fields = HeaderMap::new();
        fields.insert("link", HeaderValue::from_static("</a>; rel=preload"));
        fields.insert("connection", HeaderValue::from_static("x-hop"));
        fields.insert("x-hop", HeaderValue::from_static("1"));
        for status in [100, 101, 103] {
            way.pass(StatusCode::from_u16(status).unwrap(), &fields);
        }
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
        assert_eq!(interims.lock().heads, [expected]);
    }

    #[tokio::test]
    async fn the_final_response_waits_and_what_is_late_is_dropped() {
        let interims = Interims::default();
        interims.add(0, Bytes::from_static(b"first"));
        let mut out = io::Cursor::new(Vec::new());
        {
            let mut answered = std::pin::pin!(interims.before(async { "final" }));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(answered.as_mut().poll(&mut cx).is_pending());
            // It belongs to a request that has its response.
            interims.add(0, Bytes::from_static(b"late"));
            assert!(interims.poll_finish(&mut cx, Pin::new(&mut out)).is_ready());
            assert!(out.get_ref().is_empty(), "none was begun");
            assert!(interims.poll_all(&mut cx, Pin::new(&mut out)).is_ready());
            assert_eq!(answered.await, "final");
        }
        assert_eq!(out.into_inner(), b"first");
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let interims = Interims::default();
        for _ in 0..1_000 {
            interims.add(0, vec![0; 1_000].into());
        }
        assert!(interims.lock().length <= MOST_WAITING);
    }
}
