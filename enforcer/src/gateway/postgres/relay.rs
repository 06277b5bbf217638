//! Messages both ways, as they come: what is held is a buffer of fixed size for each direction,
//! whatever the size of a message.
//!
//! ```text
//!             Farewell, at the end of a message of the upstream's
//!   Flowing ------------------------------------------------------> Said
//!      |  ^
//!      |  | a warning, at the end of a message of the upstream's
//!      +--+
//! ```
//!
//! Each direction reads only after it has written: who reads slowly is written to slowly. Bytes are
//! passed on in as large pieces as they come in; only what the gateway has to say itself makes it
//! stop at the end of a message.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    answer,
    exchange::Exchange,
    message,
    messages::Messages,
    scanner::{Scanner, Violation},
};
use crate::{
    clock::{BootInstant, boot_now},
    gateway::{
        link::Link,
        sessions::{Phase, SessionHandle, SessionState},
    },
};

const BUFFER: usize = 32 * 1024;
/// How often a query that runs is noted, at least as often as four times in an idle timeout.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// How a relay ended well enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One side has closed, and the other has been told.
    Closed,
    /// The farewell has been said; whether the upstream still works on a query.
    Farewell { busy: bool },
    /// The client sent what is no message.
    Violated(Violation),
}

/// A connection after its login.
pub(super) struct Relay<'a, C, U> {
    client: C,
    upstream: U,
    up: Direction,
    down: Direction,
    exchange: Exchange,
    words: Words,
    /// The end that the client was last warned of.
    warned_of: Option<BootInstant>,
    session: &'a SessionHandle,
    link: &'a Arc<Link>,
}

/// One direction, and what is on its way there.
struct Direction {
    buffer: Box<[u8]>,
    /// Bytes up to here have been written, ..
    start: usize,
    /// .. up to here been looked at, ..
    scanned: usize,
    /// .. and up to here been read.
    end: usize,
    scanner: Scanner,
    /// Something has been written since the last flush.
    unflushed: bool,
}

/// What the gateway has to say to the client.
#[derive(Default)]
struct Words {
    bytes: Vec<u8>,
    said: usize,
    /// They are the last ones.
    last: bool,
}

/// Why a direction stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Its sender has closed.
    Closed,
    /// The last words have been said.
    Said,
    Violated(Violation),
}

impl<'a, C, U> Relay<'a, C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(
        client: Messages<C>,
        upstream: Messages<U>,
        session: &'a SessionHandle,
        link: &'a Arc<Link>,
    ) -> Self {
        let (client, from_client) = client.into_parts();
        let (upstream, from_upstream) = upstream.into_parts();
        Self {
            client,
            upstream,
            up: Direction::new(&from_client),
            down: Direction::new(&from_upstream),
            exchange: Exchange::default(),
            words: Words::default(),
            warned_of: None,
            session,
            link,
        }
    }

    /// Relays until a side closes, or the session's end has been announced to the client.
    pub(super) async fn run(mut self) -> io::Result<End> {
        let mut states = self.session.states();
        let state = states.borrow_and_update().clone();
        let idle_timeout = state.view.idle_timeout;
        let mut busy_interval = tokio::time::interval(
            idle_timeout.map_or(BUSY_INTERVAL, |timeout| BUSY_INTERVAL.min(timeout / 4)),
        );
        self.heed(&state);
        let stop = loop {
            tokio::select! {
                biased;
                Ok(()) = states.changed() => {
                    let state = states.borrow_and_update().clone();
                    self.heed(&state);
                }
                _ = busy_interval.tick() => if self.exchange.is_busy() {
                    self.note_activity();
                },
                stop = poll_fn(|cx| self.poll(cx)) => break stop?,
            }
        };
        self.finish(stop).await
    }

    fn heed(&mut self, state: &SessionState) {
        match state.phase {
            Phase::Warned { reason, limit } if self.warned_of != Some(limit) => {
                self.warned_of = Some(limit);
                let left = limit.saturating_duration_since(boot_now());
                self.words.say(answer::warning(reason, left));
            }
            Phase::Farewell { reason, .. } => self.words.say_last(answer::farewell(reason)),
            Phase::Alive => {
                self.warned_of = None;
                self.words.withdraw();
            }
            Phase::Warned { .. } | Phase::Ended(_) => {}
        }
    }

    fn note_activity(&self) {
        self.session.activity().note(self.link, boot_now());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stop>> {
        let Self {
            client,
            upstream,
            up,
            down,
            exchange,
            words,
            session,
            link,
            ..
        } = self;
        let heard = || session.activity().note(link, boot_now());
        let sent = |kind| exchange.sent(kind);
        let stop = up.poll(
            cx,
            &mut *client,
            &mut *upstream,
            &mut Words::default(),
            heard,
            sent,
        );
        if let Poll::Ready(stop) = stop {
            return Poll::Ready(stop);
        }
        let received = |kind| {
            let was_busy = exchange.is_busy();
            exchange.received(kind);
            if was_busy && !exchange.is_busy() {
                session.activity().note(link, boot_now());
            }
        };
        match ready!(down.poll(cx, upstream, client, words, || {}, received))? {
            Stop::Violated(violation) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)))
            }
            stop => Poll::Ready(Ok(stop)),
        }
    }

    /// Closes both sides in their own way.
    async fn finish(mut self, stop: Stop) -> io::Result<End> {
        if let Stop::Violated(violation) = stop {
            return self.say_violation(violation).await;
        }
        if !self.down.is_between_messages() {
            // An orderly end would be taken for the end of the message.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.client.shutdown().await?;
        let end = match stop {
            Stop::Said => End::Farewell {
                busy: self.exchange.is_busy(),
            },
            _ => End::Closed,
        };
        if self.up.is_between_messages() {
            // It may be gone, or not read what comes after Terminate.
            let _ = self.upstream.write_all(&message::terminate()).await;
        }
        let _ = self.upstream.shutdown().await;
        Ok(end)
    }

    async fn say_violation(mut self, violation: Violation) -> io::Result<End> {
        if self.down.is_between_messages() {
            let refusal = answer::refusal(&violation.into());
            self.client.write_all(&refusal).await?;
            self.client.shutdown().await?;
        }
        Ok(End::Violated(violation))
    }
}

impl Direction {
    /// With what has been read already.
    fn new(read: &BytesMut) -> Self {
        let mut buffer = vec![0; BUFFER.max(read.len())].into_boxed_slice();
        buffer[..read.len()].copy_from_slice(read);
        Self {
            buffer,
            start: 0,
            scanned: 0,
            end: read.len(),
            scanner: Scanner::default(),
            unflushed: false,
        }
    }

    /// Everything up to the end of a message has been passed on, and nothing after it.
    fn is_between_messages(&self) -> bool {
        self.start == self.scanned && self.scanner.is_between_messages()
    }

    /// Passes on what there is. `read` is told of bytes, `ended` of the types of messages.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        words: &mut Words,
        read: impl Fn(),
        mut ended: impl FnMut(u8),
    ) -> Poll<io::Result<Stop>> {
        loop {
            while self.start < self.scanned {
                let bytes = &self.buffer[self.start..self.scanned];
                let written = ready!(Pin::new(&mut to).poll_write(cx, bytes))?;
                self.start += some(written)?;
                self.unflushed = true;
            }
            if self.scanner.is_between_messages() {
                while let Some(rest) = words.rest() {
                    let written = ready!(Pin::new(&mut to).poll_write(cx, rest))?;
                    words.said += some(written)?;
                    self.unflushed = true;
                }
                if words.last {
                    return Poll::Ready(Ok(Stop::Said));
                }
            }
            if self.scanned < self.end {
                match self.scan(words.rest().is_some(), &mut ended) {
                    Ok(()) => continue,
                    Err(violation) => return Poll::Ready(Ok(Stop::Violated(violation))),
                }
            }
            (self.start, self.scanned, self.end) = (0, 0, 0);
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut from).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Ok(Stop::Closed));
                }
                Poll::Ready(Ok(())) => {
                    self.end = buffer.filled().len();
                    read();
                }
                // TLS that ends without close_notify: messages say themselves where they end.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(Stop::Closed));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at what has been read: at all of it, or at one message.
    fn scan(&mut self, one: bool, mut ended: impl FnMut(u8)) -> Result<(), Violation> {
        while self.scanned < self.end {
            let scanned = self.scanner.scan(&self.buffer[self.scanned..self.end])?;
            self.scanned += scanned.length;
            if let Some(kind) = scanned.ended {
                ended(kind);
                if one {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn some(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

impl Words {
    fn say(&mut self, bytes: Vec<u8>) {
        if self.rest().is_none() && !self.last {
            (self.bytes, self.said) = (bytes, 0);
        }
    }

    /// After what is being said; what has not begun is not said any more.
    fn say_last(&mut self, bytes: Vec<u8>) {
        if self.last {
            return;
        }
        self.withdraw();
        self.bytes.drain(..self.said);
        self.said = 0;
        self.bytes.extend(bytes);
        self.last = true;
    }

    /// Nothing that has not begun is said any more.
    fn withdraw(&mut self) {
        if self.said == 0 {
            *self = Self::default();
        }
    }

    fn rest(&self) -> Option<&[u8]> {
        let rest = &self.bytes[self.said..];
        (!rest.is_empty()).then_some(rest)
    }
}
