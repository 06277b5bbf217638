//! How often something took how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Durations, sorted into buckets whose upper bounds are agreed on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// One for each bound, and the last for what is above all of them.
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Distribution {
    /// Nothing yet, for this many bounds.
    pub fn new(bounds: usize) -> Self {
        Self {
            counts: vec![0; bounds + 1],
            sum_ns: 0,
        }
    }

    /// From what was counted elsewhere.
    pub const fn from_parts(counts: Vec<u64>, sum_ns: u64) -> Self {
        Self { counts, sum_ns }
    }

    /// Which bucket a duration belongs to.
    pub fn bucket(bounds: &[Duration], observed: Duration) -> usize {
        bounds.partition_point(|bound| *bound < observed)
    }

    /// Counts one. `bounds` are those that it was made for.
    pub fn observe(&mut self, bounds: &[Duration], observed: Duration) {
        if let Some(count) = self.counts.get_mut(Self::bucket(bounds, observed)) {
            *count = count.saturating_add(1);
            let nanos = u64::try_from(observed.as_nanos()).unwrap_or(u64::MAX);
            self.sum_ns = self.sum_ns.saturating_add(nanos);
        }
    }

    /// Adds what another with the same bounds has counted; one with others changes nothing.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() != other.counts.len() {
            return;
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The sum of all durations, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_ns).as_secs_f64()
    }

    /// How many were at most as long as each bound.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        let bounded = self.counts.len().saturating_sub(1);
        self.counts[..bounded].iter().scan(0_u64, |sum, count| {
            *sum = sum.saturating_add(*count);
            Some(*sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

    #[test]
    fn a_bound_belongs_to_its_bucket_and_buckets_are_cumulative() {
        let mut distribution = Distribution::new(BOUNDS.len());
        for millis in [0, 10, 11, 100, 101] {
            distribution.observe(&BOUNDS, Duration::from_millis(millis));
        }
        assert_eq!(distribution.cumulative().collect::<Vec<_>>(), [2, 4]);
        assert_eq!(distribution.count(), 5);
        assert!((distribution.sum_seconds() - 0.222).abs() < 1e-9);
    }

    #[test]
    fn only_what_has_the_same_buckets_is_merged() {
        let mut distribution = Distribution::new(BOUNDS.len());
        distribution.observe(&BOUNDS, Duration::ZERO);
        let other = distribution.clone();
        distribution.merge(&other);
        distribution.merge(&Distribution::from_parts(vec![7], u64::MAX));
        distribution.merge(&Distribution::from_parts(Vec::new(), 0));
        assert_eq!(distribution.count(), 2);
        distribution.merge(&Distribution::from_parts(vec![u64::MAX; 3], u64::MAX));
        assert_eq!(distribution.count(), u64::MAX);
    }
}
