//! A client's HTTP/2 connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{self, Handshake},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::stream;
use crate::gateway::connection::ConnectionContext;

/// Serves a connection, until it is polled to its end.
pub(crate) struct Connection<S> {
    context: Arc<ConnectionContext>,
    state: State<S>,
    leaving: bool,
}

enum State<S> {
    Beginning(Handshake<S, Bytes>),
    Serving(server::Connection<S, Bytes>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Begins HTTP/2 on a stream, with the limits of [`http2`](super).
    pub(crate) fn new(context: Arc<ConnectionContext>, stream: S) -> Self {
        Self {
            context,
            state: State::Beginning(super::server().handshake(stream)),
            leaving: false,
        }
    }

    /// Takes no more requests than are under way, and says so with GOAWAY.
    pub(crate) fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.leaving = true;
        if let State::Serving(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Ends at once, and says with GOAWAY that the client is to calm down.
    pub(crate) fn calm_down(mut self: Pin<&mut Self>) {
        if let State::Serving(connection) = &mut self.state {
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Beginning(handshake) => {
                    let mut connection = ready!(Pin::new(handshake).poll(cx))?;
                    if this.leaving {
                        connection.graceful_shutdown();
                    }
                    this.state = State::Serving(connection);
                }
                State::Serving(connection) => {
                    let Some(next) = ready!(connection.poll_accept(cx)) else {
                        return Poll::Ready(Ok(()));
                    };
                    let (request, sender) = next?;
                    let context = Arc::clone(&this.context);
                    tokio::spawn(stream::serve(context, request, sender));
                }
            }
        }
    }
}
