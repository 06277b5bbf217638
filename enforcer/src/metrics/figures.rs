//! What a gateway tells the warden: how much more of everything since it last did.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Distribution;

/// Upper bounds of the buckets for durations of requests.
pub const REQUEST_BOUNDS: [Duration; 12] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
];

/// Classes of status codes.
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A route, as the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteLabels {
    /// Name of the listener.
    pub listener: String,
    /// Host; empty for any.
    pub host: String,
    /// Path prefix; empty for requests that reached no route.
    pub path: String,
}

/// What happened on a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFigures {
    /// Answers by [`STATUS_CLASSES`].
    pub answers: [u64; STATUS_CLASSES.len()],
    /// How long until the head of the answer, by [`REQUEST_BOUNDS`].
    pub durations: Distribution,
}

impl Default for RouteFigures {
    fn default() -> Self {
        Self {
            answers: [0; STATUS_CLASSES.len()],
            durations: Distribution::new(REQUEST_BOUNDS.len()),
        }
    }
}

impl RouteFigures {
    /// Adds what happened since.
    pub fn merge(&mut self, more: &Self) {
        for (answers, more) in self.answers.iter_mut().zip(more.answers) {
            *answers = answers.saturating_add(more);
        }
        self.durations.merge(&more.durations);
    }
}

/// What happened in a gateway since it last told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFigures {
    /// Of each route on which something happened.
    pub routes: Vec<(RouteLabels, RouteFigures)>,
    /// TLS handshakes by listener: done, failed.
    pub handshakes: Vec<(String, [u64; 2])>,
    /// Requests that an upstream failed, by code.
    pub upstream_errors: Vec<(String, u64)>,
    /// Reports to the warden that were lost.
    pub reports_lost: u64,
    /// Spans that were exported, and those that were not.
    pub spans: [u64; 2],
}

impl GatewayFigures {
    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
