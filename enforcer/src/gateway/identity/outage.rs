//! Whether an endpoint is answering at present.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::clock::BootInstant;

/// Shortest time between a failure and the next question about what has an answer that will do.
const PAUSE: Duration = Duration::from_secs(1);

/// What the last questions came to. Lasts from a failure to the next answer, or to when the
/// question that follows it should have had one.
#[derive(Debug)]
pub(super) struct Outage {
    /// Of the last failure in nanoseconds; zero: there was an answer since.
    failed_at: AtomicU64,
    /// How long a question may take.
    timeout: Duration,
}

/// While nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It is too early to try again.
    Paused,
    /// It is time to.
    Due,
}

impl Outage {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            failed_at: AtomicU64::new(0),
            timeout,
        }
    }

    /// A question came to nothing at `now`.
    pub(super) fn begins(&self, now: BootInstant) {
        self.failed_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// A question was answered.
    pub(super) fn ends(&self) {
        self.failed_at.store(0, Ordering::Relaxed);
    }

    /// `None`: as far as is known, questions are answered.
    pub(super) fn silence(&self, now: BootInstant) -> Option<Silence> {
        let failed_at = match self.failed_at.load(Ordering::Relaxed) {
            0 => return None,
            nanos => BootInstant::from_nanos(nanos),
        };
        match now.saturating_duration_since(failed_at) {
            since if since < PAUSE => Some(Silence::Paused),
            since if since < PAUSE + self.timeout => Some(Silence::Due),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_to_the_next_answer_or_to_when_that_is_overdue() {
        let outage = Outage::new(Duration::from_secs(5));
        let at = |seconds: u64| BootInstant::from_nanos(seconds * 1_000_000_000);
        assert_eq!(outage.silence(at(10)), None);
        outage.begins(at(10));
        assert_eq!(outage.silence(at(10)), Some(Silence::Paused));
        assert_eq!(outage.silence(at(11)), Some(Silence::Due));
        assert_eq!(outage.silence(at(15)), Some(Silence::Due));
        assert_eq!(outage.silence(at(16)), None);
        outage.begins(at(16));
        assert_eq!(outage.silence(at(16)), Some(Silence::Paused));
        outage.ends();
        assert_eq!(outage.silence(at(16)), None);
    }
}
