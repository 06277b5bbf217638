//! The link to the warden: requests and their answers, reports, and what the warden says unasked.
//!
//! ```text
//!          the channel breaks              a warden connects to the handover socket
//!   Up ------------------------> Down ---------------------------------------------> Up
//!    |  HandOver: listeners go back          serves its sessions on, opens none,
//!    v  Drain: finish, then exit             accepts nothing
//!  Leaving
//! ```

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_seqpacket::UnixSeqpacketListener;
use tracing::{debug, error, info, warn};

use crate::{
    channel::{
        BoundRole, ExportBatch, ExportOutcome, Kinship, Refusal, Request, SessionUsage, ToGateway,
        ToWarden, Transport,
    },
    gateway::{
        canary,
        sessions::{SessionHandle, SessionTable},
        stages::Client,
        webhook::{self, Webhooks},
    },
    session::{Credential, SessionId},
};

/// Longest wait for an answer. A warden that is stopped must not hold clients for long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Messages that may wait for the warden.
const QUEUE: usize = 4096;
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// After a failed accept or a connection that is not the warden's.
const HANDOVER_RETRY: Duration = Duration::from_millis(100);
/// Longest wait for a new warden to ask for the listeners, and to take them.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the gateway is to do, as the warden or a signal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The channel is up.
    pub(crate) linked: bool,
    /// Take new connections.
    pub(crate) accept: bool,
    /// Finish what is there, then exit.
    pub(crate) drain: bool,
}

impl Orders {
    /// Waits until the gateway is to finish.
    pub(crate) async fn drained(orders: &mut watch::Receiver<Self>) {
        if orders.wait_for(|orders| orders.drain).await.is_err() {
            // Nobody is left to say so.
            std::future::pending::<()>().await;
        }
    }
}

/// The gateway's side of the channel.
#[derive(Debug)]
pub(crate) struct Link {
    outbound: mpsc::Sender<ToWarden>,
    pending: Mutex<HashMap<Request, oneshot::Sender<Answer>>>,
    next: AtomicU32,
    lost: AtomicU64,
    orders: watch::Sender<Orders>,
    sessions: SessionTable,
    /// To whoever passes audit records on.
    exports: OnceLock<mpsc::Sender<ExportBatch>>,
    webhooks: Webhooks,
}

#[derive(Debug)]
enum Answer {
    Opened(SessionHandle),
    Found(SessionHandle, SessionUsage),
    Bound,
    Figures(OwnedFd),
    Refused(Refusal),
}

/// The driver's half: what the link needs to reach the warden.
pub(crate) struct Driver {
    link: Arc<Link>,
    outbound: mpsc::Receiver<ToWarden>,
    handover: UnixSeqpacketListener,
    /// Names and sockets of the listeners, until they are handed over.
    listeners: Vec<(String, OwnedFd)>,
}

impl Link {
    /// A link, which [`Driver::run`] brings to life.
    pub(crate) fn new(
        handover: UnixSeqpacketListener,
        listeners: Vec<(String, OwnedFd)>,
        webhooks: Webhooks,
    ) -> (Arc<Self>, Driver) {
        let (sender, outbound) = mpsc::channel(QUEUE);
        let link = Arc::new(Self {
            outbound: sender,
            pending: Mutex::default(),
            next: AtomicU32::new(0),
            lost: AtomicU64::new(0),
            orders: watch::Sender::new(Orders {
                linked: false,
                accept: false,
                drain: false,
            }),
            sessions: SessionTable::default(),
            exports: OnceLock::new(),
            webhooks,
        });
        let driver = Driver {
            link: Arc::clone(&link),
            outbound,
            handover,
            listeners,
        };
        (link, driver)
    }

    /// What is to be done, now and later.
    pub(crate) fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// Finish what is there, then exit.
    pub(crate) fn drain(&self) {
        self.orders.send_modify(|orders| {
            orders.accept = false;
            orders.drain = true;
        });
    }

    /// Opens or joins the credential's session and binds the client's socket to it.
    pub(crate) async fn open(
        &self,
        client: &Client,
        credential: &Credential,
        policies: &[String],
    ) -> Result<SessionHandle, Refusal> {
        let answer = self.ask(|request| ToWarden::Open {
            request,
            cookie: client.cookie(),
            credential: credential.clone(),
            policies: policies.to_vec(),
            announced_client: client.announced(),
        });
        expect_session(answer.await)
    }

    /// Finds the credential's live session and binds the client's socket to it.
    pub(crate) async fn find(
        &self,
        client: &Client,
        credential: &Credential,
        kinship: Kinship,
    ) -> Result<(SessionHandle, SessionUsage), Refusal> {
        let answer = self.ask(|request| ToWarden::Find {
            request,
            cookie: client.cookie(),
            credential: credential.clone(),
            kinship,
            announced_client: client.announced(),
        });
        match answer.await {
            Answer::Found(session, usage) => Ok((session, usage)),
            Answer::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::Unavailable),
        }
    }

    /// Opens the canary's session and binds this socket to it.
    pub(crate) async fn open_canary(&self, cookie: u64) -> Result<SessionHandle, Refusal> {
        let answer = self.ask(|request| ToWarden::CanaryReady { request, cookie });
        expect_session(answer.await)
    }

    /// The daemon's figures as text, in a file. `None` if the warden does not answer.
    pub(crate) async fn figures(&self) -> Option<OwnedFd> {
        match self.ask(|request| ToWarden::Scraped { request }).await {
            Answer::Figures(file) => Some(file),
            _ => None,
        }
    }

    /// The receivers of alerts.
    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// How many reports were lost since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Renews a session with a newer credential.
    pub(crate) async fn renew(
        &self,
        session: SessionId,
        credential: &Credential,
    ) -> Result<SessionHandle, Refusal> {
        let answer = self.ask(|request| ToWarden::Renew {
            request,
            session,
            credential: credential.clone(),
        });
        expect_session(answer.await)
    }

    /// Binds an upstream's socket to a session. When this returns, it is in the map.
    pub(crate) async fn bind_upstream(
        &self,
        cookie: u64,
        session: SessionId,
        target: Option<String>,
    ) -> Result<(), Refusal> {
        let answer = self.ask(|request| ToWarden::Bind {
            request,
            cookie,
            session,
            role: BoundRole::Upstream,
            target,
        });
        match answer.await {
            Answer::Bound => Ok(()),
            Answer::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::Unavailable),
        }
    }

    /// Reports something that needs no answer. What the queue does not take is counted.
    pub(crate) fn tell(&self, message: ToWarden) {
        if !self.orders.borrow().linked || self.outbound.try_send(message).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says something that must not be lost for want of room, as soon as there is a link. Only a
    /// broken one swallows it.
    pub(crate) async fn deliver(&self, message: ToWarden) {
        let mut orders = self.orders();
        if orders.wait_for(|orders| orders.linked).await.is_ok() {
            let _ = self.outbound.send(message).await;
        }
    }

    async fn ask(&self, message: impl FnOnce(Request) -> ToWarden) -> Answer {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.pending().insert(request, sender);
        // The order matters: who breaks the link first says so, then fails what is pending.
        let answer = if self.orders.borrow().linked {
            tokio::time::timeout(ANSWER_TIMEOUT, async {
                self.outbound.send(message(request)).await.ok()?;
                answer.await.ok()
            })
            .await
            .ok()
            .flatten()
        } else {
            None
        };
        self.pending().remove(&request);
        answer.unwrap_or(Answer::Refused(Refusal::Unavailable))
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Request, oneshot::Sender<Answer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: Request, answer: Answer) {
        match self.pending().remove(&request) {
            // The asker may have gone meanwhile.
            Some(sender) => drop(sender.send(answer)),
            None => debug!(request, "an answer that nobody waits for"),
        }
    }

    /// The session is in the table before whoever asked goes on, so that no later word of the
    /// warden about it is missed.
    fn receive(self: &Arc<Self>, message: ToGateway, fds: Vec<OwnedFd>) {
        match message {
            ToGateway::Figures { request } => {
                if let Some(file) = fds.into_iter().next() {
                    self.answer(request, Answer::Figures(file));
                }
            }
            ToGateway::Deliver(delivery) => {
                tokio::spawn(webhook::deliver(Arc::clone(self), delivery));
            }
            ToGateway::Canary => {
                if let Some(listener) = fds.into_iter().next() {
                    tokio::spawn(canary::play(Arc::clone(self), listener));
                }
            }
            ToGateway::Opened { request, session } => {
                let handle = self.sessions.opened(session);
                self.answer(request, Answer::Opened(handle));
            }
            ToGateway::Found {
                request,
                session,
                usage,
            } => {
                let handle = self.sessions.opened(session);
                self.answer(request, Answer::Found(handle, usage));
            }
            ToGateway::Bound { request } => self.answer(request, Answer::Bound),
            ToGateway::Refused { request, refusal } => {
                self.answer(request, Answer::Refused(refusal));
            }
            ToGateway::Export(batch) => self.export(batch),
            ToGateway::Drain => self.drain(),
            ToGateway::Start { .. } | ToGateway::HandOver => {}
            push => self.sessions.apply(&push),
        }
    }

    /// From now on audit records go there.
    pub(crate) fn take_exports(&self, exports: mpsc::Sender<ExportBatch>) {
        // There is one taker, at the start.
        let _ = self.exports.set(exports);
    }

    fn export(&self, batch: ExportBatch) {
        let full = match self.exports.get().map(|exports| exports.try_send(batch)) {
            Some(Err(mpsc::error::TrySendError::Full(batch))) => batch,
            // Without a taker nobody answers, and the warden tries again.
            _ => return,
        };
        self.tell(ToWarden::Exported {
            exporter: full.exporter,
            batch: full.batch,
            outcome: ExportOutcome::Failed("too many batches wait".to_owned()),
        });
    }

    fn sweep(&self) {
        self.sessions.sweep();
    }

    fn came_up(&self) {
        self.orders.send_modify(|orders| orders.linked = true);
    }

    fn went_down(&self) {
        self.orders.send_modify(|orders| {
            orders.linked = false;
            orders.accept = false;
        });
        self.pending().clear();
    }
}

fn expect_session(answer: Answer) -> Result<SessionHandle, Refusal> {
    match answer {
        Answer::Opened(handle) => Ok(handle),
        Answer::Refused(refusal) => Err(refusal),
        _ => Err(Refusal::Unavailable),
    }
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
            while self.outbound.try_recv().is_ok() {
                self.link.lost.fetch_add(1, Ordering::Relaxed);
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
                        Some(message) => transport.send(&message).await?,
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
