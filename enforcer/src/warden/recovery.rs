//! A new warden takes over: what the store remembers and what the maps hold become the book again.
//!
//! The maps win on limits (they are what the kernel enforces), the store on identity. A session
//! that only the maps know is cut; one whose limit passed meanwhile is ended now.

use std::collections::{BTreeMap, HashMap};

use enforcer_abi as abi;

use super::{
    book::{Leg, Live},
    core::{Core, payload_instant},
    ending::Over,
    pauses::Pauses,
    publishing::kernel_session,
    store::{Snapshot, StoredSession},
};
use crate::{
    audit::{Event, Record},
    channel::BoundRole,
    clock::{BootInstant, Now},
    policy::{Mode, Terms},
    session::{Credential, EndReason, Session, SessionId, ShownCertificate},
};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sessions that live on.
    pub sessions: usize,
    /// Sessions that were cut: they met their limits meanwhile, or the store does not know them.
    pub cut: usize,
}

impl Core {
    /// Takes over. Called once, before anything else.
    pub fn recover(&mut self, snapshot: Snapshot, now: Now) -> Recovered {
        for ended in snapshot.ended {
            self.book.remember_ended(ended);
        }
        let mut mapped: HashMap<u64, abi::Session> = self.maps.sessions().into_iter().collect();
        for stored in snapshot.sessions {
            let entry = mapped.remove(&stored.id.as_u64());
            if let Some(orphan) = self.restore(&stored, entry, now) {
                mapped.insert(stored.id.as_u64(), orphan);
            }
        }
        self.adopt_connections();
        let over: Vec<_> = self
            .book
            .ids()
            .into_iter()
            .filter_map(|id| self.over(id, now))
            .collect();
        let ended = over.len();
        self.cut(over, now);
        for id in mapped.keys() {
            self.cut_unknown(*id, now);
        }
        self.reconcile(now);
        for id in self.book.ids() {
            self.reschedule(id, now);
        }
        Recovered {
            sessions: self.book.ids().len(),
            cut: mapped.len() + ended,
        }
    }

    /// Puts a stored session back into the book, and into the map if it is not there (a reboot).
    /// Returns the map's entry if the session can't go on.
    fn restore(
        &mut self,
        stored: &StoredSession,
        entry: Option<abi::Session>,
        now: Now,
    ) -> Option<abi::Session> {
        let Some(session) = self.revive(stored, entry, now) else {
            // None of its policies is left in the configuration: nothing says how long it may go
            // on, so the maps know it alone and it is cut as such.
            self.store
                .end(stored.id, stored.keys.clone(), EndReason::Unknown, now.wall);
            return entry;
        };
        let value = kernel_session(&session, self.policy_id(&session));
        let written = self.maps.restore_session(session.id.as_u64(), value);
        if let Err(error) = written {
            tracing::error!("session {} cannot be restored: {error}", session.id);
            return entry;
        }
        self.book.insert(Live {
            session,
            opened_at: stored.opened_at,
            legs: BTreeMap::new(),
            observed: false,
            dismissal: None,
            warned_for: stored.warned_for,
            pauses: Pauses::new(now.boot_at(stored.opened_at), now.boot),
        });
        None
    }

    /// The session as it was, even if it is over by now.
    fn revive(
        &self,
        stored: &StoredSession,
        entry: Option<abi::Session>,
        now: Now,
    ) -> Option<Session> {
        let terms = self.terms_of(stored, now)?;
        let first = stored.keys.first()?;
        let credential = Credential {
            principal: stored.principal.clone(),
            key: first.key,
            names_session: stored.names_session,
            authorized_party: stored.authorized_party.clone(),
            authenticated_at: Some(stored.started_at),
            expires_at: stored.token_expires_at,
            assumed_expiry: false,
            signing_key: stored.signing_key,
            certificate: (!stored.certificates.is_empty()).then(|| ShownCertificate {
                chain: stored.certificates.clone(),
                expires_at: stored.token_expires_at,
            }),
        };
        let mut session =
            Session::resume(stored.id, &credential, &terms, stored.first_address, now);
        session.keys.clone_from(&stored.keys);
        Some(match entry {
            Some(entry) => session.restore(
                BootInstant::from_nanos(entry.deadline_ns),
                BootInstant::from_nanos(entry.idle_base_ns),
            ),
            None => session.restore(
                now.boot_at(stored.deadline),
                now.boot_at(stored.last_activity),
            ),
        })
    }

    /// What the policies that applied make of it. Hours that ended meanwhile end it, also if others
    /// have begun.
    fn terms_of<'a>(&self, stored: &'a StoredSession, now: Now) -> Option<Terms<'a>> {
        let terms = Terms::of_known(&stored.policies, &self.policies, now.wall)?;
        let ends = [terms.hours_end_at, stored.hours_end_at];
        Some(Terms {
            hours_end_at: ends.into_iter().flatten().min(),
            ..terms
        })
    }

    /// Gives the sessions their sockets back.
    fn adopt_connections(&mut self) {
        let bindings: HashMap<_, _> = self.maps.bindings().into_iter().collect();
        for (cookie, mut connection) in self.maps.connections() {
            if let Some(binding) = bindings.get(&cookie) {
                connection.session_id = binding.session_id;
                connection.role = binding.role;
            }
            let role = match abi::Role::from_code(connection.role) {
                Some(abi::Role::Client) => BoundRole::Client,
                Some(abi::Role::Upstream) => BoundRole::Upstream,
                Some(abi::Role::Pooled) | None => continue,
            };
            let Some(id) = SessionId::from_u64(connection.session_id) else {
                continue;
            };
            if let Some(live) = self.book.get_mut(id) {
                let leg = Leg {
                    role,
                    connection,
                    proxied_client: None,
                };
                live.legs.insert(cookie, leg);
                self.owners.insert(cookie, id);
            }
        }
    }

    /// The session, if it met its limit while nobody looked after it.
    fn over(&self, id: SessionId, now: Now) -> Option<Over> {
        let activity = self.activity(id);
        let live = self.book.get(id)?;
        let limit = live.session.limit(payload_instant(&activity));
        let met = activity.expired_at_ns != 0 || now.boot >= limit.at;
        let enforced = live.session.limits.mode == Mode::Enforce;
        (met && enforced).then_some(Over {
            id,
            limit,
            detail: None,
        })
    }

    /// Cuts a session that only the maps know.
    fn cut_unknown(&mut self, id: u64, now: Now) {
        self.maps.remove_session(id);
        let sockets: Vec<_> = self
            .maps
            .connections()
            .into_iter()
            .filter(|(_, connection)| connection.session_id == id)
            .collect();
        let reset = self.reset(&sockets);
        let mut record =
            Record::new(now.wall, Event::SessionEnded).because(EndReason::Unknown.as_str());
        record.session = SessionId::from_u64(id);
        record.detail = Some("the store does not know the session".to_owned());
        record.sockets_reset = Some(reset.len() as u64);
        self.audit.write(record);
    }
}
