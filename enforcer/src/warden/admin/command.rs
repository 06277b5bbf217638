//! What the admin API asks of the warden's core.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    Peer, ReloadOutcome, ReloadRefused, ReloadRequest, SessionDetail, SessionInfo, SimulateOutcome,
    SimulateRequest, StatusReport,
};
use crate::{session::SessionId, warden::canary::CanaryStatus};

/// Where an answer goes. Who asked may have left: then it goes nowhere.
pub type Reply<T> = oneshot::Sender<T>;

/// A request to the core.
#[derive(Debug)]
pub enum AdminCommand {
    /// How is everything?
    Status {
        /// Where the answer goes.
        reply: Reply<StatusReport>,
    },
    /// The live sessions.
    Sessions {
        /// Where the answer goes.
        reply: Reply<Vec<SessionInfo>>,
    },
    /// One live session with its connections.
    Session {
        /// Which.
        id: SessionId,
        /// Where the answer goes; `None` if there is no such session.
        reply: Reply<Option<SessionDetail>>,
    },
    /// End sessions now. The answer comes when their keys' end is on the disk.
    Revoke {
        /// Which.
        selector: Selector,
        /// Why, in the operator's words.
        reason: Option<String>,
        /// Who wants it.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply<RevokeOutcome>,
    },
    /// Apply another configuration, all or nothing.
    Reload {
        /// Which, and under which conditions.
        request: ReloadRequest,
        /// Who wants it.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply<Result<ReloadOutcome, ReloadRefused>>,
    },
    /// Tell what another configuration would do to the live sessions.
    Simulate {
        /// Which.
        request: SimulateRequest,
        /// Where the answer goes.
        reply: Reply<Result<SimulateOutcome, ReloadRefused>>,
    },
    /// All figures, as text.
    Metrics {
        /// Where the answer goes.
        reply: Reply<String>,
    },
    /// Run a canary now. The answer comes when it is over.
    Canary {
        /// Where the answer goes.
        reply: Reply<CanaryStatus>,
    },
    /// End all sessions, detach, unpin, stop. The answer comes before the daemon exits.
    Unload {
        /// Who wants it.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply<Result<UnloadOutcome, CommandFailed>>,
    },
}

/// The core tried and could not; the message says what and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommandFailed(pub String);

/// Which sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// This one.
    Id(SessionId),
    /// All of the subject's, whoever issued it.
    Subject(String),
    /// All.
    All,
}

/// Body of `POST /v1/revoke`: exactly one of `id`, `subject` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// This session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SessionId>,
    /// All sessions of this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// All sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Why, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl RevokeRequest {
    /// Asks to revoke what `selector` names.
    pub fn new(selector: Selector, reason: Option<String>) -> Self {
        let mut request = Self {
            reason,
            ..Self::default()
        };
        match selector {
            Selector::Id(id) => request.id = Some(id),
            Selector::Subject(subject) => request.subject = Some(subject),
            Selector::All => request.all = true,
        }
        request
    }

    /// What is to be revoked; `None` if it is not exactly one thing.
    pub fn selector(&self) -> Option<Selector> {
        match (self.id, &self.subject, self.all) {
            (Some(id), None, false) => Some(Selector::Id(id)),
            (None, Some(subject), false) => Some(Selector::Subject(subject.clone())),
            (None, None, true) => Some(Selector::All),
            _ => None,
        }
    }
}

/// What a revocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeOutcome {
    /// Sessions ended.
    pub sessions: usize,
    /// Their connections, client legs and exclusive upstream legs.
    pub connections: usize,
    /// Their keys' end is on the disk: it holds over a restart of the daemon.
    pub durable: bool,
}

/// What unloading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadOutcome {
    /// Sessions ended.
    pub sessions: usize,
    /// Their connections.
    pub connections: usize,
}
