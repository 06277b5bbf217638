//! What the gateway asks of others over HTTP: an issuer's keys, a token's state, an alert's
//! receiver.
//!
//! Everything has a bound: the connection and the whole exchange by time, the answer by size. The
//! server is verified by the configured roots or the system's. What a name resolves to is looked
//! at before it is connected to (see [`address`]), also for each step of a redirect, which only
//! `GET` follows and which never changes the scheme. Proxies of the environment are nobody's.

mod address;
mod connect;
mod dial;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, response::Parts,
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

pub(crate) use dial::{ConnectError, Dialer, secured};

use self::{address::Nearness, connect::Connector};
use crate::{
    config,
    gateway::upstream::tls::{NativeRoots, UpstreamTlsError, client_config},
};

const MOST_REDIRECTS: usize = 3;
/// Longest head of an answer.
const LONGEST_HEAD: usize = 32 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MOST_IDLE: usize = 4;

/// Why there is no answer. Whoever was asked is to blame, or the way there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error("{0}")]
    Connect(ConnectError),
    #[error("no answer in time")]
    Timeout,
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the answer broke off: {0}")]
    Broken(hyper::Error),
    #[error("no answer that makes sense: {0}")]
    NoAnswer(String),
    #[error("it redirects to `{0}`, which is no place to ask at")]
    Redirect(String),
    #[error("it redirects too often")]
    Redirects,
}

/// An answer that was received to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A client for one purpose. Its connections are kept for a while.
pub(crate) struct Outbound {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
    timeout: Duration,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Outbound {
    /// Reads roots, certificate and key: to be called before the process is sealed.
    pub(crate) fn load(
        settings: &config::Outbound,
        native: &mut NativeRoots,
    ) -> Result<Self, UpstreamTlsError> {
        let certificate = settings.client_certificate.as_ref();
        let tls = client_config(settings.ca.as_deref(), certificate, native)?;
        let dialer = Dialer::new(&settings.allow_networks);
        let connector = Connector::new(tls, dialer, settings.connect_timeout);
        Ok(Self {
            client: client(connector.clone()),
            connector,
            timeout: settings.timeout,
        })
    }

    /// Gets what is at `url`, at most `longest` bytes, following redirects.
    pub(crate) async fn get(&self, url: &Uri, longest: usize) -> Result<Answer, OutboundError> {
        let following = async {
            let mut url = url.clone();
            let mut from = None;
            for _ in 0..=MOST_REDIRECTS {
                let redirected = from.map(|from| client(self.connector.redirected(from)));
                let client = redirected.as_ref().unwrap_or(&self.client);
                let (head, body) = exchange(client, get(&url)).await?;
                match redirect(&head, &url)? {
                    None => return receive(head, body, longest).await,
                    Some(next) => url = next,
                }
                let nearness = head.extensions.get::<Nearness>().copied();
                from = Some(nearness.unwrap_or(Nearness::Global));
            }
            Err(OutboundError::Redirects)
        };
        self.in_time(following).await
    }

    /// Sends a request, whatever it is, and takes at most `longest` bytes. A redirect is an answer
    /// like any other: what was sent goes to nobody else.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        longest: usize,
    ) -> Result<Answer, OutboundError> {
        let request = request.map(Full::new);
        self.in_time(async {
            let (head, body) = exchange(&self.client, request).await?;
            receive(head, body, longest).await
        })
        .await
    }

    /// Sends a request to a receiver that takes what it is sent, or not.
    ///
    /// # Errors
    /// Why it was not taken, in words.
    pub(crate) async fn deliver(
        &self,
        request: Request<Bytes>,
        longest: usize,
    ) -> Result<(), String> {
        let answer = self.send(request, longest).await;
        let status = answer.map_err(|error| error.to_string())?.status;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it answers {status}"))
        }
    }

    async fn in_time(
        &self,
        answer: impl Future<Output = Result<Answer, OutboundError>>,
    ) -> Result<Answer, OutboundError> {
        timeout(self.timeout, answer)
            .await
            .unwrap_or(Err(OutboundError::Timeout))
    }
}

fn client(connector: Connector) -> Client<Connector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MOST_IDLE)
        .http1_max_buf_size(LONGEST_HEAD)
        .build(connector)
}

fn get(url: &Uri) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = url.clone();
    let accept = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, accept);
    request
}

async fn exchange(
    client: &Client<Connector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(Parts, Incoming), OutboundError> {
    match client.request(request).await {
        Ok(response) => Ok(response.into_parts()),
        Err(error) => Err(no_answer(error)),
    }
}

async fn receive(head: Parts, mut body: Incoming, longest: usize) -> Result<Answer, OutboundError> {
    let mut received = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(OutboundError::Broken)?.into_data() else {
            continue;
        };
        if received.len() + data.len() > longest {
            return Err(OutboundError::TooLong(longest));
        }
        received.extend_from_slice(&data);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: received.freeze(),
    })
}

/// Where a response redirects to; `None` if it is an answer.
fn redirect(head: &Parts, url: &Uri) -> Result<Option<Uri>, OutboundError> {
    let redirects = matches!(
        head.status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = head.headers.get(header::LOCATION).filter(|_| redirects) else {
        return Ok(None);
    };
    let next = location.to_str().ok().and_then(|text| resolve(text, url));
    match next {
        Some(next) => Ok(Some(next)),
        None => {
            let shown = String::from_utf8_lossy(location.as_bytes());
            let shown = shown.chars().filter(|it| !it.is_control()).take(200);
            Err(OutboundError::Redirect(shown.collect()))
        }
    }
}

/// An absolute URL of the same scheme, or a path on the same host.
fn resolve(location: &str, base: &Uri) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(location.parse::<PathAndQuery>().ok()?);
        return Uri::from_parts(parts).ok();
    }
    let next: Uri = location.parse().ok()?;
    let plain = !next.authority()?.as_str().contains('@');
    (plain && next.scheme() == base.scheme()).then_some(next)
}

/// What an error of the HTTP library means here.
fn no_answer(error: legacy::Error) -> OutboundError {
    // The last cause says most, and the connector's own words are somewhere on the way.
    let mut last: &dyn std::error::Error = &error;
    while let Some(cause) = last.source() {
        if let Some(cause) = cause.downcast_ref::<ConnectError>() {
            return OutboundError::Connect(cause.clone());
        }
        last = cause;
    }
    OutboundError::NoAnswer(last.to_string())
}
