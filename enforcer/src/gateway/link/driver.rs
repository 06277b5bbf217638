//! Carries the link's words to the warden and back, over every change of wardens.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_seqpacket::UnixSeqpacketListener;
use tracing::{error, info, warn};

use super::{Link, Outbound};
use crate::channel::{ToGateway, ToWarden, Transport};

/// After a failed accept or a connection that is not the warden's.
const HANDOVER_RETRY: Duration = Duration::from_millis(100);
/// Longest wait for a new warden to ask for the listeners, and to take them.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The driver's half: what the link needs to reach the warden.
pub(crate) struct Driver {
    pub(super) link: Arc<Link>,
    pub(super) outbound: mpsc::Receiver<Outbound>,
    pub(super) handover: UnixSeqpacketListener,
    /// Names and sockets of the listeners, until they are handed over.
    pub(super) listeners: Vec<(String, OwnedFd)>,
}

impl Driver {
    /// Serves the link for as long as the process lives, starting with the first warden.
    pub(crate) async fn run(mut self, first: Transport) {
        self.link.came_up();
        self.link
            .orders
            .send_modify(|orders| orders.accept = !orders.drain);
        if let Err(error) = first.send(&ToWarden::Ready).await {
            error!(%error, "cannot tell the warden that the gateway is ready");
        }
        let mut transport = first;
        loop {
            match self.serve(&transport).await {
                Ok(()) => warn!("the warden is gone; serving on for the sessions that are bound"),
                Err(error) => error!(%error, "the channel to the warden broke"),
            }
            self.link.went_down();
            transport = self.next_warden().await;
            while let Ok(lost) = self.outbound.try_recv() {
                if let Outbound::Message(_) = lost {
                    self.link.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.link.came_up();
        }
    }

    async fn serve(&mut self, transport: &Transport) -> io::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        // Neither direction waits for the other: a packet that is being received is never
        // dropped, and the warden may be busy sending while it is sent to.
        let receiving = async {
            loop {
                match transport.recv::<ToGateway>().await? {
                    None => return io::Result::Ok(()),
                    Some((ToGateway::HandOver, _)) => {
                        hand_over(&self.link, transport, &mut self.listeners).await?
                    }
                    Some((message, fds)) => {
                        if matches!(message, ToGateway::Drain) {
                            // What is not accepted here any more is another gateway's, or nobody's.
                            self.listeners.clear();
                        }
                        self.link.receive(message, fds);
                    }
                }
            }
        };
        let sending = async {
            loop {
                tokio::select! {
                    message = self.outbound.recv() => match message {
                        Some(Outbound::Message(message)) => transport.send(&message).await?,
                        // Who asks may have left.
                        Some(Outbound::Mark(told)) => drop(told.send(())),
                        None => return io::Result::Ok(()),
                    },
                    _ = sweep.tick() => self.link.sweep(),
                }
            }
        };
        tokio::select! {
            result = receiving => result,
            result = sending => result,
        }
    }

    /// Waits for a warden that takes over.
    async fn next_warden(&mut self) -> Transport {
        loop {
            match self.accept_warden().await {
                Ok(transport) => return transport,
                Err(error) => warn!(%error, "no warden on the handover socket"),
            }
            tokio::time::sleep(HANDOVER_RETRY).await;
        }
    }

    /// Only root may be the warden. The first thing that a new one wants is the listeners; only
    /// then does it listen to anything else. Activity that the last one did not hear follows.
    async fn accept_warden(&mut self) -> io::Result<Transport> {
        let transport = Transport::new(self.handover.accept().await?.into())?;
        let uid = transport.peer_uid()?;
        if uid != 0 {
            let message = format!("user {uid} may not take this gateway over");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let link = Arc::clone(&self.link);
        let greeting = async {
            loop {
                match transport.recv::<ToGateway>().await? {
                    None => return io::Result::Err(io::ErrorKind::UnexpectedEof.into()),
                    Some((ToGateway::HandOver, _)) => break,
                    Some((message, fds)) => link.receive(message, fds),
                }
            }
            hand_over(&link, &transport, &mut self.listeners).await?;
            for touch in link.sessions.activity() {
                transport.send(&touch).await?;
            }
            Ok(())
        };
        tokio::time::timeout(HANDOVER_TIMEOUT, greeting)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(transport)
    }
}

async fn hand_over(
    link: &Link,
    transport: &Transport,
    listeners: &mut Vec<(String, OwnedFd)>,
) -> io::Result<()> {
    link.orders.send_modify(|orders| orders.accept = false);
    let names = listeners.iter().map(|(name, _)| name.clone()).collect();
    let fds: Vec<_> = listeners.iter().map(|(_, fd)| fd.as_fd()).collect();
    transport
        .send_with_fds(&ToWarden::Listeners { names }, &fds)
        .await?;
    info!(listeners = fds.len(), "handed the listeners over");
    listeners.clear();
    Ok(())
}
