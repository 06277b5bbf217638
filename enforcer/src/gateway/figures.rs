//! The figures: what this gateway counts goes to the warden, and the warden's text to whoever
//! reads it at the address of `[metrics]`.
//!
//! To the kernel a reader is a client that does not authenticate. So each connection carries one
//! answer, and is closed well within `pre_authentication_timeout`.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, warn};

use super::{Gateway, Work, link::Link};
use crate::{channel::ToWarden, metrics};

/// How often the warden is told.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Readers at a time.
const MOST_READERS: usize = 8;
/// Longest time for a reader, if the kernel gives it as much.
const LONGEST_READING: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest head of a request.
const LONGEST_HEAD: usize = 16 * 1024;

/// Tells the warden once a second what was counted.
pub(super) async fn report(gateway: Arc<Gateway>) {
    let mut interval = interval(REPORT_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let lost = gateway.link.take_lost();
        if lost > 0 {
            warn!(lost, "reports to the warden were lost");
            gateway.counters.reports_lost(lost);
        }
        tell(&gateway);
    }
}

/// Without a warden it waits until there is one.
pub(super) fn tell(gateway: &Gateway) {
    if !gateway.link.orders().borrow().linked {
        return;
    }
    for figures in gateway.counters.take() {
        gateway.link.tell(ToWarden::Counted(Box::new(figures)));
    }
}

/// Serves the figures for as long as the orders say so.
pub(super) async fn serve(gateway: Arc<Gateway>, listener: TcpListener, work: Work) {
    let limit = LONGEST_READING.min(gateway.unbound_limit / 2);
    let readers = Arc::new(Semaphore::new(MOST_READERS));
    let mut orders = gateway.link.orders();
    loop {
        let now = *orders.borrow_and_update();
        if now.drain {
            return;
        }
        let accepted = tokio::select! {
            accepted = accept(&listener, &readers), if now.accept => accepted,
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match accepted {
            Ok((stream, place)) => {
                let (gateway, work) = (Arc::clone(&gateway), work.clone());
                tokio::spawn(async move {
                    if timeout(limit, converse(&gateway, stream)).await.is_err() {
                        debug!("who reads the metrics took too long");
                    }
                    drop((place, work));
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept who reads the metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    readers: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(readers)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn converse(gateway: &Gateway, stream: TcpStream) {
    let service = service_fn(|request| answer(gateway, request));
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "who reads the metrics left");
    }
}

async fn answer(
    gateway: &Gateway,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let served = *request.method() == Method::GET || *request.method() == Method::HEAD;
    let (status, text) = match request.uri().path() {
        "/metrics" if !served => (StatusCode::METHOD_NOT_ALLOWED, "GET it\n".to_owned()),
        "/metrics" => {
            tell(gateway);
            match read(&gateway.link).await {
                Some(text) => (StatusCode::OK, text),
                None => {
                    let text = "the warden does not answer: see `enforcer status`\n";
                    (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
                }
            }
        }
        _ => (StatusCode::NOT_FOUND, "they are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

async fn read(link: &Link) -> Option<String> {
    let mut text = String::new();
    match File::from(link.figures().await?).read_to_string(&mut text) {
        Ok(_) => Some(text),
        Err(error) => {
            warn!(%error, "the figures cannot be read");
            None
        }
    }
}
