//! The demonstration's environment, to try things by hand.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use enforcer::clock::WallInstant;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Builder};

use crate::{
    Scene, daemon,
    issuer::{Claims, Issuer},
};

const SESSION: &str = "1m";
const IDLE: &str = "30s";
const TOKEN: Duration = Duration::from_secs(3600);

/// The environment in the host's own network.
pub(super) fn scene(port: u16) -> Result<Scene> {
    let mut scene = Scene::on_host("stay", port)?;
    let policy = scene.config.policy();
    policy.max_session = SESSION.to_owned();
    policy.idle_timeout = Some(IDLE.to_owned());
    policy.farewell = None;
    Ok(scene)
}

/// Serves until the process is told to end.
pub(super) fn run(scene: &Scene) -> Result<()> {
    let _daemon = scene.start()?;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = listener.context("listen as an issuer")?;
    listener
        .set_nonblocking(true)
        .context("listen as an issuer")?;
    let address = listener.local_addr().context("the issuer's address")?;
    println!("{}", instructions(scene, &format!("http://{address}"))?);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).context("listen as an issuer")?;
        let issuer = Arc::new(scene.issuer.clone());
        loop {
            // A connection that is gone before it is accepted is nobody's concern.
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let issuer = Arc::clone(&issuer);
            tokio::spawn(async move {
                let service = service_fn(|request| mint(Arc::clone(&issuer), request));
                // Errors of a connection are its peer's doing.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// `/NAME` is a token for NAME.
async fn mint(
    issuer: Arc<Issuer>,
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let subject = request.uri().path().trim_start_matches('/');
    let token = token(&issuer, subject).unwrap_or_else(|error| format!("{error:#}"));
    Ok(Response::new(Full::from(token + "\n")))
}

fn token(issuer: &Issuer, subject: &str) -> Result<String> {
    let now = enforcer::clock::wall_now();
    let id = WallInstant::as_unix_nanos(now).to_string();
    issuer.sign(&Claims::new(subject, now.saturating_add(TOKEN)).with("jti", id))
}

fn instructions(scene: &Scene, issuer: &str) -> Result<String> {
    let enforcer = daemon::binary()?;
    let (enforcer, config) = (enforcer.display(), scene.bed.path("enforcer.toml"));
    let (ca, config) = (scene.ca_file(), config.display());
    let port = scene.client()?.server().port();
    let curl = format!(
        "curl --cacert {} -H \"Authorization: Bearer $TOKEN\"",
        ca.display()
    );
    let url = format!("https://localhost:{port}");
    Ok(format!(
        "enforcer listens on {url} in front of {upstream}.
A session lasts {SESSION} at most, and {IDLE} without activity. Then its token is used up: take another.

a token, and another when you need one:
  TOKEN={token}
  TOKEN=$(curl -s {issuer}/alice)
what the upstream gets to see:
  {curl} {url}/headers
a download that is cut in the middle:
  {curl} -o /dev/null '{url}/download?rate=100000'
a WebSocket that ticks (idle all the same: the server's messages are no activity):
  {curl} -N --http1.1 --output - -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' {url}/ticks
a WebSocket that echoes what you type, if you have websocat:
  SSL_CERT_FILE={ca} websocat -H \"Authorization: Bearer $TOKEN\" wss://localhost:{port}/echo
what the daemon says of it:
  {enforcer} sessions --config {config}
  {enforcer} audit --follow --config {config}
  {enforcer} maps --config {config}

Ctrl-C ends all of it.",
        upstream = scene.upstream.url(),
        token = token(&scene.issuer, "alice")?,
        ca = ca.display(),
    ))
}
