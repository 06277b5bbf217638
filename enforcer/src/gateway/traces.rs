//! Traces: a span for each request, to an OpenTelemetry collector (OTLP over HTTP, in JSON).
//!
//! ```text
//!   request --> Open --answered--> Span --try_send--> queue --batch--> POST /v1/traces
//!                 |                          |                  |
//!                 +-- traceparent upstream   +-- full: dropped  +-- not taken: dropped
//! ```
//!
//! The protocol is a handful of JSON objects, so they are written here: the SDK of OpenTelemetry
//! would be the largest dependency of the gateway. A request never waits for a span.

mod context;
mod otlp;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

use self::context::TraceContext;
use super::{
    Gateway,
    outbound::Outbound,
    upstream::tls::{NativeRoots, UpstreamTlsError},
};
use crate::{
    clock::{WallInstant, wall_now},
    config,
    metrics::RouteLabels,
    session::SessionId,
};

/// Spans that may wait.
const QUEUE: usize = 4_096;
/// Spans that are sent together, and how long the first of them waits.
const BATCH: usize = 512;
const BATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Longest answer of a collector.
const LONGEST_ANSWER: usize = 64 * 1024;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where spans begin.
#[derive(Debug)]
pub(crate) struct Tracer {
    spans: mpsc::Sender<Span>,
    continue_clients: bool,
}

/// What takes them to the collector.
pub(crate) struct Exporter {
    spans: mpsc::Receiver<Span>,
    url: Uri,
    outbound: Outbound,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Open {
    context: TraceContext,
    began_at: WallInstant,
    method: Method,
    client: String,
}

/// A request that is.
#[derive(Debug)]
pub(super) struct Span {
    open: Open,
    ended_at: WallInstant,
    route: RouteLabels,
    status: StatusCode,
    session: Option<SessionId>,
}

/// A tracer and its exporter, which must run. Reads roots and keys: to be called before the
/// process is sealed.
pub(crate) fn load(
    configured: &config::Traces,
    roots: &mut NativeRoots,
) -> Result<(Tracer, Exporter), UpstreamTlsError> {
    let (sender, spans) = mpsc::channel(QUEUE);
    let tracer = Tracer {
        spans: sender,
        continue_clients: configured.continue_clients,
    };
    let exporter = Exporter {
        spans,
        url: endpoint(&configured.url),
        outbound: Outbound::load(&configured.outbound, roots)?,
    };
    Ok((tracer, exporter))
}

/// The signal's own path, unless a path is configured.
fn endpoint(url: &Uri) -> Uri {
    if !matches!(url.path(), "" | "/") {
        return url.clone();
    }
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/v1/traces"));
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

impl Tracer {
    /// A request has come. Its headers name the span from now on, for the upstream.
    pub(crate) fn begin(
        &self,
        method: &Method,
        headers: &mut HeaderMap,
        client: std::net::SocketAddr,
        now: WallInstant,
    ) -> Option<Open> {
        let parent = headers
            .get(TRACEPARENT)
            .and_then(|value| value.to_str().ok())
            .and_then(TraceContext::parse)
            .filter(|_| self.continue_clients);
        if parent.is_none() {
            headers.remove(TRACESTATE);
        }
        let context = TraceContext::new(parent.as_ref())?;
        let traceparent = HeaderValue::try_from(context.to_string()).ok()?;
        headers.insert(TRACEPARENT, traceparent);
        Some(Open {
            context,
            began_at: now,
            method: method.clone(),
            client: client.ip().to_string(),
        })
    }

    /// It is answered. False if there is no room for the span.
    pub(crate) fn end(
        &self,
        open: Open,
        route: RouteLabels,
        status: StatusCode,
        session: Option<SessionId>,
    ) -> bool {
        if !open.context.sampled {
            return true;
        }
        let span = Span {
            open,
            ended_at: wall_now(),
            route,
            status,
            session,
        };
        self.spans.try_send(span).is_ok()
    }
}

impl Exporter {
    /// Sends batches for as long as there is a tracer.
    pub(crate) async fn run(mut self, gateway: Arc<Gateway>) {
        let mut batch = Vec::new();
        while let Some(first) = self.spans.recv().await {
            batch.push(first);
            self.fill(&mut batch).await;
            let count = batch.len() as u64;
            match self.send(&batch).await {
                Ok(()) => gateway.counters.spans_exported(count),
                Err(error) => {
                    debug!(
                        error,
                        count, "spans are lost: the collector does not take them"
                    );
                    gateway.counters.spans_dropped(count);
                }
            }
            batch.clear();
        }
    }

    /// Adds what comes in time.
    async fn fill(&mut self, batch: &mut Vec<Span>) {
        let filled = async {
            while batch.len() < BATCH {
                match self.spans.recv().await {
                    Some(span) => batch.push(span),
                    None => return,
                }
            }
        };
        // Out of time: what is there goes.
        let _ = timeout(BATCH_INTERVAL, filled).await;
    }

    async fn send(&self, batch: &[Span]) -> Result<(), String> {
        let body = otlp::request(batch).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )
            .body(Bytes::from(body))
            .map_err(|error| error.to_string())?;
        self.outbound.deliver(request, LONGEST_ANSWER).await
    }
}
