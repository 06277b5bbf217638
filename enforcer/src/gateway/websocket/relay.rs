//! Bytes of a WebSocket, both ways, with an eye on its frames.
//!
//! ```text
//!            Farewell, at the end of a message       upstream closes
//!   Flowing ----------------------------------> Said --------------> closed
//!      |  to the client: everything             to the client: nothing any more
//!      |  to the upstream: everything           to the upstream: everything
//!      |
//!      |  a frame that is none: close 1002, and a record of it
//!      +----------------------------------> closed
//! ```
//!
//! Each direction has one buffer of fixed size, and reads only after it has written: who reads
//! slowly is written to slowly, and read from slowly.

use std::{io, pin::pin, sync::Arc, time::Duration};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
};
use tracing::debug;

use super::frame::{FrameKind, FrameScanner, Sender, close_frame};
use crate::{
    clock::boot_now,
    gateway::{connection::ConnectionContext, rejection::Rejection, stages::Bound},
};

const BUFFER: usize = 32 * 1024;
/// After one side has closed, how long the other may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

const POLICY_VIOLATION: u16 = 1008;
const PROTOCOL_ERROR: u16 = 1002;

/// A WebSocket that has been switched to.
pub(crate) struct Relay {
    connection: Arc<ConnectionContext>,
    bound: Bound,
    extensions: bool,
}

impl Relay {
    pub(crate) fn new(
        connection: &Arc<ConnectionContext>,
        bound: &Bound,
        extensions: bool,
    ) -> Self {
        Self {
            connection: Arc::clone(connection),
            bound: bound.clone(),
            extensions,
        }
    }

    /// Relays in a task of its own, until either side closes or the session ends.
    pub(crate) fn spawn(self, client: OnUpgrade, upstream: OnUpgrade) {
        tokio::spawn(async move {
            let session = self.bound.session();
            let socket = self.connection.client.socket();
            let relaying = async {
                let client = client.await.map_err(io::Error::other)?;
                let upstream = upstream.await.map_err(io::Error::other)?;
                self.run(client, upstream).await
            };
            let result = tokio::select! {
                result = relaying => result,
                proof = session.ended() => return socket.reset(proof),
            };
            if session.is_over(boot_now()) {
                return socket.reset(session.ended().await);
            }
            match result {
                Ok(()) => socket.linger().await,
                Err(error) => {
                    debug!(%error, "a WebSocket broke off");
                    socket.abort();
                }
            }
        });
    }

    async fn run(&self, client: Upgraded, upstream: Upgraded) -> io::Result<()> {
        let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
        let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
        let (violated, violation) = oneshot::channel();
        let mut up = pin!(self.up(client_read, upstream_write, violated));
        let down = Down {
            relay: self,
            client: client_write,
            scanner: FrameScanner::new(Sender::Server, self.extensions),
            goodbye: None,
        };
        let mut down = pin!(down.run(upstream_read, violation));
        let rest = tokio::select! {
            end = &mut up => {
                end?;
                tokio::time::timeout(CLOSE_TIMEOUT, down).await
            }
            end = &mut down => match end? {
                End::Violated => return Ok(()),
                End::Closed => tokio::time::timeout(CLOSE_TIMEOUT, up).await,
            }
        };
        rest.unwrap_or(Ok(End::Closed)).map(drop)
    }

    /// From the client to the upstream.
    async fn up<R, W>(
        &self,
        mut client: R,
        mut upstream: W,
        violated: oneshot::Sender<()>,
    ) -> io::Result<End>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let session = self.bound.session();
        let mut scanner = FrameScanner::new(Sender::Client, self.extensions);
        let mut buffer = vec![0; BUFFER];
        let mut kind = FrameKind::Control;
        loop {
            let length = client.read(&mut buffer).await?;
            let now = boot_now();
            if session.is_halted(now) {
                session.decided().await;
                if session.is_over(boot_now()) {
                    // Whatever this is, it came after the end, or is what the cut looks like.
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            if length == 0 {
                upstream.shutdown().await?;
                return Ok(End::Closed);
            }
            let mut rest = &buffer[..length];
            let mut active = false;
            while !rest.is_empty() {
                let scanned = match scanner.scan(rest) {
                    Ok(scanned) => scanned,
                    Err(violation) => {
                        self.report(&Rejection::WebSocket(violation));
                        // The other direction may be over already, and with it the need to tell.
                        let _ = violated.send(());
                        return Ok(End::Violated);
                    }
                };
                kind = scanned.started.unwrap_or(kind);
                active |= kind == FrameKind::Data;
                rest = &rest[scanned.length..];
            }
            if active {
                session.activity().note(&self.connection.gateway.link, now);
            }
            upstream.write_all(&buffer[..length]).await?;
            upstream.flush().await?;
        }
    }

    fn report(&self, rejection: &Rejection) {
        let principal = self.bound.principal().clone();
        self.connection.report(rejection, Some(principal));
    }
}

/// How a direction ended well enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Violated,
}

/// From the upstream to the client.
struct Down<'a, W> {
    relay: &'a Relay,
    client: W,
    scanner: FrameScanner,
    goodbye: Option<Goodbye>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    /// Between two messages.
    Expired,
    /// Between two frames.
    Violation,
}

impl<W: AsyncWrite + Unpin> Down<'_, W> {
    async fn run<R>(
        mut self,
        mut upstream: R,
        mut violation: oneshot::Receiver<()>,
    ) -> io::Result<End>
    where
        R: AsyncRead + Unpin,
    {
        let mut farewell = pin!(self.relay.bound.session().farewell());
        let mut buffer = vec![0; BUFFER];
        let mut intact = true;
        loop {
            if let Some(end) = self.say_goodbye().await? {
                return match end {
                    End::Closed => self.discard(upstream, buffer).await,
                    End::Violated => Ok(End::Violated),
                };
            }
            let length = tokio::select! {
                biased;
                () = &mut farewell, if self.goodbye.is_none() => {
                    self.goodbye = Some(Goodbye::Expired);
                    continue;
                }
                result = &mut violation, if intact => {
                    intact = false;
                    if result.is_ok() {
                        self.goodbye = Some(Goodbye::Violation);
                    }
                    continue;
                }
                length = upstream.read(&mut buffer) => length?,
            };
            if length == 0 {
                self.client.shutdown().await?;
                return Ok(End::Closed);
            }
            if self.pass(&buffer[..length]).await? == End::Violated {
                return Ok(End::Violated);
            }
        }
    }

    /// Passes bytes on, no further than the goodbye.
    async fn pass(&mut self, bytes: &[u8]) -> io::Result<End> {
        let mut passed = 0;
        while passed < bytes.len() && !self.may_say_goodbye() {
            let between_frames = self.scanner.between_frames();
            match self.scanner.scan(&bytes[passed..]) {
                Ok(scanned) => passed += scanned.length,
                Err(violation) => {
                    let rejection = Rejection::UpstreamInvalid(violation.into());
                    self.relay.report(&rejection);
                    self.client.write_all(&bytes[..passed]).await?;
                    if between_frames {
                        self.close(PROTOCOL_ERROR, "protocol error").await?;
                    }
                    return Ok(End::Violated);
                }
            }
        }
        self.client.write_all(&bytes[..passed]).await?;
        self.client.flush().await?;
        Ok(End::Closed)
    }

    fn may_say_goodbye(&self) -> bool {
        match self.goodbye {
            Some(Goodbye::Expired) => self.scanner.between_messages(),
            Some(Goodbye::Violation) => self.scanner.between_frames(),
            None => false,
        }
    }

    async fn say_goodbye(&mut self) -> io::Result<Option<End>> {
        if !self.may_say_goodbye() {
            return Ok(None);
        }
        match self.goodbye {
            Some(Goodbye::Expired) => {
                let close = close_frame(POLICY_VIOLATION, "session expired");
                self.client.write_all(&close).await?;
                self.client.flush().await?;
                Ok(Some(End::Closed))
            }
            _ => {
                self.close(PROTOCOL_ERROR, "protocol error").await?;
                Ok(Some(End::Violated))
            }
        }
    }

    async fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        self.client.write_all(&close_frame(code, reason)).await?;
        self.client.flush().await?;
        self.client.shutdown().await
    }

    /// After the goodbye: nothing more for the client, until the upstream closes.
    async fn discard<R>(mut self, mut upstream: R, mut buffer: Vec<u8>) -> io::Result<End>
    where
        R: AsyncRead + Unpin,
    {
        while upstream.read(&mut buffer).await? > 0 {}
        self.client.shutdown().await?;
        Ok(End::Closed)
    }
}
