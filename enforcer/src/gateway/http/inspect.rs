//! A client's HTTP/1.1 connection, with the head inspector in front of the HTTP library, and a way
//! for interim responses past it.
//!
//! A request that the inspector refuses is replaced by one that only says so: the library answers
//! what came before it first, then hands the replacement to the service, which answers 400. After
//! that nothing is read any more.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    head::{HeadFault, HeadInspector},
    interim::Interims,
};

/// Target of the replacement.
pub(crate) const FAULT_TARGET: &str = "/.well-known/enforcer/fault";
const REPLACEMENT: &str =
    "GET /.well-known/enforcer/fault HTTP/1.1\r\nhost: fault\r\nconnection: close\r\n\r\n";
const READ_SIZE: usize = 16 * 1024;

/// What the service and the read side tell each other.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    fault: OnceLock<HeadFault>,
    raw: AtomicBool,
    flooded: AtomicBool,
    interims: Arc<Interims>,
}

impl Inspection {
    /// Why the connection's last request is refused.
    pub(crate) fn fault(&self) -> Option<HeadFault> {
        self.fault.get().copied()
    }

    /// What the client sends from now on is not HTTP.
    pub(crate) fn become_raw(&self) {
        self.raw.store(true, Ordering::Release);
    }

    pub(crate) fn is_raw(&self) -> bool {
        self.raw.load(Ordering::Acquire)
    }

    /// The client has sent too many frames that carry nothing.
    pub(crate) fn flood(&self) {
        self.flooded.store(true, Ordering::Release);
    }

    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Acquire)
    }

    /// What is said before the response to the connection's request.
    pub(super) fn interims(&self) -> &Arc<Interims> {
        &self.interims
    }
}

/// A client's stream.
#[derive(Debug)]
pub(crate) struct Inspected<S> {
    stream: S,
    inspector: HeadInspector,
    inspection: Arc<Inspection>,
    /// Read and not passed on; the first `released` bytes may be.
    buffer: BytesMut,
    released: usize,
    at_end: bool,
}

impl<S> Inspected<S> {
    pub(crate) fn new(stream: S, inspection: Arc<Inspection>) -> Self {
        Self {
            stream,
            inspector: HeadInspector::default(),
            inspection,
            buffer: BytesMut::new(),
            released: 0,
            at_end: false,
        }
    }

    /// Gives back what was read and not used.
    pub(crate) fn put_back(&mut self, unused: &[u8]) {
        let mut buffer = BytesMut::from(unused);
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
        self.released += unused.len();
    }

    fn release(&mut self) {
        if self.inspection.is_raw() {
            self.inspector.become_raw();
        }
        match self.inspector.inspect(&self.buffer) {
            Ok(length) => self.released = length,
            Err(fault) => {
                if self.inspection.fault.set(fault).is_ok() {
                    self.buffer.clear();
                    self.buffer.extend_from_slice(REPLACEMENT.as_bytes());
                    self.released = self.buffer.len();
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Inspected<S> {
    /// Reads what needs no look straight into the reader's buffer.
    fn poll_read_unseen(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        limit: usize,
    ) -> Poll<io::Result<()>> {
        let limit = limit.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let length = part.filled().len();
        buffer.advance(length);
        self.inspector.pass(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inspected<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.released > 0 {
                let length = this.released.min(buffer.remaining());
                buffer.put_slice(&this.buffer[..length]);
                this.buffer.advance(length);
                this.released -= length;
                return Poll::Ready(Ok(()));
            }
            if this.inspection.fault().is_some() {
                return Poll::Pending;
            }
            if !this.buffer.is_empty() {
                this.release();
                if this.released > 0 {
                    continue;
                }
                if this.inspector.is_holding() {
                    // More room for what nobody has asked for yet is not needed. Who asks, asks
                    // after the CONNECT has been granted.
                    return Poll::Pending;
                }
            }
            if this.at_end {
                return Poll::Ready(Ok(()));
            }
            let unseen = usize::try_from(this.inspector.unseen()).unwrap_or(usize::MAX);
            if this.buffer.is_empty() && unseen > 0 {
                return this.poll_read_unseen(cx, buffer, unseen);
            }
            let start = this.buffer.len();
            this.buffer.resize(start + READ_SIZE, 0);
            let mut space = ReadBuf::new(&mut this.buffer[start..]);
            let result = Pin::new(&mut this.stream).poll_read(cx, &mut space);
            let length = space.filled().len();
            this.buffer.truncate(start + length);
            ready!(result)?;
            this.at_end = length == 0;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inspected<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut stream = Pin::new(&mut this.stream);
        ready!(this.inspection.interims.poll_finish(cx, stream.as_mut()))?;
        stream.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut stream = Pin::new(&mut this.stream);
        ready!(this.inspection.interims.poll_finish(cx, stream.as_mut()))?;
        stream.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut stream = Pin::new(&mut this.stream);
        ready!(this.inspection.interims.poll_all(cx, stream.as_mut()))?;
        stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_doubtful_request_is_replaced_after_what_came_before() {
        let (mut client, server) = tokio::io::duplex(1024);
        let inspection = Arc::new(Inspection::default());
        let mut inspected = Inspected::new(server, Arc::clone(&inspection));
        let good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        client.write_all(good).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\n\n").await.unwrap();
        let mut read = vec![0; good.len() + REPLACEMENT.len()];
        inspected.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [good, REPLACEMENT.as_bytes()].concat());
        assert_eq!(inspection.fault(), Some(HeadFault::LineEnding));
    }

    #[tokio::test]
    async fn after_a_switch_everything_passes() {
        let (mut client, server) = tokio::io::duplex(1024);
        let inspection = Arc::new(Inspection::default());
        let mut inspected = Inspected::new(server, Arc::clone(&inspection));
        inspection.become_raw();
        client.write_all(b"\n\0\xff").await.unwrap();
        drop(client);
        let mut read = Vec::new();
        inspected.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\n\0\xff");
    }

    #[test]
    fn the_replacement_has_the_target() {
        assert!(REPLACEMENT.starts_with(&format!("GET {FAULT_TARGET} HTTP/1.1\r\n")));
    }
}
