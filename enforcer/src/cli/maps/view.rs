//! Map entries in names, addresses and times. What is serialized here is the command's JSON;
//! fields are called as in the maps, with what they mean next to them.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use enforcer_abi::{
    Activity, ActivityKind, Binding, Connection, Control, Mode, Role, Session, SessionState, Stats,
    session_limit,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::Maps;
use crate::{
    audit::{ConnectionRole, rfc3339},
    clock::{BootInstant, Now, WallInstant},
    kernel::maps::Endpoints,
    session::SessionId,
};

/// Time from now to an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The instant is to come.
    Ahead(Duration),
    /// It was.
    Past(Duration),
}

impl Span {
    fn to(now: Now, at_ns: u64) -> Self {
        let at = BootInstant::from_nanos(at_ns);
        if at > now.boot {
            Self::Ahead(at.saturating_duration_since(now.boot))
        } else {
            Self::Past(now.boot.saturating_duration_since(at))
        }
    }

    /// `None` for the instant 0, which is never.
    fn to_some(now: Now, at_ns: u64) -> Option<Self> {
        (at_ns != 0).then(|| Self::to(now, at_ns))
    }
}

#[derive(Serialize)]
pub(super) struct MapsView {
    pub(super) control: ControlView,
    pub(super) sessions: Vec<SessionView>,
    pub(super) bindings: Vec<BindingView>,
    pub(super) connections: Vec<ConnectionView>,
    pub(super) stats: StatsView,
}

impl MapsView {
    pub(super) fn new(maps: &Maps, now: Now) -> Self {
        let activity: HashMap<_, _> = maps.activity.iter().copied().collect();
        let session = |(id, session): &(u64, Session)| {
            let activity = activity.get(id).copied().unwrap_or_default();
            SessionView::new(*id, session, &activity, now)
        };
        Self {
            control: ControlView::new(&maps.control),
            sessions: maps.sessions.iter().map(session).collect(),
            bindings: maps.bindings.iter().map(BindingView::new).collect(),
            connections: maps
                .connections
                .iter()
                .map(|(cookie, connection)| ConnectionView::new(*cookie, connection, now))
                .collect(),
            stats: StatsView(maps.stats),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ControlView {
    pub(super) abi_version: u32,
    pub(super) mode: String,
    pub(super) pre_authentication_timeout_ns: u64,
}

impl ControlView {
    fn new(control: &Control) -> Self {
        Self {
            abi_version: control.abi_version,
            mode: mode(control.mode),
            pre_authentication_timeout_ns: control.pre_authentication_timeout_ns,
        }
    }
}

/// An entry of `SESSIONS` with that of `ACTIVITY`.
#[derive(Serialize)]
pub(super) struct SessionView {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) mode: String,
    pub(super) activity: String,
    pub(super) policy_id: u32,
    pub(super) deadline_ns: u64,
    #[serde(with = "rfc3339")]
    pub(super) deadline: WallInstant,
    pub(super) idle_timeout_ns: u64,
    pub(super) idle_base_ns: u64,
    pub(super) last_client_payload_at_ns: u64,
    pub(super) expired_at_ns: u64,
    pub(super) observed_at_ns: u64,
    pub(super) first_drop_at_ns: u64,
    #[serde(skip)]
    pub(super) deadline_in: Span,
    #[serde(skip)]
    pub(super) idle_in: Option<Span>,
    #[serde(skip)]
    pub(super) expired_in: Option<Span>,
}

impl SessionView {
    fn new(id: u64, session: &Session, activity: &Activity, now: Now) -> Self {
        Self {
            id: format!("{id:016x}"),
            state: name(
                SessionState::from_code(session.state),
                session.state,
                |state| match state {
                    SessionState::Active => "active",
                    SessionState::Revoked => "revoked",
                },
            ),
            mode: mode(session.mode),
            activity: name(
                ActivityKind::from_code(session.activity),
                session.activity,
                |kind| match kind {
                    ActivityKind::Application => "application",
                    ActivityKind::Payload => "payload",
                },
            ),
            policy_id: session.policy_id,
            deadline_ns: session.deadline_ns,
            deadline: now.wall_at(BootInstant::from_nanos(session.deadline_ns)),
            idle_timeout_ns: session.idle_timeout_ns,
            idle_base_ns: session.idle_base_ns,
            last_client_payload_at_ns: activity.last_client_payload_at_ns,
            expired_at_ns: activity.expired_at_ns,
            observed_at_ns: activity.observed_at_ns,
            first_drop_at_ns: activity.first_drop_at_ns,
            deadline_in: Span::to(now, session.deadline_ns),
            idle_in: idle_limit(session, activity).map(|at_ns| Span::to(now, at_ns)),
            expired_in: Span::to_some(now, activity.expired_at_ns),
        }
    }
}

/// The idle limit alone, as the kernel computes it.
fn idle_limit(session: &Session, activity: &Activity) -> Option<u64> {
    let without_deadline = Session {
        deadline_ns: u64::MAX,
        ..*session
    };
    let limit = session_limit(&without_deadline, activity).at_ns;
    (limit != u64::MAX).then_some(limit)
}

#[derive(Serialize)]
pub(super) struct BindingView {
    pub(super) cookie: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    pub(super) role: String,
}

impl BindingView {
    fn new((cookie, binding): &(u64, Binding)) -> Self {
        Self {
            cookie: *cookie,
            session: session_id(binding.session_id),
            role: role(binding.role),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ConnectionView {
    pub(super) cookie: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    pub(super) role: String,
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) opened_at_ns: u64,
    pub(super) closed_at_ns: u64,
    pub(super) last_payload_at_ns: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_acknowledged: u64,
    pub(super) dropped_packets: u64,
    #[serde(skip)]
    pub(super) opened_in: Span,
    #[serde(skip)]
    pub(super) closed_in: Option<Span>,
}

impl ConnectionView {
    fn new(cookie: u64, connection: &Connection, now: Now) -> Self {
        let ends = Endpoints::of(connection).canonical();
        Self {
            cookie,
            session: session_id(connection.session_id),
            role: role(connection.role),
            remote: ends.remote,
            local: ends.local,
            opened_at_ns: connection.opened_at_ns,
            closed_at_ns: connection.closed_at_ns,
            last_payload_at_ns: connection.last_payload_at_ns,
            bytes_received: connection.bytes_received,
            bytes_acknowledged: connection.bytes_acknowledged,
            dropped_packets: connection.dropped_packets,
            opened_in: Span::to(now, connection.opened_at_ns),
            closed_in: Span::to_some(now, connection.closed_at_ns),
        }
    }
}

/// The counters, by name.
pub(super) struct StatsView(Stats);

impl StatsView {
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Stats {
            dropped_deadline,
            dropped_idle,
            dropped_revoked,
            dropped_unknown_session,
            dropped_pre_authentication,
            dropped_untracked,
            held_before_limit,
            observed,
            events_lost,
            storage_failures,
            connections_full,
            connections_opened,
            connections_closed,
        } = self.0;
        [
            ("dropped_deadline", dropped_deadline),
            ("dropped_idle", dropped_idle),
            ("dropped_revoked", dropped_revoked),
            ("dropped_unknown_session", dropped_unknown_session),
            ("dropped_pre_authentication", dropped_pre_authentication),
            ("dropped_untracked", dropped_untracked),
            ("held_before_limit", held_before_limit),
            ("observed", observed),
            ("events_lost", events_lost),
            ("storage_failures", storage_failures),
            ("connections_full", connections_full),
            ("connections_opened", connections_opened),
            ("connections_closed", connections_closed),
        ]
        .into_iter()
    }
}

impl Serialize for StatsView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.named() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

/// The name of a code, or the code where no version has a name for it.
fn name<T>(meaning: Option<T>, code: u32, name: impl FnOnce(T) -> &'static str) -> String {
    meaning.map_or_else(
        || format!("unknown ({code})"),
        |known| name(known).to_owned(),
    )
}

fn mode(code: u32) -> String {
    name(Mode::from_code(code), code, |mode| match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    })
}

fn role(code: u32) -> String {
    name(Role::from_code(code), code, |role| {
        ConnectionRole::from(role).as_str()
    })
}

/// `None` for 0, which is no session.
fn session_id(id: u64) -> Option<String> {
    SessionId::from_u64(id).map(|id| id.to_string())
}
