//! What an upstream serves.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::time::{Interval, interval};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol},
};

use super::log::{self, Log};

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

const PACE_MILLIS: u64 = 10;
const TICK: Duration = Duration::from_millis(20);
const UNPACED_CHUNK: usize = 64 * 1024;
const PROMISED: u64 = 1_000_000;
const KEPT: usize = 1_000;

/// Answers one request; an error closes the connection.
pub(super) async fn answer(
    mut request: Request<Incoming>,
    log: Arc<Log>,
    connection: usize,
) -> io::Result<Response<Page>> {
    log.requested(log::Request {
        connection,
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    });
    match request.uri().path() {
        "/echo" => Ok(upgrade(&mut request, echo)),
        "/ticks" => Ok(upgrade(&mut request, tick)),
        "/flood" => Ok(upgrade(&mut request, flood)),
        "/download" => {
            let [rate, every, length] =
                ["rate", "every", "length"].map(|name| parameter(&request, name));
            Ok(Response::new(Page::stream(rate, every, length)))
        }
        "/upload" => Ok(Response::new(Page::text(upload(request, &log).await?))),
        "/headers" => Ok(Response::new(Page::text(headers(&request)))),
        "/status" => status(&request),
        "/slow" => std::future::pending().await,
        "/hang-up" => Err(io::ErrorKind::ConnectionAborted.into()),
        "/break-off" => Ok(Response::new(Page::break_off())),
        _ => {
            let mut response = Response::new(Page::text("no such page".to_owned()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}

fn parameter(request: &Request<Incoming>, name: &str) -> Option<u64> {
    let pairs = request.uri().query()?.split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('='));
    values.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// Nothing but a status.
fn status(request: &Request<Incoming>) -> io::Result<Response<Page>> {
    let code = parameter(request, "code").and_then(|code| u16::try_from(code).ok());
    let status = StatusCode::from_u16(code.unwrap_or_default()).map_err(io::Error::other)?;
    let mut response = Response::new(Page::text(String::new()));
    *response.status_mut() = status;
    Ok(response)
}

fn headers(request: &Request<Incoming>) -> String {
    let pairs = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    serde_json::json!(pairs.collect::<Vec<_>>()).to_string()
}

async fn upload(request: Request<Incoming>, log: &Log) -> io::Result<String> {
    let upload = log.upload_began();
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                length += bytes;
                log.uploaded(upload, bytes);
            }
            Err(error) => {
                log.upload_ended(upload, false);
                return Err(io::Error::other(error));
            }
        }
    }
    log.upload_ended(upload, true);
    Ok(length.to_string())
}

fn upgrade<F>(request: &mut Request<Incoming>, talk: fn(Socket) -> F) -> Response<Page>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut response = Response::new(Page::text(String::new()));
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(accept.map(|accept| (header::SEC_WEBSOCKET_ACCEPT, accept)));
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        let role = protocol::Role::Server;
        talk(WebSocketStream::from_raw_socket(TokioIo::new(stream), role, None).await).await;
    });
    response
}

async fn echo(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        let data = message.is_text() || message.is_binary();
        if data && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn tick(mut socket: Socket) {
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if socket.send(Message::text("tick")).await.is_err() {
                    return;
                }
            }
            message = socket.next() => {
                if !matches!(message, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}

async fn flood(mut socket: Socket) {
    let message = Message::text("f".repeat(UNPACED_CHUNK));
    while socket.send(message.clone()).await.is_ok() {}
}

/// A response body.
pub(super) enum Page {
    Text(Option<Bytes>),
    Stream(Stream),
}

/// A body made as it goes.
pub(super) struct Stream {
    pace: Option<Interval>,
    chunk: Bytes,
    remaining: Option<u64>,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    AsPromised,
    AfterOneChunk,
    Now,
}

impl Page {
    fn text(text: String) -> Self {
        Self::Text(Some(text.into()))
    }

    fn stream(rate: Option<u64>, every: Option<u64>, length: Option<u64>) -> Self {
        let every = every.unwrap_or(PACE_MILLIS).max(1);
        let size = rate.map_or(UNPACED_CHUNK, |rate| (rate * every / 1000).max(1) as usize);
        Self::Stream(Stream {
            pace: rate.map(|_| interval(Duration::from_millis(every))),
            chunk: vec![b'd'; size].into(),
            remaining: length,
            end: End::AsPromised,
        })
    }

    fn break_off() -> Self {
        Self::Stream(Stream {
            pace: Some(interval(Duration::from_millis(PACE_MILLIS))),
            chunk: vec![b'b'; KEPT].into(),
            remaining: Some(PROMISED),
            end: End::AfterOneChunk,
        })
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.remaining == Some(0) {
            return Poll::Ready(None);
        }
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll_tick(cx));
        }
        match self.end {
            End::AsPromised => {}
            End::AfterOneChunk => self.end = End::Now,
            End::Now => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
        let mut chunk = self.chunk.clone();
        if let Some(remaining) = &mut self.remaining {
            chunk.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= chunk.len() as u64;
        }
        Poll::Ready(Some(Ok(chunk)))
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = match &mut *self {
            Self::Text(text) => text.take().map(Ok),
            Self::Stream(stream) => ready!(stream.poll(cx)),
        };
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(stream) => stream
                .remaining
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
