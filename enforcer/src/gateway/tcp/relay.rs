//! Bytes both ways, with half-closed connections kept.
//!
//! Each direction has one buffer of fixed size, and reads only after it has written: who reads
//! slowly is written to slowly. The end of one direction is passed on as the end of that direction
//! alone (close_notify and FIN towards TLS). What is no end is an error, and stays one: TLS that
//! stops without close_notify, and everything after a cut, which [`Socket`] sees to.
//!
//! [`Socket`]: crate::gateway::socket::Socket

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use crate::{
    clock::boot_now,
    gateway::{link::Link, sessions::SessionHandle},
};

const BUFFER: usize = 32 * 1024;

/// Relays until both directions have ended.
pub(crate) async fn relay<C, U>(
    client: C,
    mut upstream: U,
    session: &SessionHandle,
    link: &Arc<Link>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Attended {
        stream: client,
        session,
        link,
    };
    copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}

/// A client's stream: what is read from it is the session's activity. Handshakes, alerts and key
/// updates of TLS are not read from it, and don't count.
struct Attended<'a, S> {
    stream: S,
    session: &'a SessionHandle,
    link: &'a Arc<Link>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Attended<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.session.activity().note(self.link, boot_now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attended<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
