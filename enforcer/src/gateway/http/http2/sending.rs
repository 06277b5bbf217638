//! A body, sent on a stream.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body;

use crate::gateway::http::error::Fault;

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished<E> {
    /// The stream takes no more; who receives from it learns why.
    #[error("the stream was closed: {0}")]
    Closed(h2::Error),
    /// It broke off. The stream has been reset.
    #[error(transparent)]
    Body(E),
}

/// Sends a body to its end, as fast as the other side takes it.
pub(crate) async fn send<B>(
    mut stream: SendStream<Bytes>,
    body: B,
) -> Result<(), Unfinished<B::Error>>
where
    B: Body<Data = Bytes>,
    B::Error: Fault,
{
    let mut body = pin!(body);
    loop {
        let frame = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(closed(reset))),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Ok),
        });
        let frame = frame.await.map_err(Unfinished::Closed)?;
        let frame = match frame {
            None => return end(&mut stream),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                stream.send_reset(error.reason());
                return Err(Unfinished::Body(error));
            }
        };
        match frame.into_data() {
            Ok(data) if body.is_end_stream() && data.is_empty() => return end(&mut stream),
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                poll_fn(|cx| poll_room(&mut stream, cx))
                    .await
                    .map_err(Unfinished::Closed)?;
                let last = body.is_end_stream();
                stream.send_data(data, last).map_err(Unfinished::Closed)?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers).map_err(Unfinished::Closed);
                }
            }
        }
    }
}

fn end<E>(stream: &mut SendStream<Bytes>) -> Result<(), Unfinished<E>> {
    let ended = stream.send_data(Bytes::new(), true);
    ended.map_err(Unfinished::Closed)
}

/// Waits until a stream has room. Then it takes a whole piece of data, whatever its length.
///
/// It claims no more than a byte of the connection's window, and only when there is something to
/// send: what one stream holds and doesn't use, the others lack.
pub(crate) fn poll_room(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(room) => room?,
            None => {
                let Poll::Ready(reset) = stream.poll_reset(cx) else {
                    return Poll::Ready(Err(Reason::STREAM_CLOSED.into()));
                };
                return Poll::Ready(Err(closed(reset)));
            }
        };
    }
    Poll::Ready(Ok(()))
}

fn closed(reset: Result<Reason, h2::Error>) -> h2::Error {
    reset.map_or_else(|error| error, h2::Error::from)
}
