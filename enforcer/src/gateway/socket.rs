//! A TCP socket that serves a session, and stops when the session does.
//!
//! At the session's limit reading and writing halt. Once the session is over both are errors, an
//! end of stream is an error too, and the socket closes with a reset: whatever layers lie above,
//! none of them can take a cut for an orderly end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::RecvFlags;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::{
    clock::{BootInstant, boot_now},
    gateway::{
        gate::{Gate, SessionOver},
        sessions::{Ended, SessionHandle},
    },
};

/// How long a closing connection may still say what nobody reads.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// A shared handle to the socket, which closes with the last one.
#[derive(Debug)]
pub(crate) struct Socket {
    shared: Arc<Shared>,
    reading: Gate,
    writing: Gate,
}

impl Clone for Socket {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.shared))
    }
}

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    session: Mutex<Option<SessionHandle>>,
    /// An error has been seen. The kernel reports a reset once, and an end of stream from then on.
    failed: AtomicBool,
    /// Something has been read since this was last cleared.
    received: AtomicBool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self::of(Arc::new(Shared {
            stream,
            session: Mutex::new(None),
            failed: AtomicBool::new(false),
            received: AtomicBool::new(false),
        }))
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            reading: Gate::default(),
            writing: Gate::default(),
        }
    }

    /// The socket's cookie, by which the warden knows it.
    pub(crate) fn cookie(&self) -> io::Result<u64> {
        Ok(rustix::net::sockopt::socket_cookie(&self.shared.stream)?)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.stream.local_addr()
    }

    /// Waits for the first byte, and leaves it there. `None`: there is none.
    pub(crate) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let length = self.peek(&mut byte).await?;
        Ok((length > 0).then_some(byte[0]))
    }

    /// Waits for bytes, and leaves them there. 0: there are none.
    pub(crate) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.shared.stream.peek(buffer).await
    }

    /// From now on the socket serves this session.
    pub(crate) fn serve(&self, session: &SessionHandle) {
        *self.shared.session() = Some(session.clone());
        self.shared.received.store(false, Ordering::Relaxed);
    }

    /// From now on the socket serves no session.
    pub(crate) fn release(&self) {
        *self.shared.session() = None;
    }

    /// Something has been read since the socket began to serve the session.
    pub(crate) fn has_received(&self) -> bool {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// The socket will close with a reset.
    pub(crate) fn reset(&self, _proof: Ended) {
        self.abort();
    }

    /// The same, for a peer that has broken off.
    pub(crate) fn abort(&self) {
        self.shared.reset_on_close();
    }

    /// Reads off what the peer still sends after this side has closed: unread data would turn
    /// the close into a reset, and the peer would lose the answer.
    pub(crate) async fn linger(&self) {
        let drain = async {
            let mut scratch = [0; 4096];
            let mut left = LINGER_BYTES;
            while left > 0 && self.shared.stream.readable().await.is_ok() {
                match self.shared.stream.try_read(&mut scratch) {
                    Ok(0) => return,
                    Ok(length) => left = left.saturating_sub(length),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // Running into the limit is as good as an end.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, drain).await;
    }
}

impl Shared {
    fn session(&self) -> MutexGuard<'_, Option<SessionHandle>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, if it is halted.
    fn halted(&self, now: BootInstant) -> Option<SessionHandle> {
        let session = self.session();
        session
            .as_ref()
            .filter(|session| session.is_halted(now))
            .cloned()
    }

    fn is_halted(&self) -> bool {
        self.halted(boot_now()).is_some()
    }

    fn reset_on_close(&self) {
        // Fails only for a socket that is no longer connected, which then needs no reset.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    fn read(&self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let wanted = buffer.remaining();
        let length = self.receive(buffer.initialize_unfilled())?;
        let ended = length == 0 && wanted > 0;
        if ended && (self.is_halted() || self.failed.load(Ordering::Relaxed)) {
            return Err(SessionOver.into());
        }
        self.received.fetch_or(length > 0, Ordering::Relaxed);
        buffer.advance(length);
        Ok(())
    }

    /// Less than there is room for is all that there is: the kernel is not asked again before it has
    /// said that there is more. That saves a system call for each message of a conversation.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len();
        let mut received = None;
        let result = self.stream.try_io(Interest::READABLE, || {
            let (length, _) = rustix::net::recv(&self.stream, buffer, RecvFlags::empty())?;
            received = Some(length);
            match length {
                1.. if length < wanted => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match received {
            Some(length) => Ok(length),
            None => result.map(|()| 0),
        }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_halted() {
            self.reset_on_close();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.shared;
        loop {
            ready!(self.reading.poll(cx, |now| shared.halted(now)))?;
            ready!(shared.stream.poll_read_ready(cx))?;
            match shared.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(shared.note(result)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &self.shared;
        loop {
            ready!(self.writing.poll(cx, |now| shared.halted(now)))?;
            ready!(shared.stream.poll_write_ready(cx))?;
            // send(2) is cheaper than writev(2), and most writes are of one piece.
            let written = match slices {
                [slice] => shared.stream.try_write(slice),
                slices => shared.stream.try_write_vectored(slices),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(shared.note(result)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writing.poll(cx, |now| self.shared.halted(now)))?;
        let result = rustix::net::shutdown(&self.shared.stream, rustix::net::Shutdown::Write);
        Poll::Ready(result.map_err(io::Error::from))
    }
}
