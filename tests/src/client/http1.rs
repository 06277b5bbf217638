//! HTTP/1.1 requests and downloads.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::{Client, End, Ending, expect_status};
use crate::{certificates::SERVER_NAME, namespace::Task};

type Sender = SendRequest<Full<Bytes>>;

/// A connection for one request after another.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    local: SocketAddr,
    sender: Arc<Mutex<Sender>>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("the answer's body is no JSON")
    }
}

impl Connection {
    pub(super) fn new(client: &Client) -> Result<Self> {
        let (sender, local) = client.run(open(client.clone()))??;
        Ok(Self {
            client: client.clone(),
            local,
            sender: Arc::new(Mutex::new(sender)),
        })
    }

    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// A GET.
    pub fn get(&self, path: &str, token: &str) -> Result<Answer> {
        self.send(request(Method::GET, path, token, Bytes::new())?)
    }

    /// A POST.
    pub fn post(&self, path: &str, token: &str, body: impl Into<Bytes>) -> Result<Answer> {
        self.send(request(Method::POST, path, token, body.into())?)
    }

    /// Any request.
    pub fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let sender = Arc::clone(&self.sender);
        self.client.run(async move {
            let mut sender = sender.lock().await;
            sender.ready().await.context("the connection is gone")?;
            let response = sender.send_request(request).await.context("no answer")?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.context("the answer broke off")?;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        })?
    }
}

/// A download under way.
#[derive(Debug)]
pub struct Download {
    local: SocketAddr,
    head: HeaderMap,
    received: Arc<AtomicU64>,
    task: Task<Ending>,
}

impl Download {
    pub(super) fn start(client: &Client, path: &str, token: &str) -> Result<Self> {
        let request = request(Method::GET, path, token, Bytes::new())?;
        let opened = open(client.clone());
        let (response, local) = client.run(async move {
            let (mut sender, local) = opened.await?;
            let response = sender.send_request(request).await.context("no answer")?;
            anyhow::Ok((response, local))
        })??;
        expect_status(StatusCode::OK, response.status())?;
        let received = Arc::new(AtomicU64::new(0));
        let (head, body) = response.into_parts();
        let task = client.spawn(receive(body, Arc::clone(&received)));
        Ok(Self {
            local,
            head: head.headers,
            received,
            task,
        })
    }

    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Headers of the response.
    pub fn headers(&self) -> &HeaderMap {
        &self.head
    }

    /// Bytes so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether nothing has ended it yet.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }

    /// Waits for its end.
    pub fn end(self) -> Result<Ending> {
        self.task.join()
    }

    /// Leaves in the middle.
    pub fn leave(self) {
        self.task.abort();
    }
}

async fn receive(mut body: Incoming, received: Arc<AtomicU64>) -> Ending {
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                received.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => return Ending::of(&error),
        }
    }
    Ending::now(End::Complete)
}

async fn open(client: Client) -> Result<(Sender, SocketAddr)> {
    let stream = client.dial().await?;
    let local = stream
        .get_ref()
        .0
        .local_addr()
        .context("the client's end")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("HTTP")?;
    // Its errors reach whoever waits for an answer or a body.
    tokio::spawn(connection);
    Ok((sender, local))
}

/// A request with a bearer token; without one where `token` is empty.
pub(super) fn request(
    method: Method,
    path: &str,
    token: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, SERVER_NAME);
    if !token.is_empty() {
        builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    builder.body(Full::new(body)).context("make a request")
}
