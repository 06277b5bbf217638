//! How long clients pause: noted with each session, and recorded when it ends, now and then while
//! it lives, and when the daemon stops. `enforcer policy replay` reads it.

use std::time::Duration;

use super::core::Core;
use crate::{
    audit::{Event, Record},
    clock::{BootInstant, Now},
    session::{IdleGaps, Session, SessionId},
};

/// What was noted is recorded after this at the latest, when the client is active the next time.
const RECORD_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// Sessions that are recorded when the daemon stops: what the log takes at once.
const RECORDED_AT_STOP: usize = 4096;

/// The pauses of a live session.
#[derive(Clone, Debug)]
pub struct Pauses {
    opened_at: BootInstant,
    recorded_at: BootInstant,
    gaps: IdleGaps,
}

impl Pauses {
    /// Of a session that was opened then; what was before now is another's record.
    pub fn new(opened_at: BootInstant, now: BootInstant) -> Self {
        Self {
            opened_at,
            recorded_at: now,
            gaps: IdleGaps::default(),
        }
    }

    /// The client is active again.
    pub fn note(&mut self, from: BootInstant, to: BootInstant) {
        let lasted = to.saturating_duration_since(from);
        let since_opening = to.saturating_duration_since(self.opened_at);
        self.gaps.note(since_opening, lasted);
    }

    /// What has not been recorded yet.
    pub fn take(&mut self, session: &Session, now: BootInstant) -> IdleGaps {
        let last = now.saturating_duration_since(session.last_activity());
        self.recorded_at = now;
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.last_ms = u64::try_from(last.as_millis()).unwrap_or(u64::MAX);
        gaps
    }
}

impl Core {
    /// Records what was noted of a session, if that has become long ago.
    pub(super) fn record_pauses_in_time(&mut self, id: SessionId, now: Now) {
        let due = self.book.get(id).is_some_and(|live| {
            let recorded_at = live.pauses.recorded_at;
            now.boot.saturating_duration_since(recorded_at) >= RECORD_INTERVAL
        });
        if due {
            self.record_pauses(id, now);
        }
    }

    /// Records what was noted of all sessions: the next daemon begins anew.
    pub(super) fn record_all_pauses(&mut self, now: Now) {
        let noted = self.book.iter().filter(|live| !live.pauses.gaps.is_empty());
        let ids: Vec<_> = noted.map(|live| live.session.id).collect();
        for id in ids.iter().take(RECORDED_AT_STOP) {
            self.record_pauses(*id, now);
        }
        if ids.len() > RECORDED_AT_STOP {
            tracing::warn!(
                "the pauses of {} sessions are not recorded",
                ids.len() - RECORDED_AT_STOP
            );
        }
    }

    fn record_pauses(&mut self, id: SessionId, now: Now) {
        let mut record: Record = self.session_record(Event::SessionActivity, id, now);
        if let Some(live) = self.book.get_mut(id) {
            record.idle_gaps = Some(live.pauses.take(&live.session, now.boot));
            self.audit.write(record);
        }
    }
}
