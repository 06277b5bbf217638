//! What may be said to a request before its answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response, StatusCode};
use tracing::debug;

use crate::gateway::http::interim::MOST_WAITING;

/// What RFC 9113, section 6.5.2, counts for each field besides its bytes.
const FIELD_OVERHEAD: usize = 32;

/// The reply to one request, from its interim responses to the final one.
#[derive(Clone, Debug)]
pub(crate) struct Reply(Arc<Mutex<Option<Open>>>);

/// The final response has not been given yet.
#[derive(Debug)]
struct Open {
    sender: SendResponse<Bytes>,
    /// Bytes of interim responses that may still be said: how many of them wait for the client,
    /// the library does not tell.
    left: usize,
}

impl Reply {
    pub(super) fn new(sender: SendResponse<Bytes>) -> Self {
        let left = MOST_WAITING;
        Self(Arc::new(Mutex::new(Some(Open { sender, left }))))
    }

    /// Says an interim response, unless it is too late, or too much.
    pub(crate) fn say(&self, status: StatusCode, fields: HeaderMap) {
        let mut reply = self.lock();
        let Some(open) = reply.as_mut() else {
            return;
        };
        let lengths = fields
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
        let length = lengths.sum::<usize>() + FIELD_OVERHEAD;
        let Some(left) = open.left.checked_sub(length) else {
            return;
        };
        open.left = left;
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        if let Err(error) = open.sender.send_informational(response) {
            debug!(%error, "an interim response was not sent");
        }
    }

    /// Waits until the client does not want it any more.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(open) = self.lock().as_mut() {
            // Its reason, or the connection's error: all the same.
            let _ = ready!(open.sender.poll_reset(cx));
        }
        Poll::Ready(())
    }

    /// Ends the time of interim responses.
    pub(super) fn close(&self) -> Option<SendResponse<Bytes>> {
        self.lock().take().map(|open| open.sender)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
