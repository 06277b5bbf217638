//! Changes that wait for the next commit, each session's folded into one.
//!
//! However long commits fail, a batch grows with the number of sessions that changed, not with
//! the number of changes.

use std::collections::BTreeMap;

use super::{Bounds, EndedKey, StoredSession};
use crate::{
    clock::WallInstant,
    session::{SessionId, SessionKey},
};

/// What is to become of a session's rows.
#[derive(Debug)]
pub(super) enum SessionChange {
    /// They are replaced.
    Save(Box<StoredSession>),
    /// Some of their columns move.
    Update(Update),
    /// They go.
    Remove,
}

/// Columns that move by themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Update {
    pub(super) last_activity: Option<WallInstant>,
    pub(super) bounds: Option<Bounds>,
}

/// One transaction to be.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) sessions: BTreeMap<SessionId, SessionChange>,
    pub(super) ended: BTreeMap<SessionKey, EndedKey>,
    urgent: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.ended.is_empty()
    }

    /// There is more in it than touches.
    pub(super) const fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub(super) fn save(&mut self, session: StoredSession) {
        self.urgent = true;
        self.sessions
            .insert(session.id, SessionChange::Save(Box::new(session)));
    }

    pub(super) fn touch(&mut self, id: SessionId, at: WallInstant) {
        match self.change(id) {
            SessionChange::Save(session) => session.last_activity = at,
            SessionChange::Update(update) => update.last_activity = Some(at),
            SessionChange::Remove => {}
        }
    }

    pub(super) fn bound(&mut self, id: SessionId, bounds: Bounds) {
        self.urgent = true;
        match self.change(id) {
            SessionChange::Save(session) => {
                session.deadline = bounds.deadline;
                session.hours_end_at = bounds.hours_end_at;
            }
            SessionChange::Update(update) => update.bounds = Some(bounds),
            SessionChange::Remove => {}
        }
    }

    fn change(&mut self, id: SessionId) -> &mut SessionChange {
        let unchanged = || SessionChange::Update(Update::default());
        self.sessions.entry(id).or_insert_with(unchanged)
    }

    pub(super) fn end(&mut self, id: SessionId, keys: Vec<EndedKey>) {
        self.urgent = true;
        self.sessions.insert(id, SessionChange::Remove);
        for ended in keys {
            self.ended.insert(ended.key, ended);
        }
    }
}
