//! The sessions that live, the keys that lead to them, and the keys whose sessions have ended.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use enforcer_abi::Connection;

use super::{dismissing::Dismissal, pauses::Pauses, store::EndedKey};
use crate::{
    channel::BoundRole,
    clock::WallInstant,
    session::{Credential, EndReason, Principal, Session, SessionId, SessionKey},
};

/// A live session and its sockets.
#[derive(Clone, Debug)]
pub struct Live {
    /// The machine.
    pub session: Session,
    /// When it was opened here.
    pub opened_at: WallInstant,
    /// Its sockets, by cookie.
    pub legs: BTreeMap<u64, Leg>,
    /// Only observed, and its limit has been met and recorded.
    pub observed: bool,
    /// Somebody has ended it; it says goodbye.
    pub dismissal: Option<Dismissal>,
    /// The end that it was last announced for.
    pub warned_for: Option<WallInstant>,
    /// How long its client has paused.
    pub pauses: Pauses,
}

impl Live {
    /// Its connections from clients.
    pub fn clients(&self) -> impl Iterator<Item = &Leg> {
        let legs = self.legs.values();
        legs.filter(|leg| leg.role == BoundRole::Client)
    }
}

/// A socket of a session.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    /// What it is to the session.
    pub role: BoundRole,
    /// Its ends and times.
    pub connection: Connection,
    /// The client behind the proxy at its other end, as far as this warden knows.
    pub proxied_client: Option<SocketAddr>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Book {
    live: HashMap<SessionId, Live>,
    keys: HashMap<SessionKey, SessionId>,
    subjects: HashMap<Principal, BTreeSet<SessionId>>,
    ended: HashMap<SessionKey, EndedKey>,
}

impl Book {
    /// Adds a session under all its keys.
    pub fn insert(&mut self, live: Live) {
        let id = live.session.id;
        self.subjects
            .entry(live.session.principal.clone())
            .or_default()
            .insert(id);
        self.live.insert(id, live);
        self.index(id);
    }

    /// Makes keys lead to their session that were added to it since.
    pub fn index(&mut self, id: SessionId) {
        let keys = self.live.get(&id).into_iter();
        for known in keys.flat_map(|live| &live.session.keys) {
            self.keys.insert(known.key, id);
        }
    }

    /// Removes a session; its keys may open another.
    pub fn forget(&mut self, id: SessionId) -> Option<Live> {
        let live = self.live.remove(&id)?;
        for known in &live.session.keys {
            self.keys.remove(&known.key);
        }
        if let Some(sessions) = self.subjects.get_mut(&live.session.principal) {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.subjects.remove(&live.session.principal);
            }
        }
        Some(live)
    }

    /// Removes a session; those of its keys that open no other are remembered as ended until their
    /// credentials expire.
    pub fn end(&mut self, id: SessionId, reason: EndReason, at: WallInstant) -> Option<Live> {
        let live = self.forget(id)?;
        for known in live.session.keys_ended(reason) {
            self.remember_ended(EndedKey {
                key: known.key,
                reason,
                ended_at: at,
                until: known.until,
            });
        }
        Some(live)
    }

    /// Remembers a key as ended.
    pub fn remember_ended(&mut self, ended: EndedKey) {
        self.ended.insert(ended.key, ended);
    }

    /// Why the session of the credential's key ended, while that still counts. That a credential ran
    /// out says nothing of a newer one.
    pub fn ended(&self, credential: &Credential, now: WallInstant) -> Option<EndReason> {
        let ended = self.ended.get(&credential.key)?;
        let newer = credential.expires_at > ended.until;
        let counts = ended.until > now && !(newer && ended.reason == EndReason::Token);
        counts.then_some(ended.reason)
    }

    /// Forgets ended keys whose credentials have expired.
    pub fn purge_ended(&mut self, now: WallInstant) {
        self.ended.retain(|_, ended| ended.until > now);
    }

    /// The live session that a key leads to.
    pub fn find(&self, key: &SessionKey) -> Option<SessionId> {
        self.keys.get(key).copied()
    }

    /// The live sessions of a subject.
    pub fn of(&self, principal: &Principal) -> impl Iterator<Item = &Live> {
        let sessions = self.subjects.get(principal).into_iter().flatten();
        sessions.filter_map(|id| self.live.get(id))
    }

    /// A live session.
    pub fn get(&self, id: SessionId) -> Option<&Live> {
        self.live.get(&id)
    }

    /// A live session, to change.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Live> {
        self.live.get_mut(&id)
    }

    /// All live sessions.
    pub fn iter(&self) -> impl Iterator<Item = &Live> {
        self.live.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// The ids of all live sessions.
    pub fn ids(&self) -> Vec<SessionId> {
        self.live.keys().copied().collect()
    }
}
