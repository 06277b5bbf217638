//! A real upstream, and what it saw.
//!
//! | path | behaviour |
//! | --- | --- |
//! | `/echo` | WebSocket: every message comes back |
//! | `/ticks` | WebSocket: a message every 20 ms, whatever the client does |
//! | `/flood` | WebSocket: messages of 64 KiB, as fast as they go |
//! | `/download?rate=R&every=T&length=N` | R bytes a second, in a chunk every T ms (as fast as they go without `rate`); chunked and endless without `length` |
//! | `/upload` | takes a body and answers with its length |
//! | `/headers` | the request's headers, as JSON pairs |
//! | `/slow` | never answers |
//! | `/hang-up` | closes without an answer |
//! | `/break-off` | promises 1,000,000 bytes, sends 1,000 and closes |

mod log;
pub mod manual;
mod pages;
pub mod stream;
mod tap;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime};

pub use log::{Arrival, Connection, Log, Request, Upload};

use crate::{
    namespace::{Namespace, Task},
    wait,
};

/// An HTTP server.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    log: Arc<Log>,
    _runtime: Arc<Runtime>,
}

impl Upstream {
    /// Serves on loopback in `namespace`.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let runtime = namespace.runtime(1)?;
        let listen = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0));
        let listener = Task::spawn(&runtime, listen).join()?;
        let listener = listener.context("listen as an upstream")?;
        let address = listener.local_addr().context("the upstream's address")?;
        let log = Arc::new(Log::default());
        runtime.spawn(serve(listener, Arc::clone(&log)));
        Ok(Self {
            address,
            log,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, as a route names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it saw.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The first upload that matches, once there is one.
    pub fn wait_for_upload(&self, what: &str, matches: impl Fn(&Upload) -> bool) -> Result<Upload> {
        wait::until(what, || self.log.uploads().into_iter().find(&matches))
    }
}

async fn serve(listener: TcpListener, log: Arc<Log>) {
    loop {
        // A connection that is gone before it is accepted is nobody's concern.
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        let connection = log.opened(peer);
        let stream = tap::Tap::new(stream, Arc::clone(&log), connection);
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let service =
                service_fn(|request| pages::answer(request, Arc::clone(&log), connection));
            // Errors of a connection are its peer's doing, and the tap has recorded them.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}
