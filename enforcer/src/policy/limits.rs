//! Limits, and how several of them become one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What counts as activity. `Application` is the stricter: less counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityKind {
    /// Requests and data messages, as the gateway sees them.
    Application,
    /// TCP payload from the client, as the kernel sees it.
    Payload,
}

/// Whether limits are enforced. `Enforce` is the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The kernel cuts.
    Enforce,
    /// What would have been cut is recorded.
    Observe,
}

/// The limits of a policy, or of a session under several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest life of a session from its start.
    pub max_session: Duration,
    /// Longest time without activity.
    pub idle_timeout: Option<Duration>,
    /// How long before its end a session is announced as expiring.
    pub warn_before: Duration,
    /// How long before its end the protocol's own farewell is sent.
    pub farewell: Duration,
    /// What counts as activity.
    pub activity: ActivityKind,
    /// Whether the limits are enforced.
    pub mode: Mode,
}

impl Limits {
    /// The strictest value of each limit.
    pub fn strictest(&self, other: &Self) -> Self {
        Self {
            max_session: self.max_session.min(other.max_session),
            idle_timeout: match (self.idle_timeout, other.idle_timeout) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            warn_before: self.warn_before.max(other.warn_before),
            farewell: self.farewell.max(other.farewell),
            activity: self.activity.min(other.activity),
            mode: self.mode.min(other.mode),
        }
    }
}
