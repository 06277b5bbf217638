//! The link to the warden: requests and their answers, reports, and what the warden says unasked.
//!
//! ```text
//!          the channel breaks              a warden connects to the handover socket
//!   Up ------------------------> Down ---------------------------------------------> Up
//!    |  HandOver: listeners go back          serves its sessions on, opens none,
//!    v  Drain: finish, then exit             accepts nothing
//!  Leaving
//! ```

mod driver;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_seqpacket::UnixSeqpacketListener;
use tracing::debug;

pub(crate) use self::driver::Driver;
use crate::{
    channel::{
        BoundRole, ExportBatch, ExportOutcome, Kinship, Refusal, Request, SessionUsage, ToGateway,
        ToWarden,
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
    outbound: mpsc::Sender<Outbound>,
    /// Held while a canary is played.
    canary: tokio::sync::Mutex<()>,
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
            canary: tokio::sync::Mutex::default(),
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
        if !self.orders.borrow().linked || self.outbound.try_send(message.into()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says something that must not be lost for want of room, as soon as there is a link. Only a
    /// broken one swallows it.
    pub(crate) async fn deliver(&self, message: ToWarden) {
        let mut orders = self.orders();
        if orders.wait_for(|orders| orders.linked).await.is_ok() {
            let _ = self.outbound.send(message.into()).await;
        }
    }

    /// Before the gateway exits: waits until a canary has been played to its end, and the warden,
    /// if there is one, has been told everything.
    pub(crate) async fn finish(&self) {
        let _played = self.canary.lock().await;
        let (mark, told) = oneshot::channel();
        if self.orders.borrow().linked {
            let sent = async {
                self.outbound.send(Outbound::Mark(mark)).await.ok()?;
                told.await.ok()
            };
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, sent).await;
        }
    }

    async fn ask(&self, message: impl FnOnce(Request) -> ToWarden) -> Answer {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.pending().insert(request, sender);
        // The order matters: who breaks the link first says so, then fails what is pending.
        let answer = if self.orders.borrow().linked {
            tokio::time::timeout(ANSWER_TIMEOUT, async {
                self.outbound.send(message(request).into()).await.ok()?;
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
                    let link = Arc::clone(self);
                    tokio::spawn(async move {
                        let _playing = link.canary.lock().await;
                        canary::play(&link, listener).await;
                    });
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

/// What goes through the queue to the warden.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "all but a gateway's last one are messages: a box for each would be for nothing"
)]
enum Outbound {
    Message(ToWarden),
    /// Answered when what was before it has been sent.
    Mark(oneshot::Sender<()>),
}

impl From<ToWarden> for Outbound {
    fn from(message: ToWarden) -> Self {
        Self::Message(message)
    }
}

fn expect_session(answer: Answer) -> Result<SessionHandle, Refusal> {
    match answer {
        Answer::Opened(handle) => Ok(handle),
        Answer::Refused(refusal) => Err(refusal),
        _ => Err(Refusal::Unavailable),
    }
}
