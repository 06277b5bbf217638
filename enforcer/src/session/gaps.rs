//! The pauses between a client's activity, in little room: enough to tell later under which idle
//! timeouts the session would have ended, when first and how often. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Shorter pauses are none: activity is reported once a second.
const SHORTEST: Duration = Duration::from_secs(1);
/// Pauses that were longer than all before them are noted one by one, up to this many; then the
/// longest takes the place of the last.
const LONGEST_NOTED: usize = 24;
/// The last class takes all that are longer: twelve days.
const LAST_CLASS: u8 = 40;

/// The pauses of a session, or of a part of its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleGaps {
    /// How many by class: class `k` takes pauses from 2^(k/2) seconds on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<u8, u32>,
    /// Each pause that was longer than all before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub longest: Vec<Gap>,
    /// How long the client had been silent in the end, in milliseconds.
    #[serde(default)]
    pub last_ms: u64,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Milliseconds from the opening of the session to its begin.
    pub began_ms: u64,
    /// Milliseconds that it lasted.
    pub lasted_ms: u64,
}

impl IdleGaps {
    /// The client was active again, so long after the session was opened, after such a pause.
    pub fn note(&mut self, ended_after: Duration, lasted: Duration) {
        if lasted < SHORTEST {
            return;
        }
        let count = self.classes.entry(class(lasted)).or_default();
        *count = count.saturating_add(1);
        let gap = Gap {
            began_ms: millis(ended_after.saturating_sub(lasted)),
            lasted_ms: millis(lasted),
        };
        if self.longest_ms() < gap.lasted_ms {
            if self.longest.len() == LONGEST_NOTED {
                self.longest.pop();
            }
            self.longest.push(gap);
        }
    }

    /// No pause is noted.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// What came later in the session's life.
    pub fn extend(&mut self, later: &Self) {
        for (class, count) in &later.classes {
            let sum = self.classes.entry(*class).or_default();
            *sum = sum.saturating_add(*count);
        }
        let known = self.longest_ms();
        let longer = later.longest.iter().filter(|gap| gap.lasted_ms > known);
        self.longest.extend(longer);
        self.last_ms = later.last_ms;
    }

    /// The first pause that was longer than this.
    pub fn first_longer_than(&self, timeout: Duration) -> Option<Gap> {
        let timeout = millis(timeout);
        let mut longest = self.longest.iter();
        longest.find(|gap| gap.lasted_ms > timeout).copied()
    }

    /// At most so many pauses were longer than this, and if the answer is 0, none was.
    pub fn longer_than(&self, timeout: Duration) -> u64 {
        if self.first_longer_than(timeout).is_none() {
            return 0;
        }
        let own = class(timeout);
        let from = self.classes.range(own..);
        let pauses: u64 = from.map(|(_, count)| u64::from(*count)).sum();
        // Those of its own class that are known to be no longer.
        let shorter = self.longest.iter().filter(|gap| {
            let lasted = Duration::from_millis(gap.lasted_ms);
            class(lasted) == own && lasted <= timeout
        });
        pauses.saturating_sub(shorter.count() as u64)
    }

    /// The longest pause, the last one aside.
    pub fn longest_ms(&self) -> u64 {
        self.longest.last().map_or(0, |gap| gap.lasted_ms)
    }
}

/// The class of pauses of this length.
pub fn class(lasted: Duration) -> u8 {
    (0..=LAST_CLASS)
        .rev()
        .find(|class| class_begin(*class) <= lasted)
        .unwrap_or(0)
}

/// The shortest pause of a class.
pub fn class_begin(class: u8) -> Duration {
    let exact = 2_f64.powf(f64::from(class.min(LAST_CLASS)) / 2.0);
    // In whole milliseconds, as it is shown.
    Duration::from_millis((exact * 1_000.0) as u64)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(gaps: &[u64]) -> IdleGaps {
        let (mut noted, mut at) = (IdleGaps::default(), Duration::ZERO);
        for gap in gaps {
            let lasted = Duration::from_millis(*gap);
            at += lasted;
            noted.note(at, lasted);
        }
        noted
    }

    #[test]
    fn classes_grow_by_the_root_of_two_and_take_what_is_as_long() {
        let seconds = |class| class_begin(class).as_secs_f64();
        assert_eq!((seconds(0), seconds(2), seconds(16)), (1.0, 2.0, 256.0));
        for k in 0..=LAST_CLASS {
            assert_eq!(class(class_begin(k)), k);
        }
        assert_eq!(class(Duration::MAX), LAST_CLASS);
    }

    #[test]
    fn a_record_takes_little_room() {
        let gaps: Vec<_> = (0..10_000_u64).map(|n| 1_000 + n * 977).collect();
        let text = serde_json::to_string(&note(&gaps)).unwrap();
        assert!(text.len() < 2_000, "{} bytes", text.len());
        assert_eq!(note(&gaps).longest_ms(), 1_000 + 9_999 * 977);
    }

    proptest! {
        /// Against the list of pauses itself.
        #[test]
        fn what_is_told_of_a_timeout_is_so(
            gaps in prop::collection::vec(0_u64..100_000, 0..40),
            timeout in 1_000_u64..120_000,
            cut in 0_usize..40,
        ) {
            let noted = note(&gaps);
            let longer = gaps.iter().filter(|gap| **gap > timeout).count() as u64;
            let told = noted.longer_than(Duration::from_millis(timeout));
            prop_assert_eq!(told == 0, longer == 0);
            prop_assert!(told >= longer);
            let first = gaps.iter().position(|gap| *gap > timeout);
            let began = first.map(|first| gaps[..first].iter().sum::<u64>());
            let told = noted.first_longer_than(Duration::from_millis(timeout));
            prop_assert_eq!(told.map(|gap| gap.began_ms), began);

            // In two parts it comes to the same.
            let (a, b) = gaps.split_at(cut.min(gaps.len()));
            let mut parts = note(a);
            let mut later = note(b);
            let offset = a.iter().sum::<u64>();
            for gap in &mut later.longest {
                gap.began_ms += offset;
            }
            parts.extend(&later);
            prop_assert_eq!(parts.classes, noted.classes);
            prop_assert_eq!(parts.longest.last(), noted.longest.last());
        }
    }
}
