//! How sessions end: the map first, then the resets, then the words.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use enforcer_abi as abi;

use super::core::{Core, Due};
use crate::{
    audit::{ConnectionRole, Event, Record},
    channel::{BoundRole, ToGateway},
    clock::{self, BootInstant, Now},
    kernel::{maps::Endpoints, reset::ResetOutcome},
    session::{EndReason, Limit, SessionId},
};

/// How long the record of an ended session waits for its sockets' last counters.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(1);

/// An ended session whose record waits for its sockets to close.
#[derive(Debug)]
pub struct Ending {
    record: Record,
    limit: BootInstant,
    /// Its sockets that have not closed, and the clients behind their proxies.
    open: BTreeMap<u64, Option<SocketAddr>>,
    last_payload_at: Option<BootInstant>,
    dropped_packets: u64,
    /// Sockets on which payload passed at the limit or after.
    passed_late: u64,
}

/// A session that is over.
#[derive(Clone, Debug)]
pub(super) struct Over {
    /// Which.
    pub(super) id: SessionId,
    /// When it ended, and why.
    pub(super) limit: Limit,
    /// The same in somebody's words.
    pub(super) detail: Option<String>,
}

impl Ending {
    /// Takes in the final counters of one of the session's sockets. True when it was the last.
    fn closed(&mut self, cookie: u64, connection: &abi::Connection) -> bool {
        if connection.last_payload_at_ns != 0 {
            let at = BootInstant::from_nanos(connection.last_payload_at_ns);
            self.last_payload_at = self.last_payload_at.max(Some(at));
            self.passed_late += u64::from(at >= self.limit);
        }
        self.dropped_packets += connection.dropped_packets;
        self.open.remove(&cookie);
        self.open.is_empty()
    }

    /// What the kernel noted of the session's sockets is the proof that the cut was one: for each,
    /// when it last let payload pass. Sockets that have not closed yet have not been heard.
    fn into_record(self, now: Now) -> Record {
        let mut record = self.record;
        record.dropped_packets = Some(self.dropped_packets);
        record.payload_after_deadline = Some(self.passed_late);
        record.sockets_unheard = Some(self.open.len() as u64);
        if let Some(last) = self.last_payload_at {
            record.last_payload_at = Some(now.wall_at(last));
            record.lateness_us = Some(micros(last.saturating_duration_since(self.limit)));
            if last < self.limit {
                record.last_payload_before_deadline_us =
                    Some(micros(self.limit.saturating_duration_since(last)));
            }
        }
        record
    }
}

impl Core {
    /// Ends a session now, for a reason of its own.
    pub fn end(&mut self, id: SessionId, reason: EndReason, now: Now) {
        self.end_all(&[id], reason, None, now);
    }

    /// Ends sessions together, now. Returns how many connections they had.
    pub(super) fn end_all(
        &mut self,
        ids: &[SessionId],
        reason: EndReason,
        detail: Option<&str>,
        now: Now,
    ) -> usize {
        let legs = |id: &SessionId| self.book.get(*id).map_or(0, |live| live.legs.len());
        let connections = ids.iter().map(legs).sum();
        for id in ids {
            let state = abi::SessionState::Revoked.code();
            self.tighten_in_map(*id, |entry| abi::Session { state, ..entry });
        }
        // Read after the writes: a packet that is judged from here on finds the session revoked.
        let limit = Limit {
            at: clock::boot_now(),
            reason,
        };
        let over = ids
            .iter()
            .map(|id| Over {
                id: *id,
                limit,
                detail: detail.map(str::to_owned),
            })
            .collect();
        self.cut(over, now);
        connections
    }

    /// Resets and forgets sessions that the kernel lets nothing pass of any more. Client legs of all
    /// of them are reset before any upstream leg, in as few system calls as it takes.
    pub(super) fn cut(&mut self, over: Vec<Over>, now: Now) {
        let mut clients = Vec::new();
        let mut upstreams = Vec::new();
        for Over { id, .. } in &over {
            let legs = self.book.get(*id).into_iter().flat_map(|live| &live.legs);
            for (cookie, leg) in legs {
                match leg.role {
                    BoundRole::Client => clients.push((*cookie, leg.connection)),
                    BoundRole::Upstream => upstreams.push((*cookie, leg.connection)),
                }
            }
        }
        clients.append(&mut upstreams);
        let reset = self.reset(&clients);
        let reset_at = clock::boot_now();
        for over in over {
            self.conclude(over, &reset, reset_at, now);
        }
    }

    /// Changes a session's entry to one that lets less pass.
    pub(super) fn tighten_in_map(
        &mut self,
        id: SessionId,
        change: impl FnOnce(abi::Session) -> abi::Session,
    ) {
        if let Some(entry) = self.maps.session(id.as_u64()) {
            // An entry that can't be written is removed, which drops as well.
            if self.maps.set_session(id.as_u64(), change(entry)).is_err() {
                self.maps.remove_session(id.as_u64());
            }
        }
    }

    /// Resets sockets. Returns the cookies of those that were; one that could not be is tried again
    /// every second until it has closed.
    pub(super) fn reset(&mut self, sockets: &[(u64, abi::Connection)]) -> HashSet<u64> {
        let outcomes = self.resetter.reset(sockets);
        let mut reset = HashSet::with_capacity(sockets.len());
        for ((cookie, connection), outcome) in sockets.iter().zip(outcomes) {
            match outcome {
                ResetOutcome::Reset => drop(reset.insert(*cookie)),
                ResetOutcome::Gone => drop(self.stuck.remove(cookie)),
                ResetOutcome::Failed(errno) => {
                    let error = std::io::Error::from_raw_os_error(errno);
                    tracing::error!("socket {cookie} stays dropped, it cannot be reset: {error}");
                    self.stuck.insert(*cookie, *connection);
                }
            }
        }
        reset
    }

    /// Tries again to reset what could not be.
    pub(super) fn reset_stuck(&mut self) {
        let stuck: Vec<_> = self.stuck.drain().collect();
        self.reset(&stuck);
    }

    /// The session is over and its sockets are reset: forgets it and tells everybody.
    fn conclude(&mut self, over: Over, reset: &HashSet<u64>, reset_at: BootInstant, now: Now) {
        let Over { id, limit, detail } = over;
        let record = self.session_record(Event::SessionEnded, id, now);
        let Some(mut live) = self.book.end(id, limit.reason, now.wall) else {
            return;
        };
        self.queue.remove(Due::Session(id));
        self.maps.remove_session(id.as_u64());
        for cookie in live.legs.keys() {
            self.maps.unbind(*cookie);
        }
        let keys = live.session.keys_ended(limit.reason);
        self.store.end(id, keys, limit.reason, now.wall);
        self.gateways.broadcast(ToGateway::Ended {
            session: id,
            reason: limit.reason,
        });

        let mut record = record;
        record.detail = detail;
        record.idle_gaps = Some(live.pauses.take(&live.session, limit.at));
        record.reason = Some(limit.reason.as_str().into());
        record.deadline = Some(live.session.wall_limit(limit.at, now));
        record.duration_ms = Some(millis(now.wall.saturating_duration_since(live.opened_at)));
        record.sockets = Some(live.legs.len() as u64);
        record.sockets_reset = Some(
            live.legs
                .keys()
                .filter(|cookie| reset.contains(cookie))
                .count() as u64,
        );
        if !live.legs.is_empty() {
            let due = self.canary.reset_at(id, limit.at);
            let late = reset_at.saturating_duration_since(due);
            record.reset_lateness_us = Some(micros(late));
        }
        let ending = Ending {
            record,
            limit: limit.at,
            open: live
                .legs
                .iter()
                .map(|(cookie, leg)| (*cookie, leg.proxied_client))
                .collect(),
            last_payload_at: None,
            dropped_packets: 0,
            passed_late: 0,
        };
        if ending.open.is_empty() {
            self.audit.write(ending.into_record(now));
        } else {
            self.queue.set(
                Due::EndRecord(id),
                now.boot.saturating_add(COUNTERS_TIMEOUT),
            );
            self.ending.insert(id, ending);
        }
    }

    /// Writes the record of an ended session with the counters that are there.
    pub(super) fn write_end_record(&mut self, id: SessionId, now: Now) {
        if let Some(ending) = self.ending.remove(&id) {
            self.queue.remove(Due::EndRecord(id));
            self.audit.write(ending.into_record(now));
        }
    }

    /// A bound socket has closed.
    pub(super) fn leg_closed(
        &mut self,
        id: SessionId,
        cookie: u64,
        connection: &abi::Connection,
        now: Now,
    ) {
        let mut record = match self.ending.get(&id) {
            Some(ending) => connection_base(&ending.record, now),
            None => self.session_record(Event::ConnectionClosed, id, now),
        };
        record.proxied_client = match self.ending.get(&id) {
            Some(ending) => ending.open.get(&cookie).copied().flatten(),
            None => self.proxied_client(id, cookie),
        };
        describe(&mut record, cookie, connection);
        self.audit.write(record);

        if let Some(ending) = self.ending.get_mut(&id) {
            if ending.closed(cookie, connection) {
                self.write_end_record(id, now);
            }
        } else if let Some(live) = self.book.get_mut(id) {
            live.legs.remove(&cookie);
            if live.observed && live.legs.is_empty() {
                self.reschedule(id, now);
            }
        }
    }

    fn proxied_client(&self, id: SessionId, cookie: u64) -> Option<SocketAddr> {
        let live = self.book.get(id)?;
        live.legs.get(&cookie)?.proxied_client
    }

    /// Nobody authenticated on an accepted socket in time.
    pub(super) fn end_unauthenticated(&mut self, cookie: u64, now: Now) {
        let Some(connection) = self.unbound.remove(&cookie) else {
            return;
        };
        self.reset(&[(cookie, connection)]);
        let mut record = Record::new(now.wall, Event::Violation);
        record.reason = Some("pre_authentication_timeout".into());
        record.detail = Some("nobody authenticated within pre_authentication_timeout".to_owned());
        describe(&mut record, cookie, &connection);
        self.audit.write(record);
    }
}

fn connection_base(ended: &Record, now: Now) -> Record {
    let mut record = Record::new(now.wall, Event::ConnectionClosed);
    record.session = ended.session;
    record.issuer.clone_from(&ended.issuer);
    record.subject.clone_from(&ended.subject);
    record.policies.clone_from(&ended.policies);
    record
}

/// Fills in what a record says of a connection.
pub(super) fn describe(record: &mut Record, cookie: u64, connection: &abi::Connection) {
    let ends = Endpoints::of(connection).canonical();
    record.cookie = Some(cookie);
    record.client = Some(ends.remote);
    record.local = Some(ends.local);
    record.role = abi::Role::from_code(connection.role).map(ConnectionRole::from);
    if connection.closed_at_ns != 0 {
        record.bytes_received = Some(connection.bytes_received);
        record.bytes_sent = Some(connection.bytes_acknowledged);
        record.dropped_packets = Some(connection.dropped_packets);
        let nanos = connection
            .closed_at_ns
            .saturating_sub(connection.opened_at_ns);
        record.duration_ms = Some(nanos / 1_000_000);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
