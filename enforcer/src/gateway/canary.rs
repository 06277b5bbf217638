//! Plays the client of a canary, and the server that it talks to: what the kernel lets through,
//! and how the connection ends. Neither end cares for limits; cutting is up to others.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::{interval, timeout},
};
use tracing::warn;

use super::link::Link;
use crate::{
    channel::{CanaryEnd, CanaryReport, ToWarden},
    clock::{BootInstant, boot_now},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the session, the cut and the reset may take.
const END_TIMEOUT: Duration = Duration::from_secs(4);
/// How often each end sends.
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// Plays a canary to its end, and tells the warden.
pub(super) async fn play(link: &Link, listener: OwnedFd) {
    match observe(link, listener).await {
        Ok(report) => link.tell(ToWarden::CanaryReport(report)),
        Err(error) => {
            warn!(%error, "the canary found no connection");
            link.tell(ToWarden::CanaryReport(CanaryReport {
                passed_both_ways: false,
                last_sent_at: None,
                end: None,
            }));
        }
    }
}

async fn observe(link: &Link, listener: OwnedFd) -> io::Result<CanaryReport> {
    let (client, server) = timeout(CONNECT_TIMEOUT, connect(listener)).await??;
    let cookie = rustix::net::sockopt::socket_cookie(&server)?;
    let opened = link.open_canary(cookie).await;
    opened.map_err(|refusal| io::Error::other(refusal.to_string()))?;

    let (from_server, to_server) = client.into_split();
    let (from_client, to_client) = server.into_split();
    let downwards = Arc::new(AtomicU64::new(0));
    let upwards = Arc::new(AtomicU64::new(0));
    let mut others = JoinSet::new();
    others.spawn(async move {
        send(to_client).await;
    });
    let server = receive(from_client, Arc::clone(&upwards));
    others.spawn(async move {
        let _: CanaryEnd = server.await;
    });
    // The kernel tells of a reset once: to whoever of the two asks first.
    let sending = async {
        if send(to_server).await != io::ErrorKind::ConnectionReset {
            std::future::pending::<()>().await;
        }
        CanaryEnd::Reset(boot_now())
    };
    let ended = async {
        tokio::select! {
            biased;
            end = sending => end,
            end = receive(from_server, Arc::clone(&downwards)) => end,
        }
    };
    let end = timeout(END_TIMEOUT, ended).await;
    others.shutdown().await;

    let last = |at: &AtomicU64| Some(at.load(Ordering::Relaxed)).filter(|at| *at > 0);
    let (down, up) = (last(&downwards), last(&upwards));
    Ok(CanaryReport {
        passed_both_ways: down.is_some() && up.is_some(),
        last_sent_at: down.max(up).map(BootInstant::from_nanos),
        end: end.ok(),
    })
}

/// Both ends of a connection to `listener`. Others on this host may connect to it, too.
async fn connect(listener: OwnedFd) -> io::Result<(TcpStream, TcpStream)> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let ours = client.local_addr()?;
    let server = loop {
        let (server, peer) = listener.accept().await?;
        if peer == ours {
            break server;
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

/// Sends the time, again and again, until that fails.
async fn send(mut to: OwnedWriteHalf) -> io::ErrorKind {
    let mut interval = interval(SEND_INTERVAL);
    loop {
        interval.tick().await;
        let now = boot_now().as_nanos().to_be_bytes();
        if let Err(error) = to.write_all(&now).await {
            return error.kind();
        }
    }
}

/// Notes the last time that was received, to the connection's end.
async fn receive(mut from: OwnedReadHalf, last: Arc<AtomicU64>) -> CanaryEnd {
    loop {
        match from.read_u64().await {
            Ok(sent_at) => drop(last.fetch_max(sent_at, Ordering::Relaxed)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return CanaryEnd::Reset(boot_now());
            }
            Err(_) => return CanaryEnd::Closed(boot_now()),
        }
    }
}
