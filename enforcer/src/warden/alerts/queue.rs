//! What waits for one receiver, and when it is tried. Pure.

use std::{collections::VecDeque, time::Duration};

use crate::{
    clock::{BootInstant, Now, WallInstant},
    metrics::WebhookState,
};

/// Alerts that wait at most. What comes then is dropped: the first of a story says most.
pub(super) const MOST_WAITING: usize = 1_000;
/// How long one may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 86_400);
/// How long an attempt may take, the gateway's own limits included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// An alert for a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alert {
    /// Names it, on the disk and to the receiver.
    pub(super) id: String,
    /// What is sent.
    pub(super) body: String,
    /// When it was raised.
    pub(super) raised_at: WallInstant,
}

/// The alerts of a receiver, the oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Alert>,
    /// The first is being sent; without an answer by then it has failed.
    in_flight_until: Option<BootInstant>,
    next_at: BootInstant,
    failures: u32,
    delivered: u64,
    failed: u64,
    dropped: u64,
    delivered_at: Option<WallInstant>,
}

impl Queue {
    /// With what was left.
    pub(super) fn new(waiting: Vec<Alert>) -> Self {
        Self {
            waiting: waiting.into(),
            in_flight_until: None,
            next_at: BootInstant::from_nanos(0),
            failures: 0,
            delivered: 0,
            failed: 0,
            dropped: 0,
            delivered_at: None,
        }
    }

    /// Adds one, if there is room.
    pub(super) fn push(&mut self, alert: Alert) -> bool {
        let fits = self.waiting.len() < MOST_WAITING;
        if fits {
            self.waiting.push_back(alert);
        } else {
            self.dropped += 1;
        }
        fits
    }

    /// Lets go of those that have waited for too long. Returns their ids.
    pub(super) fn give_up(&mut self, now: Now) -> Vec<String> {
        let mut given_up = Vec::new();
        while let Some(first) = self.waiting.front()
            && now.wall.saturating_duration_since(first.raised_at) > LONGEST_WAIT
        {
            given_up.extend(self.waiting.pop_front().map(|alert| alert.id));
            self.in_flight_until = None;
            self.dropped += 1;
        }
        given_up
    }

    /// The next to send, if it is time.
    pub(super) fn due(&mut self, now: BootInstant, jitter: u32) -> Option<&Alert> {
        if self.in_flight_until.is_some_and(|until| now < until) {
            return None;
        }
        if self.in_flight_until.take().is_some() {
            self.fail(now, jitter);
        }
        if now < self.next_at {
            return None;
        }
        let first = self.waiting.front()?;
        self.in_flight_until = Some(now.saturating_add(ATTEMPT_TIMEOUT));
        Some(first)
    }

    /// What became of an attempt. True if the alert is done with.
    pub(super) fn settled(&mut self, id: &str, delivered: bool, now: Now, jitter: u32) -> bool {
        if self.waiting.front().is_none_or(|first| first.id != id) {
            return false;
        }
        self.in_flight_until = None;
        if !delivered {
            self.fail(now.boot, jitter);
            return false;
        }
        self.waiting.pop_front();
        self.delivered += 1;
        self.delivered_at = Some(now.wall);
        self.failures = 0;
        self.next_at = now.boot;
        true
    }

    /// How the receiver does.
    pub(super) fn state(&self, name: &str) -> WebhookState {
        WebhookState {
            name: name.to_owned(),
            queued: self.waiting.len(),
            delivered: self.delivered,
            failed: self.failed,
            dropped: self.dropped,
            delivered_at: self.delivered_at,
        }
    }

    /// Twice as long a pause with each failure; half of it by chance.
    fn fail(&mut self, now: BootInstant, jitter: u32) {
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        let half = doubled.min(LONGEST_BACKOFF) / 2;
        let chance = half.mul_f64(f64::from(jitter) / f64::from(u32::MAX));
        self.next_at = now.saturating_add(half + chance);
        self.failures = self.failures.saturating_add(1);
        self.failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: &str) -> Alert {
        Alert {
            id: id.to_owned(),
            body: "{}".to_owned(),
            raised_at: WallInstant::from_unix_seconds(0),
        }
    }

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    fn both(seconds: u64) -> Now {
        Now {
            boot: at(seconds),
            wall: WallInstant::from_unix_seconds(i64::try_from(seconds).unwrap()),
        }
    }

    fn sent(queue: &mut Queue, seconds: u64, jitter: u32) -> Option<String> {
        queue.due(at(seconds), jitter).map(|alert| alert.id.clone())
    }

    #[test]
    fn one_is_in_flight_and_the_next_goes_when_it_is_taken() {
        let mut queue = Queue::new(vec![alert("a"), alert("b")]);
        assert_eq!(sent(&mut queue, 1, 0).as_deref(), Some("a"));
        assert_eq!(sent(&mut queue, 2, 0), None);
        assert!(
            !queue.settled("b", true, both(2), 0),
            "not the one in flight"
        );
        assert!(queue.settled("a", true, both(2), 0));
        assert_eq!(sent(&mut queue, 2, 0).as_deref(), Some("b"));
        assert!(queue.settled("b", true, both(3), 0));
        assert_eq!(sent(&mut queue, 4, 0), None);
        let state = queue.state("x");
        assert_eq!(state.delivered, 2);
        assert_eq!(state.delivered_at, Some(WallInstant::from_unix_seconds(3)));
    }

    #[test]
    fn failures_lengthen_the_pause_to_a_bound_and_success_ends_it() {
        let mut queue = Queue::new(vec![alert("a"), alert("b")]);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(sent(&mut queue, now, 0).is_some());
            assert!(!queue.settled("a", false, both(now), u32::MAX));
            let before = now;
            while sent(&mut queue, now, 0).is_none() {
                now += 1;
            }
            // Given back, so that the next round takes it.
            queue.in_flight_until = None;
            pauses.push(now - before);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert!(sent(&mut queue, now, 0).is_some());
        assert!(queue.settled("a", true, both(now), 0));
        assert_eq!(sent(&mut queue, now, 0).as_deref(), Some("b"));
    }

    #[test]
    fn chance_shortens_a_pause_by_half_at_most() {
        for (jitter, pause) in [(0, 500), (u32::MAX, 1_000)] {
            let mut queue = Queue::new(vec![alert("a")]);
            queue.fail(at(0), jitter);
            let waited = queue.next_at.as_nanos() / 1_000_000;
            assert_eq!(waited, pause);
        }
    }

    #[test]
    fn an_attempt_that_nobody_answers_for_has_failed() {
        let mut queue = Queue::new(vec![alert("a")]);
        assert!(sent(&mut queue, 0, 0).is_some());
        assert_eq!(sent(&mut queue, 29, 0), None);
        assert_eq!(sent(&mut queue, 30, 0), None);
        assert_eq!(queue.state("x").failed, 1);
        assert_eq!(sent(&mut queue, 31, 0).as_deref(), Some("a"));
    }

    #[test]
    fn a_queue_is_bounded_in_length_and_time() {
        let mut queue = Queue::new(Vec::new());
        for number in 0..MOST_WAITING + 5 {
            assert_eq!(
                queue.push(alert(&number.to_string())),
                number < MOST_WAITING
            );
        }
        let now = |days: i64| Now {
            boot: at(0),
            wall: WallInstant::from_unix_seconds(days * 86_400),
        };
        assert!(queue.give_up(now(7)).is_empty());
        assert_eq!(queue.give_up(now(8)).len(), MOST_WAITING);
        assert_eq!(queue.state("x").dropped, MOST_WAITING as u64 + 5);
        assert_eq!(queue.state("x").queued, 0);
    }
}
