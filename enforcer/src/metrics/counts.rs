//! Counters by a label.

use std::{borrow::Cow, collections::BTreeMap};

/// Most values of one label. What comes after them is counted as [`Counts::OTHER`].
const MOST_LABELS: usize = 256;
/// Longest value of a label.
const LONGEST_LABEL: usize = 256;

/// How often something happened, by a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Cow<'static, str>, u64>);

impl Counts {
    /// Stands for values that found no room.
    pub const OTHER: &'static str = "other";

    /// Counts `more` under `label`.
    pub fn add(&mut self, label: Cow<'static, str>, more: u64) {
        if more == 0 {
            return;
        }
        if let Some(count) = self.0.get_mut(&label) {
            *count = count.saturating_add(more);
            return;
        }
        let fits = self.0.len() < MOST_LABELS && label.len() <= LONGEST_LABEL;
        let label = if fits { label } else { Self::OTHER.into() };
        let count = self.0.entry(label).or_default();
        *count = count.saturating_add(more);
    }

    /// Counts one.
    pub fn one(&mut self, label: impl Into<Cow<'static, str>>) {
        self.add(label.into(), 1);
    }

    /// How many were counted under `label`.
    pub fn get(&self, label: &str) -> u64 {
        self.0.get(label).copied().unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(label, count)| (label.as_ref(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_in_number_and_length() {
        let mut counts = Counts::default();
        for number in 0..MOST_LABELS * 2 {
            counts.one(format!("code_{number}"));
        }
        counts.one("x".repeat(LONGEST_LABEL + 1));
        counts.one("code_0");
        assert_eq!(counts.iter().count(), MOST_LABELS + 1);
        assert_eq!(counts.get(Counts::OTHER), MOST_LABELS as u64 + 1);
        assert_eq!(counts.get("code_0"), 2);
    }
}
