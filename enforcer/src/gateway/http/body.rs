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
use h2::{Reason, SendStream};
use http::{HeaderMap, StatusCode};
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::{Fault, HttpError},
    grpc::CallBody,
    http2::{receiving::Receiving, reply::Reply},
};
use crate::{
    clock::{BootInstant, boot_now},
    gateway::{
        gate::{Gate, SessionOver},
        link::Link,
        sessions::SessionHandle,
    },
};

/// What the other side sends, in either version.
#[derive(Debug)]
pub(crate) enum Received {
    Http1(Incoming),
    Http2(Receiving),
}

impl Body for Received {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(HttpError::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(HttpError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// To the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// The gateway's own answer.
    Whole(Full<Bytes>),
    /// An upstream's.
    Forwarded(Received),
    /// An upstream's, to a gRPC call.
    Call(CallBody),
    /// The gateway's own, as it comes.
    Events(mpsc::Receiver<Bytes>),
    /// None: the client's HTTP/2 stream becomes a tunnel.
    Tunnel(oneshot::Sender<SendStream<Bytes>>),
}

impl ResponseBody {
    pub(crate) fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(text.into()))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|impossible| match impossible {}),
            Self::Forwarded(body) => Pin::new(body).poll_frame(cx),
            Self::Call(body) => body.poll_frame(cx),
            Self::Events(events) => events
                .poll_recv(cx)
                .map(|text| Some(Ok(Frame::data(text?)))),
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Forwarded(body) => body.is_end_stream(),
            Self::Call(body) => body.is_end_stream(),
            Self::Events(_) | Self::Tunnel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Forwarded(body) => body.size_hint(),
            // A call may end before the upstream has said all.
            Self::Call(_) | Self::Events(_) | Self::Tunnel(_) => SizeHint::default(),
        }
    }
}

/// To an upstream.
pub(crate) type RequestBody = Either<Empty<Bytes>, SessionBody>;

/// Why a request's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    SessionOver(#[from] SessionOver),
    #[error(transparent)]
    Client(#[from] HttpError),
}

impl Fault for BodyError {
    fn reason(&self) -> Reason {
        match self {
            Self::SessionOver(_) => Reason::INTERNAL_ERROR,
            Self::Client(error) => error.reason(),
        }
    }
}

/// A client's request body: passes while the session lives, and counts as its activity.
#[derive(Debug)]
pub(crate) struct SessionBody {
    body: Received,
    /// To a client that waits to be asked for the body.
    expecting: Option<Reply>,
    session: SessionHandle,
    gate: Gate,
    link: Arc<Link>,
    progress: Arc<Progress>,
}

impl SessionBody {
    pub(crate) fn new(
        body: Received,
        expecting: Option<Reply>,
        session: SessionHandle,
        link: Arc<Link>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            body,
            expecting,
            session,
            gate: Gate::default(),
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
        let halted = |now| this.session.is_halted(now).then(|| this.session.clone());
        if let Err(over) = ready!(this.gate.poll(cx, halted)) {
            return Poll::Ready(Some(Err(over.into())));
        }
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        // Who has begun to send does not wait.
        if let Some(reply) = this.expecting.take().filter(|_| frame.is_pending()) {
            reply.say(StatusCode::CONTINUE, HeaderMap::new());
        }
        let frame = ready!(frame);
        let now = boot_now();
        if this.session.is_over(now) {
            return Poll::Ready(Some(Err(SessionOver.into())));
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

/// When something last went on: a request towards its upstream, or an upstream's connection.
#[derive(Debug)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    pub(crate) fn new(now: BootInstant) -> Self {
        Self(AtomicU64::new(now.as_nanos()))
    }

    pub(crate) fn last(&self) -> BootInstant {
        BootInstant::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn note(&self, now: BootInstant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }
}
