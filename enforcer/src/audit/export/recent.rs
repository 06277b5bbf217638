//! What was delivered a moment ago, to a receiver that does not acknowledge what it takes. Pure.

use std::{collections::VecDeque, time::Duration};

use crate::clock::BootInstant;

/// How far back a receiver that is gone is taken to have lost what it was sent.
const LOOK_BACK: Duration = Duration::from_secs(10);

/// Batches that may have to be sent again.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// When each was delivered, and the last record before it.
    batches: VecDeque<(BootInstant, u64)>,
    /// Records up to here are not sent a third time.
    repeated_through: u64,
}

impl Recent {
    /// The records after `before` up to `last` were delivered.
    pub(super) fn delivered(&mut self, before: u64, last: u64, now: BootInstant) {
        self.forget(now);
        if last > self.repeated_through {
            self.batches.push_back((now, before));
        }
    }

    /// The receiver is gone. Where to go on from; `None` for where it was.
    pub(super) fn interrupted(&mut self, at: u64, now: BootInstant) -> Option<u64> {
        self.forget(now);
        let (_, before) = self.batches.pop_front()?;
        self.batches.clear();
        self.repeated_through = at;
        Some(before)
    }

    fn forget(&mut self, now: BootInstant) {
        let old = |(at, _): &(BootInstant, u64)| now.saturating_duration_since(*at) > LOOK_BACK;
        while self.batches.front().is_some_and(old) {
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_was_delivered_in_the_last_seconds_is_sent_again_once() {
        let mut recent = Recent::default();
        assert_eq!(recent.interrupted(0, at(1)), None);
        recent.delivered(0, 10, at(1));
        recent.delivered(10, 20, at(5));
        recent.delivered(20, 30, at(6));
        // The first was too long ago.
        assert_eq!(recent.interrupted(30, at(15)), Some(10));
        recent.delivered(10, 30, at(16));
        assert_eq!(recent.interrupted(30, at(17)), None, "it is not for ever");
        recent.delivered(30, 40, at(18));
        assert_eq!(recent.interrupted(40, at(19)), Some(30));
    }
}
