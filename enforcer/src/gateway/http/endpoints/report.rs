//! A session, as its user is told of it. Pure.

use serde::Serialize;

use crate::{
    audit::rfc3339,
    channel::SessionUsage,
    clock::{BootInstant, WallInstant},
    gateway::sessions::SessionState,
    session::{Principal, SessionId},
};

/// The JSON that `session` and `session/renew` answer with.
#[derive(Debug, Serialize)]
pub(super) struct SessionReport<'a> {
    id: SessionId,
    issuer: &'a str,
    subject: &'a str,
    policies: &'a [String],
    #[serde(with = "rfc3339")]
    started_at: WallInstant,
    #[serde(with = "rfc3339")]
    deadline: WallInstant,
    expires_in_seconds: u64,
    /// Null without an idle timeout, like the next one.
    idle_timeout_seconds: Option<u64>,
    idle_in_seconds: Option<u64>,
    /// It ends within the policy's `warn_before`.
    expiring: bool,
    connections: usize,
}

impl<'a> SessionReport<'a> {
    pub(super) fn new(
        principal: &'a Principal,
        state: &'a SessionState,
        usage: SessionUsage,
        now: BootInstant,
    ) -> Self {
        let view = &state.view;
        let left = |at: BootInstant| at.saturating_duration_since(now).as_secs();
        Self {
            id: view.id,
            issuer: &principal.issuer,
            subject: &principal.subject,
            policies: &view.policies,
            started_at: view.started_at,
            deadline: usage.deadline,
            expires_in_seconds: left(view.deadline),
            idle_timeout_seconds: view.idle_timeout.map(|timeout| timeout.as_secs()),
            idle_in_seconds: usage.idle_at.map(left),
            expiring: state.is_expiring(now),
            connections: usage.connections,
        }
    }

    pub(super) fn to_json(&self) -> String {
        format!("{}\n", serde_json::json!(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::sessions::tests::{at, view};

    #[test]
    fn it_says_what_is_left() {
        let principal = Principal {
            issuer: "i".to_owned(),
            subject: "s".to_owned(),
        };
        let usage = SessionUsage {
            connections: 2,
            deadline: WallInstant::from_unix_seconds(100),
            idle_at: Some(at(40)),
        };
        let state = SessionState::new(view(100));
        let report = SessionReport::new(&principal, &state, usage, at(10));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": "0000000000000007",
                "issuer": "i",
                "subject": "s",
                "policies": ["default"],
                "started_at": "1970-01-01T00:00:00.000000Z",
                "deadline": "1970-01-01T00:01:40.000000Z",
                "expires_in_seconds": 90,
                "idle_timeout_seconds": 30,
                "idle_in_seconds": 30,
                "expiring": false,
                "connections": 2,
            })
        );
    }
}
