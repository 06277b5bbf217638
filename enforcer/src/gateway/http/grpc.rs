//! gRPC, as far as a farewell must speak it: a call ends with trailers, not with its connection.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header, request::Parts};
use hyper::body::{Body, Frame};
use tokio::sync::watch;

use super::{
    body::{Received, ResponseBody},
    error::HttpError,
};
use crate::gateway::sessions::SessionHandle;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `UNAUTHENTICATED`.
const UNAUTHENTICATED: HeaderValue = HeaderValue::from_static("16");

/// Whether a request is a gRPC call. gRPC-Web is not: it has its trailers in its body.
pub(crate) fn is_call(request: &Parts) -> bool {
    let media_type = request.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map(HeaderValue::as_bytes).unwrap_or_default();
    request.version == Version::HTTP_2
        && media_type
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The end of a call whose session ends.
fn farewell() -> HeaderMap {
    HeaderMap::from_iter([
        (STATUS, UNAUTHENTICATED),
        (MESSAGE, HeaderValue::from_static("session expired")),
    ])
}

/// The answer to a call that had none when its session ended.
pub(crate) fn refuse(request_type: HeaderValue, call: OpenCall) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Call(CallBody::ended(call)));
    *response.headers_mut() = farewell();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, request_type);
    response
}

/// The calls of a connection that have not been ended yet: GOAWAY is to come after their ends.
#[derive(Debug)]
pub(crate) struct Calls(watch::Sender<usize>);

impl Default for Calls {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// One of them, until what ends it has been handed to the connection.
#[derive(Debug)]
pub(crate) struct OpenCall(watch::Sender<usize>);

impl Calls {
    pub(crate) fn begin(&self) -> OpenCall {
        self.0.send_modify(|open| *open += 1);
        OpenCall(self.0.clone())
    }

    /// Waits until there are none.
    pub(crate) async fn ended(&self) {
        // The sender is here, too.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// The upstream's side of a call, until the farewell.
pub(crate) struct CallBody {
    going_on: Option<(Received, Farewell)>,
    _call: OpenCall,
}

type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

impl CallBody {
    pub(crate) fn new(body: Received, session: SessionHandle, call: OpenCall) -> Self {
        let farewell = Box::pin(async move { session.farewell().await });
        Self {
            going_on: Some((body, farewell)),
            _call: call,
        }
    }

    fn ended(call: OpenCall) -> Self {
        Self {
            going_on: None,
            _call: call,
        }
    }

    /// The next frame. The farewell comes between two of the upstream's frames: what the client
    /// has got is whole, if the upstream sends whole messages.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some((body, waiting)) = &mut self.going_on else {
            return Poll::Ready(None);
        };
        if waiting.as_mut().poll(cx).is_ready() {
            self.going_on = None;
            return Poll::Ready(Some(Ok(Frame::trailers(farewell()))));
        }
        Pin::new(body).poll_frame(cx)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let body = self.going_on.as_ref().map(|(body, _)| body);
        body.is_none_or(Body::is_end_stream)
    }
}

impl std::fmt::Debug for CallBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallBody").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn calls_are_told_by_version_and_type() {
        let is_call = |version, media_type: &str| {
            let request = Request::post("/").version(version);
            let request = request.header(header::CONTENT_TYPE, media_type);
            is_call(&request.body(()).unwrap().into_parts().0)
        };
        for media_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            assert!(is_call(Version::HTTP_2, media_type));
            assert!(!is_call(Version::HTTP_11, media_type));
        }
        for media_type in ["application/grpc-web", "application/json", ""] {
            assert!(!is_call(Version::HTTP_2, media_type));
        }
    }
}
