//! Where the sessions are read from.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::Result;
use enforcer_abi as abi;

use super::model::{Origin, Reading, Row};
use crate::{
    cli::{
        client::{Client, ClientError},
        maps::Maps,
        pins,
        text::printable,
    },
    clock::{BootInstant, Now},
    config::Daemon,
    session::SessionId,
    warden::admin::{RevokeOutcome, RevokeRequest, Selector, SessionInfo},
};

/// A daemon, or what it left in the kernel.
pub(super) struct Source {
    client: Client,
    daemon: Daemon,
}

impl Source {
    pub(super) fn new(socket: &Path, daemon: Daemon) -> Result<Self> {
        Ok(Self {
            client: Client::new(socket)?,
            daemon,
        })
    }

    /// The sessions now.
    pub(super) fn read(&self) -> Result<Reading> {
        match self.client.get::<Vec<SessionInfo>>("/v1/sessions") {
            Ok(sessions) => Ok(Reading {
                origin: Origin::Daemon,
                rows: sessions.iter().map(of_daemon).collect(),
            }),
            Err(ClientError::NotRunning { .. }) => Ok(Reading {
                origin: Origin::Maps,
                rows: of_maps(&pins::read_maps(&self.daemon)?, Now::read()),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Revokes a session. Returns what to say about it.
    pub(super) fn revoke(&self, id: SessionId) -> String {
        let reason = Some("enforcer top".to_owned());
        let request = RevokeRequest::new(Selector::Id(id), reason);
        match self.client.post::<RevokeOutcome>("/v1/revoke", &request) {
            Ok(outcome) if outcome.sessions == 0 => format!("session {id} had ended already"),
            Ok(outcome) if !outcome.durable => {
                format!("session {id} is revoked; the store cannot be written")
            }
            Ok(_) => format!("session {id} is revoked"),
            Err(error) => printable(&error.to_string()),
        }
    }
}

fn of_daemon(session: &SessionInfo) -> Row {
    Row {
        id: session.id,
        subject: printable(&session.subject),
        issuer: printable(&session.issuer),
        policies: session.policies.join(","),
        state: session.state.as_str().to_owned(),
        age_seconds: Some(session.age_seconds),
        left_seconds: session.expires_in_seconds,
        idle_left_seconds: session.idle_in_seconds,
        idle_timeout_seconds: session.idle_timeout_seconds,
        connections: session.connections,
    }
}

/// Names are not in the kernel, and neither is a session's start.
fn of_maps(maps: &Maps, now: Now) -> Vec<Row> {
    let mut connections: HashMap<u64, usize> = HashMap::new();
    for (_, connection) in &maps.connections {
        if connection.closed_at_ns == 0 {
            *connections.entry(connection.session_id).or_default() += 1;
        }
    }
    let activities: HashMap<_, _> = maps.activity.iter().copied().collect();
    let row = |(id, session): &(u64, abi::Session)| {
        let activity = activities.get(id).copied().unwrap_or_default();
        let left = |at: u64| {
            BootInstant::from_nanos(at)
                .saturating_duration_since(now.boot)
                .as_secs()
        };
        let limit = abi::session_limit(session, &activity);
        let over = activity.expired_at_ns != 0 || now.boot.as_nanos() >= limit.at_ns;
        let idle_limit = abi::session_limit(
            &abi::Session {
                deadline_ns: u64::MAX,
                ..*session
            },
            &activity,
        );
        let idle = (session.idle_timeout_ns > 0).then_some(idle_limit.at_ns);
        Some(Row {
            id: SessionId::from_u64(*id)?,
            subject: String::new(),
            issuer: String::new(),
            policies: format!("#{}", session.policy_id),
            state: match abi::SessionState::from_code(session.state) {
                Some(abi::SessionState::Revoked) => "revoked",
                _ if over => "expired",
                _ => "active",
            }
            .to_owned(),
            age_seconds: None,
            left_seconds: left(session.deadline_ns),
            idle_left_seconds: idle.map(left),
            idle_timeout_seconds: idle
                .map(|_| Duration::from_nanos(session.idle_timeout_ns).as_secs()),
            connections: connections.get(id).copied().unwrap_or_default(),
        })
    };
    maps.sessions.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallInstant;

    #[test]
    fn the_maps_alone_tell_what_is_left_and_what_is_over() {
        let second = 1_000_000_000;
        let session = |deadline: u64, idle_timeout: u64| abi::Session {
            deadline_ns: deadline * second,
            idle_timeout_ns: idle_timeout * second,
            idle_base_ns: 90 * second,
            policy_id: 2,
            mode: abi::Mode::Enforce.code(),
            activity: abi::ActivityKind::Application.code(),
            state: abi::SessionState::Active.code(),
        };
        let open = abi::Connection {
            session_id: 1,
            ..abi::Connection::default()
        };
        let maps = Maps {
            control: abi::Control::default(),
            stats: abi::Stats::default(),
            sessions: vec![(1, session(160, 20)), (2, session(99, 0))],
            bindings: Vec::new(),
            connections: vec![(7, open)],
            activity: Vec::new(),
        };
        let now = Now {
            boot: BootInstant::from_nanos(100 * second),
            wall: WallInstant::from_unix_seconds(0),
        };
        let rows = of_maps(&maps, now);
        assert_eq!(
            (rows[0].left_seconds, rows[0].idle_left_seconds),
            (60, Some(10))
        );
        assert_eq!((rows[0].connections, rows[0].state.as_str()), (1, "active"));
        assert_eq!(
            (rows[1].idle_left_seconds, rows[1].state.as_str()),
            (None, "expired")
        );
    }
}
