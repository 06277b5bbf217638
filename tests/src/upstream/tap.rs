//! A stream that tells a log what comes in and how it ends.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::log::Log;

/// A tapped stream.
pub(super) struct Tap {
    stream: TcpStream,
    log: Arc<Log>,
    connection: usize,
}

impl Tap {
    pub(super) fn new(stream: TcpStream, log: Arc<Log>, connection: usize) -> Self {
        Self {
            stream,
            log,
            connection,
        }
    }

    /// Breaks off with a reset.
    pub(super) fn reset(self) -> io::Result<()> {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).map_err(Into::into)
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match (&result, buf.filled().len() - before) {
            (Ok(()), 0) => self.log.ended(self.connection, Ok(())),
            (Ok(()), bytes) => self.log.arrived(self.connection, bytes),
            (Err(error), _) => self.log.ended(self.connection, Err(error.kind())),
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        if let Err(error) = &result {
            self.log.ended(self.connection, Err(error.kind()));
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.log.closed(self.connection);
    }
}
