//! Somebody who is told things over HTTP: alerts, spans.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    certificates::Identity,
    namespace::{Namespace, Task},
    wait,
};

/// What was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path that it was sent to.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Received {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("what was received is no JSON")
    }
}

type Inbox = Arc<Mutex<Vec<Received>>>;

/// A server that keeps what it is sent.
#[derive(Debug)]
pub struct Receiver {
    inbox: Inbox,
    _runtime: Arc<Runtime>,
}

impl Receiver {
    /// Receives at `address` in `namespace`; within TLS if it has something to show.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        identity: Option<&Identity>,
    ) -> Result<Self> {
        let runtime = namespace.runtime(1)?;
        let listener = Task::spawn(&runtime, TcpListener::bind(address)).join()?;
        let listener = listener.context("listen as a receiver")?;
        let acceptor = identity.map(acceptor).transpose()?;
        let inbox = Inbox::default();
        runtime.spawn(serve(listener, acceptor, Arc::clone(&inbox)));
        Ok(Self {
            inbox,
            _runtime: runtime,
        })
    }

    /// All of it so far.
    pub fn received(&self) -> Vec<Received> {
        self.inbox
            .lock()
            .map(|inbox| inbox.clone())
            .unwrap_or_default()
    }

    /// The first that matches, once there is one.
    pub fn wait_for(&self, what: &str, matches: impl Fn(&Received) -> bool) -> Result<Received> {
        wait::until(what, || self.received().into_iter().find(&matches))
    }
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let (chain, key) = identity.chain()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("a receiver's certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, inbox: Inbox) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, inbox) = (acceptor.clone(), Arc::clone(&inbox));
        tokio::spawn(async move {
            match acceptor {
                None => converse(stream, inbox).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, inbox).await;
                    }
                }
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, inbox: Inbox) {
    let service = service_fn(|request| receive(request, &inbox));
    // Errors of a connection are its peer's doing.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn receive(
    request: Request<Incoming>,
    inbox: &Inbox,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let received = Received {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    };
    if let Ok(mut inbox) = inbox.lock() {
        inbox.push(received);
    }
    Ok(Response::new(Full::default()))
}
