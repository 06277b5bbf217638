//! The sessions that this gateway serves, as the warden last described them.
//!
//! ```text
//!           Warning              Farewell             Ended
//!   Alive ----------> Warned ---------------> Farewell ---------> over
//!     ^                  |                        |
//!     +----- Changed ----+------------------------+
//! ```
//!
//! At its limit a session halts, whatever its phase: nothing may pass any more. It is over when
//! the warden says so, or has said nothing for a while; a renewal that was granted in time and is
//! still on its way lets it go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    channel::{SessionLimits, SessionView, ToGateway, ToWarden},
    clock::{BootInstant, boot_now},
    gateway::touch::Activity,
    session::{EndReason, SessionId},
};

/// How long after a session's limit the gateway waits for the warden's reset before it resets
/// the session's connections itself.
const WARDEN_GRACE: Duration = Duration::from_millis(50);
/// Timers don't run while the machine sleeps; limits do.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Alive,
    Warned {
        reason: EndReason,
        limit: BootInstant,
    },
    Farewell {
        reason: EndReason,
        limit: BootInstant,
    },
    Ended(EndReason),
}

/// A session as the warden last described it.
#[derive(Clone, Debug)]
pub(crate) struct SessionState {
    pub(crate) view: SessionView,
    pub(crate) phase: Phase,
}

impl SessionState {
    pub(crate) fn new(view: SessionView) -> Self {
        Self {
            view,
            phase: Phase::Alive,
        }
    }

    /// Nothing may pass. True from the limit on, whether or not the warden has said so.
    pub(crate) fn is_halted(&self, now: BootInstant) -> bool {
        matches!(self.phase, Phase::Ended(_)) || self.limit().is_some_and(|limit| now >= limit)
    }

    /// It will not go on: the warden has ended it, or should have.
    pub(crate) fn is_over(&self, now: BootInstant) -> bool {
        matches!(self.phase, Phase::Ended(_))
            || self
                .limit()
                .is_some_and(|limit| now >= limit.saturating_add(WARDEN_GRACE))
    }

    /// Why it will not go on; `None` if it may.
    pub(crate) fn end_reason(&self, now: BootInstant) -> Option<EndReason> {
        self.is_over(now).then(|| self.reason())
    }

    /// Why it is over, or would be at its limit.
    pub(crate) fn reason(&self) -> EndReason {
        match self.phase {
            Phase::Ended(reason) | Phase::Farewell { reason, .. } => reason,
            Phase::Warned { reason, limit } if limit >= self.view.deadline => reason,
            Phase::Alive | Phase::Warned { .. } => EndReason::Deadline,
        }
    }

    /// It ends within `warn_before`.
    pub(crate) fn is_expiring(&self, now: BootInstant) -> bool {
        let left = self.view.deadline.saturating_duration_since(now);
        self.phase != Phase::Alive || left <= self.view.warn_before
    }

    /// How long it will go on, as far as is known.
    pub(crate) fn left(&self, now: BootInstant) -> Duration {
        let limit = self.limit().unwrap_or(self.view.deadline);
        limit.saturating_duration_since(now)
    }

    /// The instant from which it is over, as far as is known.
    fn limit(&self) -> Option<BootInstant> {
        if !self.view.enforced {
            return None;
        }
        Some(match self.phase {
            Phase::Farewell { limit, .. } => limit.min(self.view.deadline),
            _ => self.view.deadline,
        })
    }
}

/// Proof that a session is over.
#[derive(Debug)]
pub(crate) struct Ended(());

/// A live view of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionHandle {
    id: SessionId,
    state: watch::Receiver<SessionState>,
    activity: Arc<Activity>,
}

impl SessionHandle {
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    pub(crate) fn state(&self) -> SessionState {
        self.state.borrow().clone()
    }

    /// Its states, from now on.
    pub(crate) fn states(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    pub(crate) fn is_halted(&self, now: BootInstant) -> bool {
        self.state.borrow().is_halted(now)
    }

    pub(crate) fn is_over(&self, now: BootInstant) -> bool {
        self.state.borrow().is_over(now)
    }

    /// Waits until a halted session goes on or is over.
    pub(crate) async fn decided(&self) {
        let mut state = self.state.clone();
        loop {
            state.mark_unchanged();
            let now = boot_now();
            if !self.is_halted(now) || self.is_over(now) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(WARDEN_GRACE) => {}
                Ok(()) = state.changed() => {}
            }
        }
    }

    /// Waits until goodbye is to be said (or it is too late for that).
    pub(crate) async fn farewell(&self) {
        let mut state = self.state.clone();
        let said =
            |state: &SessionState| matches!(state.phase, Phase::Farewell { .. } | Phase::Ended(_));
        if state.wait_for(said).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the warden has ended the session, or should have.
    pub(crate) async fn ended(&self) -> Ended {
        let mut state = self.state.clone();
        loop {
            let (ended, limit) = {
                let state = state.borrow_and_update();
                (matches!(state.phase, Phase::Ended(_)), state.limit())
            };
            let now = boot_now();
            let left = limit.map_or(LONGEST_SLEEP, |limit| {
                limit
                    .saturating_add(WARDEN_GRACE)
                    .saturating_duration_since(now)
            });
            if ended || left.is_zero() {
                return Ended(());
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {}
                Ok(()) = state.changed() => {}
            }
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    entries: Mutex<HashMap<SessionId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    state: watch::Sender<SessionState>,
    activity: Arc<Activity>,
}

impl SessionTable {
    /// Takes in a session that the warden has opened, joined, found or renewed. How far it has come
    /// is the pushes' to say.
    pub(crate) fn opened(&self, view: SessionView) -> SessionHandle {
        let id = view.id;
        let mut entries = self.lock();
        let entry = entries
            .entry(id)
            .and_modify(|entry| entry.update(view.clone()))
            .or_insert_with(|| Entry {
                activity: Arc::new(Activity::new(id, view.idle_timeout)),
                state: watch::Sender::new(SessionState::new(view)),
            });
        SessionHandle {
            id,
            state: entry.state.subscribe(),
            activity: Arc::clone(&entry.activity),
        }
    }

    /// Takes in what the warden says unasked. Sessions that are not served here are ignored.
    pub(crate) fn apply(&self, push: &ToGateway) {
        let mut entries = self.lock();
        match push {
            ToGateway::Changed { session } => {
                if let Some(entry) = entries.get(&session.id) {
                    entry.change(session.clone());
                }
            }
            ToGateway::Relimited { sessions } => {
                for limits in sessions {
                    if let Some(entry) = entries.get(&limits.id) {
                        entry.relimit(limits);
                    }
                }
            }
            ToGateway::Warning {
                session,
                reason,
                limit,
            } => {
                if let Some(entry) = entries.get(session) {
                    entry.advance(Phase::Warned {
                        reason: *reason,
                        limit: *limit,
                    });
                }
            }
            ToGateway::Farewell {
                session,
                reason,
                limit,
            } => {
                if let Some(entry) = entries.get(session) {
                    entry.advance(Phase::Farewell {
                        reason: *reason,
                        limit: *limit,
                    });
                }
            }
            ToGateway::Ended { session, reason } => {
                if let Some(entry) = entries.remove(session) {
                    entry.advance(Phase::Ended(*reason));
                }
            }
            _ => {}
        }
    }

    /// The latest activity of each, for a warden that may not have heard of it.
    pub(crate) fn activity(&self) -> Vec<ToWarden> {
        let entries = self.lock();
        let latest = entries.values().map(|entry| entry.activity.latest());
        latest.flatten().collect()
    }

    /// Forgets sessions that nothing here uses any more.
    pub(crate) fn sweep(&self) {
        self.lock()
            .retain(|_, entry| entry.state.receiver_count() > 0);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn change(&self, view: SessionView) {
        self.activity.set_interval(view.idle_timeout);
        self.state.send_modify(|state| {
            // An answer that was overtaken must not bring a session back.
            if !matches!(state.phase, Phase::Ended(_)) {
                *state = SessionState::new(view);
            }
        });
    }

    fn relimit(&self, limits: &SessionLimits) {
        let view = self.state.borrow().view.clone();
        self.change(SessionView {
            deadline: limits.deadline,
            idle_timeout: limits.idle_timeout,
            warn_before: limits.warn_before,
            enforced: limits.enforced,
            ..view
        });
    }

    fn update(&self, view: SessionView) {
        self.activity.set_interval(view.idle_timeout);
        self.state.send_if_modified(|state| {
            let changed = state.view != view;
            state.view = view;
            changed
        });
    }

    fn advance(&self, phase: Phase) {
        self.state.send_modify(|state| state.phase = phase);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::WallInstant;

    pub(crate) fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    /// A session that ends at this many seconds.
    pub(crate) fn view(deadline: u64) -> SessionView {
        SessionView {
            id: SessionId::from_u64(7).unwrap(),
            started_at: WallInstant::from_unix_seconds(0),
            deadline: at(deadline),
            idle_timeout: Some(Duration::from_secs(30)),
            warn_before: Duration::from_secs(5),
            enforced: true,
            token_expires_at: WallInstant::from_unix_seconds(1000),
            policies: vec!["default".to_owned()],
        }
    }

    fn farewell(limit: u64) -> ToGateway {
        ToGateway::Farewell {
            session: view(0).id,
            reason: EndReason::Idle,
            limit: at(limit),
        }
    }

    #[test]
    fn a_session_halts_at_its_limit_without_being_told_and_is_over_a_little_later() {
        let table = SessionTable::default();
        let handle = table.opened(view(100));
        assert!(!handle.is_halted(at(99)));
        assert!(handle.is_halted(at(100)) && !handle.is_over(at(100)));
        assert!(handle.is_over(at(101)));
        table.apply(&farewell(50));
        assert!(!handle.is_halted(at(49)));
        assert!(handle.is_halted(at(50)));
        table.apply(&ToGateway::Changed { session: view(200) });
        assert!(!handle.is_halted(at(199)));
        let ended = ToGateway::Ended {
            session: handle.id(),
            reason: EndReason::Revoked,
        };
        table.apply(&ended);
        assert!(handle.is_over(at(0)));
    }

    #[test]
    fn who_asks_for_a_session_does_not_calm_it() {
        let table = SessionTable::default();
        let handle = table.opened(view(100));
        table.apply(&farewell(50));
        table.opened(view(100));
        assert!(handle.is_halted(at(50)));
    }

    #[test]
    fn an_observed_session_goes_on() {
        let observed = SessionView {
            enforced: false,
            ..view(100)
        };
        assert!(!SessionState::new(observed).is_halted(at(200)));
    }

    #[test]
    fn it_is_expiring_when_warned_or_close_to_its_deadline() {
        let mut state = SessionState::new(view(100));
        assert!(!state.is_expiring(at(94)));
        assert!(state.is_expiring(at(95)));
        state.phase = Phase::Warned {
            reason: EndReason::Idle,
            limit: at(30),
        };
        assert!(state.is_expiring(at(0)));
    }

    #[test]
    fn unused_sessions_are_forgotten() {
        let table = SessionTable::default();
        let handle = table.opened(view(100));
        table.sweep();
        assert_eq!(table.lock().len(), 1);
        drop(handle);
        table.sweep();
        assert_eq!(table.lock().len(), 0);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_wardens_word() {
        let table = Arc::new(SessionTable::default());
        let handle = table.opened(view(u64::MAX / 2_000_000_000));
        let waiting = {
            let handle = handle.clone();
            tokio::spawn(async move {
                handle.farewell().await;
                handle.ended().await
            })
        };
        tokio::task::yield_now().await;
        table.apply(&farewell(u64::MAX / 2_000_000_000));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        table.apply(&ToGateway::Ended {
            session: handle.id(),
            reason: EndReason::Deadline,
        });
        waiting.await.unwrap();
    }
}
