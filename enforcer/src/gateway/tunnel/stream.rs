//! The stream of an HTTP/2 connection that a tunnel is on, as bytes both ways.
//!
//! END_STREAM of a DATA frame is an end, and nothing else is: a reset, whatever its code, or trailers
//! would make what was cut short look complete. A stream that is let go of before both its ends is
//! reset with CONNECT_ERROR, and one with trailers with PROTOCOL_ERROR (RFC 9113, section 8.5).

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::http::http2::sending::poll_room;

/// A client's end of a tunnel over HTTP/2.
pub(super) struct Stream {
    receiving: RecvStream,
    sending: Sending,
    /// Received and not read yet.
    unread: Bytes,
    /// The client has sent everything.
    received: bool,
    /// Everything has been sent to the client.
    sent: bool,
    /// What it is reset with, unless both are so.
    fault: Reason,
}

/// What is sent to the client, and whether it wants it.
#[derive(Clone)]
pub(super) struct Sending(Arc<Mutex<SendStream<Bytes>>>);

impl Sending {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Waits until the client has reset the stream: who has ended its own direction is not read from
    /// any more, and may have nothing sent to it for long.
    pub(super) async fn given_up(&self) -> io::Error {
        let reset = poll_fn(|cx| self.lock().poll_reset(cx)).await;
        broken(reset.map_or_else(|error| error, h2::Error::from))
    }

    fn lock(&self) -> MutexGuard<'_, SendStream<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    pub(super) fn new(receiving: RecvStream, sending: Sending) -> Self {
        Self {
            receiving,
            sending,
            unread: Bytes::new(),
            received: false,
            sent: false,
            fault: Reason::CONNECT_ERROR,
        }
    }

    /// No more data comes. Trailers may have ended it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let trailers = ready!(self.receiving.poll_trailers(cx)).map_err(broken)?;
        Poll::Ready(match trailers {
            None => Ok(true),
            Some(_) => {
                self.fault = Reason::PROTOCOL_ERROR;
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "trailers in a tunnel",
                ))
            }
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What is complete but not delivered yet would be lost, too.
        if !(self.received && self.sent) {
            self.sending.lock().send_reset(self.fault);
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
                None => self.received = ready!(self.poll_end(cx))?,
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut sending = self.sending.lock();
        ready!(poll_room(&mut sending, cx)).map_err(broken)?;
        let data = Bytes::copy_from_slice(bytes);
        sending.send_data(data, false).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection writes what it has by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sent {
            let ended = self.sending.lock().send_data(Bytes::new(), true);
            ended.map_err(broken)?;
            self.sent = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
