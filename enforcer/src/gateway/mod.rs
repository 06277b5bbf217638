//! The gateway: the unprivileged process that talks to networks.
//!
//! ```text
//!   start        as root: the configuration, keys and sockets that the warden sends
//!     |
//!   seal         own user, no capabilities, no new privileges, a system call filter
//!     |
//!   accept       a connection                                     Accepted
//!     |
//!   tls, http    requests, strictly framed; or bytes (tcp)        Client
//!     |
//!   stages       a valid token or certificate                     Authenticated
//!     |          the policies let it in                           Permitted
//!     |          its session, bound in the kernel                 Bound
//!     |
//!   forward      to the upstream, as long as the session lives
//!     |
//!   connection   the farewell, then the end                       Ended
//! ```
//!
//! What it may do with a connection it learns from the warden over [`link`], and it never decides
//! by itself that a session lives on.

mod accept;
mod assertion;
mod binding;
mod canary;
mod client_certificate;
mod connection;
mod export;
mod figures;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gate;
mod http;
mod identity;
mod link;
mod outbound;
mod postgres;
mod proxy;
mod rejection;
mod revoked;
mod seal;
mod seccomp;
mod sessions;
mod socket;
mod stages;
mod start;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod touch;
mod traces;
mod tunnel;
mod upstream;
mod webhook;
mod websocket;

pub(crate) use self::{
    http::route::route_of,
    tls::{PemError, read_certificates, read_private_key, read_roots},
};
use std::{convert::Infallible, io, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_seqpacket::UnixSeqpacketListener;
use tracing::info;

use self::{
    accept::{Front, Served},
    assertion::Assertions,
    http::route::RouteTable,
    identity::Identifier,
    link::Link,
    postgres::{CancelKeys, PostgresService},
    start::Started,
    tcp::TcpService,
    traces::Tracer,
    tunnel::Tunnels,
    upstream::Upstream,
};
use crate::{
    channel::{METRICS_LISTENER, Transport},
    clock::boot_now,
    metrics::{Counters, RouteCounters},
    policy::PolicySet,
};

/// After the kernel has stopped listening to a connection without a session, how long until the
/// gateway closes it.
const UNBOUND_GRACE: Duration = Duration::from_secs(1);
const POOL_SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// What the connections share.
struct Gateway {
    link: Arc<Link>,
    identifier: Identifier,
    assertions: Option<Assertions>,
    routes: RouteTable,
    policies: PolicySet,
    /// In the order of the configuration, as [`RouteTable`] counts.
    targets: Vec<Target>,
    counters: Counters,
    tracer: Option<Tracer>,
    tunnels: Tunnels,
    /// Of PostgreSQL connections.
    cancel_keys: CancelKeys,
    /// How long a connection may be without a session.
    unbound_limit: Duration,
}

/// Where a route leads.
struct Target {
    forward_token: bool,
    counters: Arc<RouteCounters>,
    /// `aud` of the assertion that requests carry.
    assertion_audience: Option<Arc<str>>,
    upstream: Upstream,
    /// From a PostgreSQL listener.
    login: Option<postgres::Login>,
}

/// What a listener's connections carry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Service {
    Http,
    Tcp(TcpService),
    Postgres(PostgresService),
}

/// As long as one of these exists there is something to finish.
#[derive(Clone, Debug)]
struct Work {
    _finished: mpsc::Sender<Infallible>,
}

/// The gateway process, from the first message on its standard input to its end.
pub fn run() -> anyhow::Result<()> {
    crate::logging::init();
    // A session of its own: else a gateway that is stopped when its warden dies would get SIGHUP
    // (an orphaned process group, setpgid(2)), and Ctrl-C meant for the warden.
    rustix::process::setsid().context("cannot leave the warden's session")?;
    let started = start::receive()?;
    seal::seal(&started.user)
        .context("cannot seal the gateway")
        .inspect_err(|error| start::give_up(&started.channel, error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(async {
        let mut server = Server::start(started)?;
        handle_signals(&server.gateway.link)?;
        server.drained().await;
        info!("drained");
        anyhow::Ok(())
    })?;
    // Resolving a name must not hold the process back.
    runtime.shutdown_background();
    Ok(())
}

/// A gateway that serves.
struct Server {
    gateway: Arc<Gateway>,
    finished: mpsc::Receiver<Infallible>,
}

impl Server {
    fn start(started: Started) -> io::Result<Self> {
        let channel = Transport::new(started.channel)?;
        rustix::io::ioctl_fionbio(&started.handover, true)?;
        let handover = UnixSeqpacketListener::try_from(started.handover)?;
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        for listener in started.listeners {
            sockets.push((listener.name.clone(), listener.socket.try_clone()?));
            let socket = std::net::TcpListener::from(listener.socket);
            socket.set_nonblocking(true)?;
            listeners.push(Served {
                socket: TcpListener::from_std(socket)?,
                front: Front {
                    name: listener.name.into(),
                    acceptor: listener.acceptor,
                    service: listener.service,
                    identity: listener.identity.clone(),
                    cookie: listener.cookie.map(Arc::new),
                    proxies: listener.proxies.into(),
                },
            });
        }
        let metrics = match started.metrics {
            Some(socket) => {
                sockets.push((METRICS_LISTENER.to_owned(), socket.try_clone()?));
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                Some(TcpListener::from_std(socket)?)
            }
            None => None,
        };
        let (link, driver) = Link::new(handover, sockets, started.webhooks);
        let (tracer, exporter) = started.traces.unzip();
        let gateway = Arc::new(Gateway {
            tracer,
            link: Arc::clone(&link),
            identifier: started.identifier,
            assertions: started.assertions,
            routes: started.routes,
            policies: started.policies,
            targets: started.targets,
            counters: started.counters,
            tunnels: started.tunnels,
            cancel_keys: CancelKeys::default(),
            unbound_limit: started.pre_authentication_timeout + UNBOUND_GRACE,
        });
        gateway.identifier.start(&link);
        let (sender, finished) = mpsc::channel(1);
        let work = Work { _finished: sender };
        for served in listeners {
            tokio::spawn(accept::accept(Arc::clone(&gateway), served, work.clone()));
        }
        if let Some(listener) = metrics {
            tokio::spawn(figures::serve(Arc::clone(&gateway), listener, work));
        }
        if let Some(exporter) = exporter {
            tokio::spawn(exporter.run(Arc::clone(&gateway)));
        }
        tokio::spawn(figures::report(Arc::clone(&gateway)));
        tokio::spawn(sweep_pools(Arc::clone(&gateway)));
        tokio::spawn(revoked::tell(Arc::clone(&link), started.revoked));
        started.receivers.serve(&link);
        tokio::spawn(driver.run(channel));
        Ok(Self { gateway, finished })
    }

    /// Waits until the orders are to drain, the last connection is closed, and the warden knows.
    async fn drained(&mut self) {
        // Nothing is ever sent: this waits for the last `Work` to go.
        let _: Option<Infallible> = self.finished.recv().await;
        figures::tell(&self.gateway);
        self.gateway.link.finish().await;
    }
}

fn handle_signals(link: &Arc<Link>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // A terminal sends these to the warden too, and the warden decides what comes of it.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let link = Arc::clone(link);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => link.drain(),
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        }
    });
    Ok(())
}

async fn sweep_pools(gateway: Arc<Gateway>) {
    let mut interval = tokio::time::interval(POOL_SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        for target in &gateway.targets {
            target.upstream.sweep(boot_now());
        }
    }
}
