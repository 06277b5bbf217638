//! A client's HTTP/2 connection, watched for floods of frames that carry nothing.
//!
//! Who sends too many of them is told so with GOAWAY, if what was said before is said whole, and
//! nothing more is read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    frames::{Allowance, FrameFollower, calm_down},
    inspect::Inspection,
};
use crate::clock::boot_now;

/// A client's stream.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    received: FrameFollower,
    sent: FrameFollower,
    allowance: Allowance,
    last_stream: u32,
    inspection: Arc<Inspection>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, inspection: Arc<Inspection>) -> Self {
        Self {
            stream,
            received: FrameFollower::of_client(),
            sent: FrameFollower::of_server(),
            allowance: Allowance::new(boot_now()),
            last_stream: 0,
            inspection,
        }
    }

    /// Looks at what was read. False if it is too much.
    fn look_at(&mut self, bytes: &[u8]) -> bool {
        let now = boot_now();
        let (allowance, last_stream) = (&mut self.allowance, &mut self.last_stream);
        let mut allowed = Ok(());
        self.received.follow(bytes, |head| {
            *last_stream = head.stream.max(*last_stream);
            allowed = allowed.and(allowance.received(head, now));
        });
        allowed.is_ok()
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        let allowance = &mut self.allowance;
        self.sent.follow(bytes, |head| allowance.sent(head));
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Tells the client why it is not heard any more. If it can't take that now, it never will.
    fn tell_to_calm_down(&mut self, cx: &mut Context<'_>) {
        if self.sent.is_between_frames() {
            let frame = calm_down(self.last_stream);
            if Pin::new(&mut self.stream).poll_write(cx, &frame).is_ready() {
                let _ = Pin::new(&mut self.stream).poll_flush(cx);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if this.look_at(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(before);
        this.inspection.flood();
        this.tell_to_calm_down(cx);
        Poll::Ready(Err(io::Error::other("too many control frames")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.note_sent(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        let mut left = length;
        for slice in slices {
            let part = left.min(slice.len());
            this.note_sent(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
