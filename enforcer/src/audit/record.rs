//! One line of the audit log.

use std::{borrow::Cow, fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    chain::{ChainId, Hash},
    rfc3339,
};
use crate::{
    channel::BoundRole,
    clock::WallInstant,
    session::{IdleGaps, Principal, SessionId},
};

/// Declares the events with their stable names.
macro_rules! events {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)+) => {
        /// What a record tells of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Event {
            $($(#[$meta])* #[serde(rename = $name)] $variant,)+
        }

        impl Event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name, as in the log.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

events! {
    /// A credential opened a session.
    SessionOpened = "session_opened",
    /// A newer credential, or another policy, changed a session's limits.
    SessionRenewed = "session_renewed",
    /// A request, a credential or a renewal was refused; `reason` says why.
    SessionRefused = "session_refused",
    /// A session came within `warn_before` of its end.
    SessionWarned = "session_warned",
    /// A session ended; `reason` says why.
    SessionEnded = "session_ended",
    /// A session lives on; how long its client has paused so far.
    SessionActivity = "session_activity",
    /// A session that is only observed met its limit; nothing was cut.
    SessionObserved = "session_observed",
    /// What a policy that is only observed would have refused; `reason` says why.
    RequestObserved = "request_observed",
    /// A connection was bound to a session.
    ConnectionOpened = "connection_opened",
    /// A connection's socket closed; its counters are final.
    ConnectionClosed = "connection_closed",
    /// Something that must not happen was tried, and stopped.
    Violation = "violation",
    /// Limits that come from the wall clock were shortened because it stepped.
    LimitsTightened = "limits_tightened",
    /// The daemon started.
    DaemonStarted = "daemon_started",
    /// The daemon stopped in good order.
    DaemonStopped = "daemon_stopped",
    /// A gateway serves.
    GatewayStarted = "gateway_started",
    /// A gateway is gone.
    GatewayDied = "gateway_died",
    /// Another configuration was applied.
    ConfigApplied = "config_applied",
    /// A configuration was refused, and nothing changed; `reason` says why.
    ConfigRefused = "config_refused",
    /// A detector found something that deserves attention; `reason` is its name.
    Alert = "alert",
    /// The daemon's own short session was cut by the kernel as it should be.
    CanaryPassed = "canary_passed",
    /// It was not; `reason` says what is wrong.
    CanaryFailed = "canary_failed",
    /// Records were lost before this one; `lost` says how many.
    AuditLost = "audit_lost",
    /// A chain of records begins; `reason` says why.
    AuditChainStarted = "audit_chain_started",
    /// A key to sign heads with was made.
    AuditKeyCreated = "audit_key_created",
    /// The oldest records were removed, in good order.
    AuditPruned = "audit_pruned",
    /// The log is not the one that its last signed head speaks of.
    AuditTampered = "audit_tampered",
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an event: write one of {names}", names = event_names())]
pub struct UnknownEvent(String);

fn event_names() -> String {
    let names: Vec<_> = Event::ALL.iter().map(|event| event.as_str()).collect();
    names.join(", ")
}

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| UnknownEvent(text.to_owned()))
    }
}

/// What a connection is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionRole {
    /// Accepted from a client.
    Client,
    /// Connected to an upstream for one session alone.
    Upstream,
    /// Connected to an upstream and shared by sessions.
    Pooled,
}

impl ConnectionRole {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Pooled => "pooled",
        }
    }
}

impl fmt::Display for ConnectionRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<BoundRole> for ConnectionRole {
    fn from(role: BoundRole) -> Self {
        match role {
            BoundRole::Client => Self::Client,
            BoundRole::Upstream => Self::Upstream,
        }
    }
}

impl From<enforcer_abi::Role> for ConnectionRole {
    fn from(role: enforcer_abi::Role) -> Self {
        match role {
            enforcer_abi::Role::Client => Self::Client,
            enforcer_abi::Role::Upstream => Self::Upstream,
            enforcer_abi::Role::Pooled => Self::Pooled,
        }
    }
}

/// One line. What doesn't apply to an event is absent from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// When it happened.
    #[serde(with = "rfc3339")]
    pub time: WallInstant,
    /// What happened.
    pub event: Event,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Its principal's issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its principal's subject within the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Names of the policies that apply to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Stable code of why it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Name of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// What the connection is to the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ConnectionRole>,
    /// The remote end: the client, or the upstream for the other roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// The client behind the remote end, where that is a proxy that announced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied_client: Option<SocketAddr>,
    /// Where the client asked to be connected to, for the connection of a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The local end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Cookie of the connection's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// Payload received over the connection's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_received: Option<u64>,
    /// Payload that the peer acknowledged over the connection's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_sent: Option<u64>,
    /// How long the session or connection lasted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How long the session had been without activity, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// The session's deadline; for one that was cut, the limit that it was cut at.
    #[serde(
        with = "rfc3339::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline: Option<WallInstant>,
    /// When the last payload passed, as the kernel noted it.
    #[serde(
        with = "rfc3339::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_payload_at: Option<WallInstant>,
    /// Sockets of the session on which payload passed at the limit or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_after_deadline: Option<u64>,
    /// How long before the limit the last payload passed, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_payload_before_deadline_us: Option<u64>,
    /// How long after the limit the last payload passed, in microseconds; 0 if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_us: Option<u64>,
    /// How long after the limit the sockets were reset, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_lateness_us: Option<u64>,
    /// How long the client paused, for the session's life or the part since the last such record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_gaps: Option<IdleGaps>,
    /// Packets that were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_packets: Option<u64>,
    /// Sockets that the session had when it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u64>,
    /// Sockets that were reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets_reset: Option<u64>,
    /// Sockets that had not closed when the record was written: the kernel's last word on them is
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets_unheard: Option<u64>,
    /// Records like this one that it stands for, besides itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<u64>,
    /// The process, for what happens to the daemon and its gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Records lost, for [`Event::AuditLost`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Records removed, for [`Event::AuditPruned`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
    /// The chain that `through` and `hash` belong to, if it is not the record's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// Number of the last record that is spoken of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<u64>,
    /// Its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
}

impl Record {
    /// A record of `event` at `time` in which everything else is absent.
    pub const fn new(time: WallInstant, event: Event) -> Self {
        Self {
            time,
            event,
            session: None,
            issuer: None,
            subject: None,
            policies: Vec::new(),
            reason: None,
            detail: None,
            listener: None,
            role: None,
            client: None,
            proxied_client: None,
            target: None,
            local: None,
            cookie: None,
            bytes_received: None,
            bytes_sent: None,
            duration_ms: None,
            idle_ms: None,
            deadline: None,
            last_payload_at: None,
            payload_after_deadline: None,
            last_payload_before_deadline_us: None,
            lateness_us: None,
            reset_lateness_us: None,
            idle_gaps: None,
            dropped_packets: None,
            sockets: None,
            sockets_reset: None,
            sockets_unheard: None,
            repeated: None,
            pid: None,
            lost: None,
            removed: None,
            chain: None,
            through: None,
            hash: None,
        }
    }

    /// Names the session and whose it is.
    #[must_use]
    pub fn of(mut self, session: SessionId, principal: &Principal) -> Self {
        self.session = Some(session);
        self.by(principal)
    }

    /// Names the principal.
    #[must_use]
    pub fn by(mut self, principal: &Principal) -> Self {
        self.issuer = Some(principal.issuer.clone());
        self.subject = Some(principal.subject.clone());
        self
    }

    /// Says why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_object_without_what_is_absent() {
        let principal = Principal {
            issuer: "https://idp.example".to_owned(),
            subject: "alice\n".to_owned(),
        };
        let mut record = Record::new(WallInstant::from_unix_seconds(0), Event::SessionEnded)
            .of(SessionId::from_u64(10).unwrap(), &principal)
            .because("deadline");
        record.deadline = Some(WallInstant::from_unix_seconds(1));
        record.client = Some("[2001:db8::1]:443".parse().unwrap());
        record.lateness_us = Some(0);
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000000Z","event":"session_ended","#,
                r#""session":"000000000000000a","issuer":"https://idp.example","#,
                r#""subject":"alice\n","reason":"deadline","client":"[2001:db8::1]:443","#,
                r#""deadline":"1970-01-01T00:00:01.000000Z","lateness_us":0}"#
            )
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }

    #[test]
    fn events_read_back_what_they_print() {
        for event in Event::ALL {
            assert_eq!(event.to_string().parse(), Ok(*event));
            assert_eq!(
                serde_json::to_string(event).unwrap(),
                format!("\"{event}\"")
            );
        }
        let error = "session_open".parse::<Event>().unwrap_err().to_string();
        assert!(error.contains("session_opened, session_renewed"), "{error}");
    }
}
