//! Bodies, streamed.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::{
    clock::{BootInstant, boot_now},
    gateway::{link::Link, sessions::SessionHandle},
};

/// To the client.
pub(crate) type ResponseBody = Either<Full<Bytes>, Incoming>;
/// To an upstream.
pub(crate) type RequestBody = Either<Empty<Bytes>, SessionBody>;

/// Why a request's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the session is over")]
    SessionOver,
    #[error(transparent)]
    Client(#[from] hyper::Error),
}

/// A client's request body: passes while the session lives, and counts as its activity.
#[derive(Debug)]
pub(crate) struct SessionBody {
    body: Incoming,
    session: SessionHandle,
    link: Arc<Link>,
    progress: Arc<Progress>,
}

impl SessionBody {
    pub(crate) fn new(
        body: Incoming,
        session: SessionHandle,
        link: Arc<Link>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            body,
            session,
            link,
            progress,
        }
    }
}

impl Body for SessionBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let now = boot_now();
        if this.session.is_over(now) {
            return Poll::Ready(Some(Err(BodyError::SessionOver)));
        }
        if let Some(Ok(_)) = &frame {
            this.session.activity().note(&this.link, now);
            this.progress.note(now);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// When a request last made progress towards its upstream.
#[derive(Debug)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    pub(crate) fn new(now: BootInstant) -> Self {
        Self(AtomicU64::new(now.as_nanos()))
    }

    pub(crate) fn last(&self) -> BootInstant {
        BootInstant::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn note(&self, now: BootInstant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }
}
