//! A small collector of OpenTelemetry logs (OTLP as JSON over HTTPS), which takes them or does not.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

use crate::{
    certificates::Authority,
    namespace::{Namespace, Task},
};

/// The collector.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: Arc<Runtime>,
}

#[derive(Debug)]
struct State {
    answers: StatusCode,
    asked: u64,
    records: Vec<Value>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector {
    /// Serves on loopback in `namespace`, answering 503.
    pub fn start(namespace: &Namespace, authority: &Authority) -> Result<Self> {
        let runtime = namespace.runtime(1)?;
        let listen = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0));
        let listener = Task::spawn(&runtime, listen).join()?;
        let listener = listener.context("listen as a collector")?;
        let address = listener.local_addr().context("the collector's address")?;
        let (chain, key) = authority.server()?.chain()?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("the collector's certificate")?;
        let state = Arc::new(Mutex::new(State {
            answers: StatusCode::SERVICE_UNAVAILABLE,
            asked: 0,
            records: Vec::new(),
        }));
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        runtime.spawn(serve(listener, acceptor, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            _runtime: runtime,
        })
    }

    /// Where it takes logs.
    pub fn url(&self) -> String {
        format!("https://{}/v1/logs", self.address)
    }

    /// From now on this is its answer.
    pub fn answer(&self, status: StatusCode) {
        lock(&self.state).answers = status;
    }

    /// How often it was asked to take something.
    pub fn asked(&self) -> u64 {
        lock(&self.state).asked
    }

    /// Values of an attribute, of all log records that it took.
    pub fn values(&self, attribute: &str) -> BTreeSet<String> {
        let state = lock(&self.state);
        let records = state.records.iter();
        let attributes = records.filter_map(|record| record["attributes"].as_array());
        attributes
            .flatten()
            .filter(|found| found["key"] == attribute)
            .map(|found| {
                let value = &found["value"];
                let text = value["stringValue"].as_str().or(value["intValue"].as_str());
                text.unwrap_or_default().to_owned()
            })
            .collect()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    loop {
        // A connection that is gone before it is accepted is nobody's concern.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let acceptor = acceptor.clone();
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|request: http::Request<Incoming>| {
                let state = Arc::clone(&state);
                async move {
                    let body = request.into_body().collect().await;
                    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                    Ok::<_, Infallible>(take(&state, &body))
                }
            });
            // Errors of a connection are its peer's doing.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn take(state: &Mutex<State>, body: &[u8]) -> Response<Full<Bytes>> {
    let mut state = lock(state);
    state.asked += 1;
    if state.answers.is_success() {
        let logs: Value = serde_json::from_slice(body).unwrap_or_default();
        let records = &logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        state
            .records
            .extend(records.as_array().cloned().unwrap_or_default());
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    *response.status_mut() = state.answers;
    response
}
