//! What the kernel reports: sockets that open and close, sessions that meet their limits. And
//! what it could not report because the ring buffer was full.

use std::{collections::HashSet, time::Duration};

use enforcer_abi as abi;

use super::core::{Core, Due};
use super::ending::describe;
use crate::{
    audit::{Event, Record},
    clock::{BootInstant, Now},
    session::SessionId,
};

/// How often ended keys are looked through for those that have expired.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

impl Core {
    /// The kernel reported something.
    pub fn on_event(&mut self, event: &abi::Event, now: Now) {
        let connection = &event.connection;
        match abi::EventKind::from_code(event.kind) {
            Some(abi::EventKind::ConnectionOpened) => self.opened(event.cookie, connection),
            Some(abi::EventKind::ConnectionClosed) => self.closed(event.cookie, connection, now),
            Some(abi::EventKind::SessionExpired) => self.expired(connection.session_id, now),
            Some(abi::EventKind::FirstDrop) => self.first_drop(event, now),
            None => tracing::error!("an event of unknown kind {}", event.kind),
        }
    }

    /// A connection was accepted: it has until the pre-authentication limit.
    pub(super) fn opened(&mut self, cookie: u64, connection: &abi::Connection) {
        let bound = self.maps.binding(cookie).is_some();
        if connection.role != abi::Role::Client.code() || bound {
            return;
        }
        let opened_at = BootInstant::from_nanos(connection.opened_at_ns);
        let limit = opened_at.saturating_add(self.pre_authentication_timeout);
        self.unbound.insert(cookie, *connection);
        self.queue.set(Due::PreAuthentication(cookie), limit);
    }

    fn closed(&mut self, cookie: u64, connection: &abi::Connection, now: Now) {
        if self.unbound.remove(&cookie).is_some() {
            self.queue.remove(Due::PreAuthentication(cookie));
        }
        self.stuck.remove(&cookie);
        // The kernel knows the session from the first packet after the binding on.
        let latched = SessionId::from_u64(connection.session_id);
        match self.owners.remove(&cookie).or(latched) {
            Some(id) => self.leg_closed(id, cookie, connection, now),
            // Whoever reads the figures does not authenticate.
            None if self.is_scrape(connection) => {}
            None if connection.role == abi::Role::Client.code() => {
                let mut record =
                    Record::new(now.wall, Event::ConnectionClosed).because("unauthenticated");
                describe(&mut record, cookie, connection);
                self.audit.write(record);
            }
            None => {}
        }
    }

    /// A packet met a session's limit: it is over, even if this process thought otherwise.
    fn expired(&mut self, id: u64, now: Now) {
        let Some(id) = SessionId::from_u64(id) else {
            return;
        };
        if self.book.get(id).is_some() {
            // The alarm rings at the same instant; whoever comes first does the work.
            self.queue.set(Due::Session(id), now.boot);
            self.on_alarm(now);
        }
    }

    /// A socket that is latched to a session that nobody knows gets reset.
    fn first_drop(&mut self, event: &abi::Event, now: Now) {
        if event.reason != abi::Reason::UnknownSession.code() {
            return;
        }
        let known = SessionId::from_u64(event.connection.session_id)
            .is_some_and(|id| self.book.get(id).is_some() || self.ending.contains_key(&id));
        if !known {
            self.reset(&[(event.cookie, event.connection)]);
            let mut record = Record::new(now.wall, Event::Violation).because("unknown_session");
            describe(&mut record, event.cookie, &event.connection);
            self.audit.write(record);
        }
    }

    /// Once a second: what the ring buffer lost is read from the maps, what could not be reset is
    /// tried again, and now and then ended keys whose time is over are forgotten.
    pub fn on_tick(&mut self, now: Now) {
        let stats = self.maps.stats();
        if stats.events_lost != self.losses.events_lost {
            tracing::warn!(
                "the ring buffer lost {} events: reading the maps instead",
                stats.events_lost - self.losses.events_lost
            );
            self.reconcile(now);
        }
        self.losses = stats;
        self.reset_stuck();
        self.tend_canary(now);
        self.tend_alerts(now);
        if now.boot.saturating_duration_since(self.purged_at) >= PURGE_INTERVAL {
            self.book.purge_ended(now.wall);
            self.purged_at = now.boot;
        }
    }

    /// Brings the state up to date with the maps: closed sockets whose events were lost, sockets
    /// that nobody reported, limits that were met.
    pub fn reconcile(&mut self, now: Now) {
        let connections = self.maps.connections();
        let mut open = HashSet::with_capacity(connections.len());
        for (cookie, connection) in &connections {
            if connection.closed_at_ns != 0 {
                self.closed(*cookie, connection, now);
                self.maps.forget_connection(*cookie);
                continue;
            }
            open.insert(*cookie);
            if connection.session_id == 0 && !self.unbound.contains_key(cookie) {
                self.opened(*cookie, connection);
            }
        }
        self.unbound.retain(|cookie, _| open.contains(cookie));
        for (id, activity) in self.maps.activities() {
            if activity.expired_at_ns != 0 {
                self.expired(id, now);
            }
        }
    }
}
