//! Changes that wait for the next commit, each session's folded into one.
//!
//! However long commits fail, a batch grows with the number of sessions that changed, not with
//! the number of changes.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{EndedKey, StoredSession};
use crate::{
    clock::WallInstant,
    session::{SessionId, SessionKey},
};

/// What is to become of a session's rows.
#[derive(Debug)]
pub(super) enum SessionChange {
    /// They are replaced.
    Save(Box<StoredSession>),
    /// Only the last activity moves.
    Touch(WallInstant),
    /// They go.
    Remove,
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
        match self.sessions.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(SessionChange::Touch(at));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                SessionChange::Save(session) => session.last_activity = at,
                SessionChange::Touch(last) => *last = at,
                SessionChange::Remove => {}
            },
        }
    }

    pub(super) fn end(&mut self, id: SessionId, keys: Vec<EndedKey>) {
        self.urgent = true;
        self.sessions.insert(id, SessionChange::Remove);
        for ended in keys {
            self.ended.insert(ended.key, ended);
        }
    }
}
