//! Where bytes wait while their session is halted.
//!
//! ```text
//!               limit                 renewed in time
//!   passing ----------> waiting -----------------------> passing
//!                          |  over: ended, or the warden is silent
//!                          +-----------------------> an error, for good
//! ```

use std::{
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use crate::{
    clock::{BootInstant, boot_now},
    gateway::sessions::SessionHandle,
};

type Decision = Pin<Box<dyn Future<Output = ()> + Send>>;

/// For one direction.
#[derive(Default)]
pub(super) struct Gate(Mutex<Option<Decision>>);

/// Nothing passes any more.
#[derive(Debug, thiserror::Error)]
#[error("the session is over")]
pub(super) struct SessionOver;

impl From<SessionOver> for io::Error {
    fn from(over: SessionOver) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, over)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// Ready while the session goes on; pending while it is halted; an error once it is over.
    /// `halted` is the session, if it is halted at an instant.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
        halted: impl Fn(BootInstant) -> Option<SessionHandle>,
    ) -> Poll<Result<(), SessionOver>> {
        loop {
            let now = boot_now();
            let Some(session) = halted(now) else {
                return Poll::Ready(Ok(()));
            };
            if session.is_over(now) {
                return Poll::Ready(Err(SessionOver));
            }
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let decision =
                waiting.get_or_insert_with(|| Box::pin(async move { session.decided().await }));
            ready!(decision.as_mut().poll(cx));
            *waiting = None;
        }
    }
}
