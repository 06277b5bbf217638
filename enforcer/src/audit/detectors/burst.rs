//! How often something happened to somebody lately.

use std::{collections::VecDeque, hash::Hash};

use quick_cache::unsync::Cache;

use super::DetectorSettings;
use crate::clock::WallInstant;

/// Counts by key.
pub(super) struct Burst<K>(Cache<K, Times>);

#[derive(Default)]
struct Times {
    /// Never more than the threshold.
    at: VecDeque<WallInstant>,
    silent_until: Option<WallInstant>,
}

impl<K: Eq + Hash + Clone> Burst<K> {
    /// Remembers about so many keys.
    pub(super) fn new(keys: usize) -> Self {
        Self(Cache::new(keys))
    }

    /// Counts one. True if that makes it too many, and it was not said lately.
    pub(super) fn count(&mut self, key: K, settings: &DetectorSettings, now: WallInstant) -> bool {
        if let Some(mut times) = self.0.get_mut(&key) {
            return times.count(settings, now);
        }
        let mut times = Times::default();
        let speaks = times.count(settings, now);
        self.0.insert(key, times);
        speaks
    }
}

impl Times {
    fn count(&mut self, settings: &DetectorSettings, now: WallInstant) -> bool {
        let lately = |at: &WallInstant| now.saturating_duration_since(*at) < settings.window;
        self.at.retain(lately);
        self.at.push_back(now);
        if self.at.len() < settings.threshold as usize {
            return false;
        }
        self.at.clear();
        let silent = self.silent_until.is_some_and(|until| now < until);
        if !silent {
            self.silent_until = Some(now.saturating_add(settings.window));
        }
        !silent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: DetectorSettings = DetectorSettings {
        threshold: 3,
        window: Duration::from_secs(10),
    };

    fn at(second: i64) -> WallInstant {
        WallInstant::from_unix_seconds(second)
    }

    fn alerts(seconds: &[i64]) -> Vec<i64> {
        let mut burst = Burst::new(8);
        let speaks = |second: &&i64| burst.count("key", &SETTINGS, at(**second));
        seconds.iter().filter(speaks).copied().collect()
    }

    #[test]
    fn it_takes_the_threshold_within_the_window() {
        assert!(alerts(&[0, 9]).is_empty());
        assert_eq!(alerts(&[0, 5, 10, 14]), [14]);
        assert!(alerts(&[0, 9, 18, 27, 36]).is_empty());
        assert_eq!(alerts(&[0, 1, 9]), [9]);
    }

    #[test]
    fn one_burst_is_told_of_once_and_the_next_again() {
        let steady: Vec<_> = (0..30).collect();
        assert_eq!(alerts(&steady), [2, 14, 26]);
    }

    #[test]
    fn a_clock_that_was_set_back_forgets_nothing_and_panics_nowhere() {
        assert_eq!(alerts(&[100, 50, 0]), [0]);
    }

    #[test]
    fn keys_are_apart_and_their_number_is_bounded() {
        let mut burst = Burst::new(100);
        for key in 0..100_000 {
            assert!(!burst.count(key, &SETTINGS, at(0)));
        }
        assert!(burst.0.len() <= 110, "{}", burst.0.len());
    }
}
