//! What comes on a stream, as a body.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header};
use hyper::body::{Body, Frame, SizeHint};

use crate::{
    clock::boot_now,
    gateway::http::{body::Progress, head},
};

/// A body that comes on a stream. Its window opens as far as data is taken.
#[derive(Debug)]
pub(crate) struct Receiving {
    stream: RecvStream,
    /// Bytes that are to come, if the head said so.
    left: Option<u64>,
    at_trailers: bool,
    /// Kept as long as something may come, and told when it does.
    heard: Option<Arc<Progress>>,
}

impl Receiving {
    /// The body that follows a head.
    pub(crate) fn new(stream: RecvStream, head: &HeaderMap) -> Self {
        let none = stream.is_end_stream().then_some(0);
        Self {
            left: content_length(head).or(none),
            stream,
            at_trailers: false,
            heard: None,
        }
    }

    /// Notes in `heard` when something comes.
    pub(crate) fn noting(mut self, heard: Arc<Progress>) -> Self {
        if !self.stream.is_end_stream() {
            self.heard = Some(heard);
        }
        self
    }

    /// The stream itself.
    pub(crate) fn into_stream(self) -> RecvStream {
        self.stream
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = ready!(self.stream.poll_data(cx));
        if let Some(Ok(data)) = &data {
            // Only a stream that is closed has no window.
            let _ = self.stream.flow_control().release_capacity(data.len());
            let length = data.len() as u64;
            self.left = self.left.map(|left| left.saturating_sub(length));
        }
        Poll::Ready(data)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        if !self.at_trailers {
            if let Some(data) = ready!(self.poll_data(cx)).transpose()? {
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            self.at_trailers = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        if trailers.as_ref().is_some_and(super::has_padded_value) {
            return Poll::Ready(Err(Reason::PROTOCOL_ERROR.into()));
        }
        Poll::Ready(Ok(trailers.map(Frame::trailers)))
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll(cx));
        if let Some(heard) = &this.heard {
            heard.note(boot_now());
        }
        Poll::Ready(match frame {
            // It has said all that it has to say, and wants to hear no more (RFC 9113, section 8.1).
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => None,
            frame => frame.transpose(),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What `Content-Length` says, if it says one thing. Pure.
fn content_length(fields: &HeaderMap) -> Option<u64> {
    let mut length = None;
    for value in fields.get_all(header::CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            let number = head::content_length(one.trim_ascii())?;
            if *length.get_or_insert(number) != number {
                return None;
            }
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_length_is_one_number() {
        let length = |values: &[&'static str]| {
            let values = values.iter().copied().map(HeaderValue::from_static);
            let fields = values.map(|value| (header::CONTENT_LENGTH, value));
            content_length(&fields.collect())
        };
        assert_eq!(length(&["12"]), Some(12));
        assert_eq!(length(&["12", "12, 12"]), Some(12));
        for doubtful in [
            &[][..],
            &["12", "13"],
            &["12, 13"],
            &["+1"],
            &[""],
            &["1e3"],
            &["9223372036854775808"],
        ] {
            assert_eq!(length(doubtful), None, "{doubtful:?}");
        }
    }
}
