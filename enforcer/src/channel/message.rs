//! The messages.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    clock::{BootInstant, WallInstant},
    metrics::GatewayFigures,
    session::{CertificateId, Credential, EndReason, KeyThumbprint, SessionId},
};

/// Number that the gateway gives a message that wants an answer; the answer carries it back.
pub type Request = u32;

/// Stands for the listener of `[metrics]` among the names of listeners, none of which can be this.
pub const METRICS_LISTENER: &str = "[metrics]";

/// From gateway to warden.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWarden {
    /// Sealed and serving.
    Ready,
    /// It can't serve with this configuration, and ends.
    CannotStart {
        /// Why.
        reason: String,
    },
    /// Open the credential's session, or join the live one, under these policies, and bind
    /// the client's socket to it if it isn't yet. Answer: `Opened` or `Refused`.
    Open {
        /// For the answer.
        request: Request,
        /// Cookie of the client's socket.
        cookie: u64,
        /// Who.
        credential: Credential,
        /// Names of the policies that apply to the request.
        policies: Vec<String>,
        /// The client, as the proxy at the socket's other end announced it.
        announced_client: Option<SocketAddr>,
    },
    /// Find the credential's live session without opening one, renew it if the credential is newer,
    /// and bind the client's socket to it if it isn't yet. Answer: `Found` or `Refused`.
    Find {
        /// For the answer.
        request: Request,
        /// Cookie of the client's socket.
        cookie: u64,
        /// Who.
        credential: Credential,
        /// How closely the credential must be related to the session.
        kinship: Kinship,
        /// The client, as the proxy at the socket's other end announced it.
        announced_client: Option<SocketAddr>,
    },
    /// Bind a socket of the gateway's to a session. Answer: `Bound` or `Refused`.
    Bind {
        /// For the answer.
        request: Request,
        /// Cookie of the socket.
        cookie: u64,
        /// The session.
        session: SessionId,
        /// What the socket is to it.
        role: BoundRole,
        /// Where the client asked to be connected to, if it did: for the audit log.
        target: Option<String>,
    },
    /// A newer credential on a connection that is bound to the session. Answer: `Opened` or
    /// `Refused`.
    Renew {
        /// For the answer.
        request: Request,
        /// The session that the connection is bound to.
        session: SessionId,
        /// The newer credential.
        credential: Credential,
    },
    /// The client did something; sent at most once a second for each session. No answer.
    Touch {
        /// The session.
        session: SessionId,
        /// When.
        at: BootInstant,
    },
    /// The session is to end. No answer but `Ended`.
    End {
        /// The session.
        session: SessionId,
        /// Why.
        cause: EndCause,
    },
    /// These are all the keys that an issuer had at an instant: sessions that none of them vouches
    /// for end. No answer but `Ended` for each.
    IssuerKeys {
        /// `iss`.
        issuer: String,
        /// What its tokens may be signed with.
        keys: Vec<KeyThumbprint>,
        /// When it was asked for them: credentials that were accepted later are not judged.
        as_of: BootInstant,
    },
    /// These certificates are revoked: sessions that stand on one of them end. No answer but
    /// `Ended` for each.
    RevokedCertificates {
        /// Those that were told before are revoked no more, unless they are told again.
        anew: bool,
        /// Some of a list.
        certificates: Vec<CertificateId>,
    },
    /// A request was refused, for the audit log. No answer.
    RefusedRequest(RefusedRequest),
    /// A request went on that a policy would have refused which is only observed, for the audit
    /// log. No answer.
    ObservedRequest(RefusedRequest),
    /// The answer to `Export`.
    Exported {
        /// Of the batch.
        exporter: String,
        /// Of the batch.
        batch: u64,
        /// What became of it.
        outcome: ExportOutcome,
    },
    /// What happened since the last one. No answer.
    Counted(Box<GatewayFigures>),
    /// Somebody reads the figures. Answer: `Figures`.
    Scraped {
        /// For the answer.
        request: Request,
    },
    /// The canary's connection is there. Answer: `Opened` or `Refused`.
    CanaryReady {
        /// For the answer.
        request: Request,
        /// Cookie of the accepted socket.
        cookie: u64,
    },
    /// How the canary went. No answer.
    CanaryReport(CanaryReport),
    /// What became of a `Deliver`. No answer.
    Delivered {
        /// Name of the receiver.
        webhook: String,
        /// Id of the alert.
        id: String,
        /// Why it was not taken, if it was not.
        failure: Option<String>,
    },
    /// The answer to `HandOver`: names of the listeners, whose sockets come along in this order.
    Listeners {
        /// Names, as in the configuration.
        names: Vec<String>,
    },
}

/// Most bytes of records in a batch for an exporter: with what is around them it fits a packet.
pub const MAX_EXPORT: usize = 40 * 1024;

/// Audit records for an exporter that reaches out to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportBatch {
    /// Its name in the configuration.
    pub exporter: String,
    /// For the answer.
    pub batch: u64,
    /// One JSON object each.
    pub records: Vec<String>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportOutcome {
    /// The receiver has it.
    Delivered,
    /// The receiver will not take it, whenever it is asked.
    Rejected(String),
    /// It is to be tried again.
    Failed(String),
    /// It is to be tried again, with what was delivered just before: the receiver is gone, and does
    /// not acknowledge what it takes.
    Interrupted(String),
}

/// A refused request, for the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedRequest {
    /// The stable code of the answer (`invalid_token`, `not_found`, ..).
    pub code: String,
    /// What was wrong, in words.
    pub detail: String,
    /// The client, as its proxy announced it if there is one.
    pub client: SocketAddr,
    /// Name of the listener.
    pub listener: String,
    /// Cookie of the client's socket.
    pub cookie: u64,
    /// Issuer and subject where they were established.
    pub principal: Option<crate::session::Principal>,
}

/// Why a gateway has a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// The user logs out.
    Logout,
    /// The issuer says that its token is not active any more.
    TokenInactive,
    /// The issuer could not be asked about its token for too long.
    TokenUnconfirmed,
}

impl From<EndCause> for EndReason {
    fn from(cause: EndCause) -> Self {
        match cause {
            EndCause::Logout => Self::Logout,
            EndCause::TokenInactive => Self::TokenInactive,
            EndCause::TokenUnconfirmed => Self::TokenUnconfirmed,
        }
    }
}

/// An alert for a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Name of the receiver.
    pub webhook: String,
    /// Id of the alert.
    pub id: String,
    /// What is sent.
    pub body: String,
}

/// How a canary went, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// Payload came through in both directions.
    pub passed_both_ways: bool,
    /// When the last payload that came through was sent, in either direction.
    pub last_sent_at: Option<BootInstant>,
    /// How the client's end of the connection ended, if it did.
    pub end: Option<CanaryEnd>,
}

/// How a connection ended, and when that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanaryEnd {
    /// By a reset.
    Reset(BootInstant),
    /// In any other way.
    Closed(BootInstant),
}

/// How a credential leads to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kinship {
    /// By its key, or as the newer credential of the same principal and client on a connection
    /// that is bound to the session.
    Own,
    /// Also as the newer credential of the same principal and client, if that is only one
    /// session's.
    Successor,
}

/// What a bound socket is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BoundRole {
    /// Accepted from the client.
    Client,
    /// Connected to an upstream for this session alone.
    Upstream,
}

/// From warden to gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToGateway {
    /// First message to a new gateway. File descriptors: the configuration (a memfd with the
    /// file's text), the handover socket (listening), then the listeners in the order of `names`.
    Start {
        /// Folder that relative paths in the configuration start from, and the file's name for
        /// messages.
        config_path: std::path::PathBuf,
        /// Names of the listeners, as in the configuration.
        names: Vec<String>,
    },
    /// The answer to `Open` and `Renew`.
    Opened {
        /// Of the message.
        request: Request,
        /// The session.
        session: SessionView,
    },
    /// The answer to `Find`.
    Found {
        /// Of the message.
        request: Request,
        /// The session.
        session: SessionView,
        /// What only the warden knows of it.
        usage: SessionUsage,
    },
    /// The answer to `Bind`: it is in the map.
    Bound {
        /// Of the message.
        request: Request,
    },
    /// The answer to `Open`, `Find`, `Renew` or `Bind`.
    Refused {
        /// Of the message.
        request: Request,
        /// Why.
        refusal: Refusal,
    },
    /// The session's limits changed (renewed, or another policy joined).
    Changed {
        /// The session as it is now.
        session: SessionView,
    },
    /// Limits of sessions changed with the configuration; of as many as fit a message.
    Relimited {
        /// The limits as they are now.
        sessions: Vec<SessionLimits>,
    },
    /// The session ends soon, within `warn_before`, as things stand.
    Warning {
        /// The session.
        session: SessionId,
        /// Why it will end.
        reason: EndReason,
        /// When.
        limit: BootInstant,
    },
    /// Say goodbye on the session's connections: the cut comes at `limit`.
    Farewell {
        /// The session.
        session: SessionId,
        /// Why it will end.
        reason: EndReason,
        /// When.
        limit: BootInstant,
    },
    /// The session is over and its sockets have been reset.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// Pass records on to the receiver that the configuration names. Answer: `Exported`.
    Export(ExportBatch),
    /// The answer to `Scraped`. File descriptor: a memfd with the text.
    Figures {
        /// Of the message.
        request: Request,
    },
    /// Send an alert to its receiver. Answer: `Delivered`.
    Deliver(Delivery),
    /// Play the client of a canary. File descriptor: the listener to connect to and to accept on.
    Canary,
    /// Send the listeners (answer: `Listeners`) and stop accepting.
    HandOver,
    /// Serve what is there to its end, then exit.
    Drain,
}

/// A session, as the gateway needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The id.
    pub id: SessionId,
    /// When it started.
    pub started_at: WallInstant,
    /// When it ends whatever it does.
    pub deadline: BootInstant,
    /// The idle timeout in force.
    pub idle_timeout: Option<Duration>,
    /// How long before the end it counts as expiring.
    pub warn_before: Duration,
    /// Limits are enforced (and not only observed).
    pub enforced: bool,
    /// Latest `exp` of its credentials: an older token of the same key does not renew.
    pub token_expires_at: WallInstant,
    /// Names of the policies that apply.
    pub policies: Vec<String>,
}

/// Of a session, what a changed configuration may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// The id.
    pub id: SessionId,
    /// When it ends whatever it does.
    pub deadline: BootInstant,
    /// The idle timeout in force.
    pub idle_timeout: Option<Duration>,
    /// How long before the end it counts as expiring.
    pub warn_before: Duration,
    /// Limits are enforced (and not only observed).
    pub enforced: bool,
}

/// What a session has used, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionUsage {
    /// Its open connections.
    pub connections: usize,
    /// Its deadline, by the wall clock.
    pub deadline: WallInstant,
    /// When it ends if nothing more is heard of the client.
    pub idle_at: Option<BootInstant>,
}

/// Why the warden refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The session of this key has ended.
    #[error("the session has ended ({0})")]
    SessionEnded(EndReason),
    /// The route's policy would have ended the session already.
    #[error("the session is older than this resource allows")]
    SessionTooOld,
    /// It is outside the hours of a policy.
    #[error("outside the hours of a policy")]
    OutsideHours,
    /// The session is bound to the network of its first connection.
    #[error("the session is bound to another network")]
    AnotherNetwork,
    /// The session has as many connections as it may have.
    #[error("the session has too many connections")]
    TooManyConnections,
    /// The subject has as many sessions as it may have.
    #[error("the subject has too many sessions")]
    TooManySessions,
    /// The credential belongs to another session than the connection.
    #[error("the connection belongs to another session")]
    AnotherSession,
    /// No live session is the credential's.
    #[error("no session is open for this token")]
    NoSession,
    /// A map is full.
    #[error("no room for another session or connection")]
    Capacity,
    /// The socket is not one that may be bound: unknown, of another role, or bound already.
    #[error("the socket cannot be bound")]
    UnbindableSocket,
    /// The policy does not exist.
    #[error("the policy is unknown")]
    UnknownPolicy,
    /// The warden is in no state to decide.
    #[error("the warden cannot decide now")]
    Unavailable,
}

impl Refusal {
    /// The stable code, as in answers and in the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SessionEnded(_) => "session_ended",
            Self::SessionTooOld => "session_too_old",
            Self::OutsideHours => "outside_hours",
            Self::AnotherNetwork => "another_network",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManySessions => "too_many_sessions",
            Self::AnotherSession => "another_session",
            Self::NoSession => "no_session",
            Self::Capacity => "capacity",
            Self::UnbindableSocket => "unbindable_socket",
            Self::UnknownPolicy => "unknown_policy",
            Self::Unavailable => "unavailable",
        }
    }
}
