//! The stream of an HTTP/2 connection that a tunnel is on, as bytes both ways.
//!
//! END_STREAM is an end, and nothing else is: a reset, whatever its code, would make what was cut
//! short look complete. A stream that is let go of before both its ends is reset with CANCEL.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::http::http2::sending::poll_room;

/// A client's end of a tunnel over HTTP/2.
pub(super) struct Stream {
    receiving: RecvStream,
    sending: SendStream<Bytes>,
    /// Received and not read yet.
    unread: Bytes,
    /// The client has sent everything.
    received: bool,
    /// Everything has been sent to the client.
    sent: bool,
}

impl Stream {
    pub(super) fn new(receiving: RecvStream, sending: SendStream<Bytes>) -> Self {
        Self {
            receiving,
            sending,
            unread: Bytes::new(),
            received: false,
            sent: false,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What is complete but not delivered yet would be lost, too.
        if !(self.received && self.sent) {
            self.sending.send_reset(Reason::CANCEL);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.received {
            match ready!(self.receiving.poll_data(cx)) {
                Some(data) => self.unread = data.map_err(broken)?,
                None => self.received = true,
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        // Only a stream that is closed has no window.
        let _ = self.receiving.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(poll_room(&mut self.sending, cx)).map_err(broken)?;
        let data = Bytes::copy_from_slice(bytes);
        self.sending.send_data(data, false).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection writes what it has by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sent {
            self.sending.send_data(Bytes::new(), true).map_err(broken)?;
            self.sent = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
