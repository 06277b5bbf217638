//! Interim responses (1xx) of HTTP/1.1 upstreams, for HTTP/1.1 clients. The HTTP library hands
//! them over, but does not send any.
//!
//! They are written when the library has written all that it has to say: what comes then is a
//! place between two responses, because a request's final response is held back until its interim
//! ones are out.
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
use http::{HeaderMap, Request, StatusCode};
use tokio::{io::AsyncWrite, sync::Notify};

use super::headers::prepare_response;

/// More that waits for one client is dropped: they are hints.
const MOST_WAITING: usize = 64 * 1024;

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
    /// Makes those that come for this request pass to the client.
    pub(super) fn pass<B>(self: &Arc<Self>, request: &mut Request<B>) {
        let number = self.lock().request;
        let interims = Arc::clone(self);
        hyper::ext::on_informational(request, move |response| {
            if response.status() != StatusCode::CONTINUE {
                interims.add(number, head(response.status(), response.headers()));
            }
        });
    }

    /// Waits for a request's final response. Whoever polls this writes what comes before.
    pub(super) async fn before<T>(&self, response: impl Future<Output = T>) -> T {
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
    let mut headers = headers.clone();
    prepare_response(&mut headers);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
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

    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_head_says_what_may_pass() {
        let mut headers = HeaderMap::new();
        headers.insert("link", HeaderValue::from_static("</a>; rel=preload"));
        headers.insert("connection", HeaderValue::from_static("x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
        assert_eq!(head(StatusCode::EARLY_HINTS, &headers), expected);
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
