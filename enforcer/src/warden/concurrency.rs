//! How many connections a session may have, from where, and how many sessions a subject.
//!
//! Of a session that is only observed, what would have been refused is recorded.

use std::net::{IpAddr, SocketAddr};

use enforcer_abi as abi;

use super::{
    book::{Leg, Live},
    core::Core,
};
use crate::{
    audit::{Event, Record},
    channel::Refusal,
    clock::Now,
    kernel::maps::Endpoints,
    policy::{AtSessionLimit, Mode},
    session::{EndReason, Session, SessionId},
};

/// Where a client's connection comes from: as its proxy announced it, or the other end.
pub(super) fn client_address(
    connection: &abi::Connection,
    announced: Option<SocketAddr>,
) -> IpAddr {
    match announced {
        Some(client) => client.ip().to_canonical(),
        None => Endpoints::of(connection).canonical().remote.ip(),
    }
}

impl Core {
    /// Refuses a client that is not in the session's network, if that is enforced.
    pub(super) fn check_network(&self, id: SessionId, client: IpAddr) -> Result<(), Refusal> {
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        let enforced = live.session.limits.mode == Mode::Enforce;
        if enforced && !live.session.takes_address(client) {
            return Err(Refusal::AnotherNetwork);
        }
        Ok(())
    }

    /// Whether a session may have one more connection, from this client.
    pub(super) fn admit_connection(
        &mut self,
        id: SessionId,
        client: IpAddr,
        now: Now,
    ) -> Result<(), Refusal> {
        let Some(live) = self.book.get_mut(id) else {
            return Err(Refusal::Unavailable);
        };
        live.session.first_address.get_or_insert(client);
        let Live { session, .. } = live;
        let most = session.limits.max_connections;
        let excess = if !session.takes_address(client) {
            Refusal::AnotherNetwork
        } else if most.is_some_and(|most| live.clients().count() >= most as usize) {
            Refusal::TooManyConnections
        } else {
            return Ok(());
        };
        let session = live.session.clone();
        self.refuse(&session, excess, now)
    }

    /// Whether a session that comes under stricter limits has what they don't allow.
    pub(super) fn admit_limits(&mut self, joined: &Session, now: Now) -> Result<(), Refusal> {
        let Some(live) = self.book.get(joined.id) else {
            return Err(Refusal::Unavailable);
        };
        let most = joined.limits.max_connections;
        let elsewhere = |leg: &Leg| {
            let client = client_address(&leg.connection, leg.proxied_client);
            !joined.takes_address(client)
        };
        let spread = live.clients().any(elsewhere);
        let too_many = most.is_some_and(|most| live.clients().count() > most as usize);
        if spread {
            self.refuse(joined, Refusal::AnotherNetwork, now)?;
        } else if too_many {
            self.refuse(joined, Refusal::TooManyConnections, now)?;
        }
        self.make_room(joined, now)
    }

    /// Makes room for a session among its subject's: ends the oldest others, or refuses.
    pub(super) fn make_room(&mut self, session: &Session, now: Now) -> Result<(), Refusal> {
        let Some(limit) = session.limits.sessions_per_subject else {
            return Ok(());
        };
        let mut others: Vec<_> = self
            .book
            .of(&session.principal)
            // Who has been dismissed only says goodbye.
            .filter(|live| live.session.id != session.id && live.dismissal.is_none())
            .map(|live| (live.opened_at, live.session.id.as_u64(), live.session.id))
            .collect();
        let most = limit.max.saturating_sub(1) as usize;
        let too_many = others.len().saturating_sub(most);
        if too_many == 0 {
            return Ok(());
        }
        if limit.then == AtSessionLimit::Refuse || session.limits.mode == Mode::Observe {
            return self.refuse(session, Refusal::TooManySessions, now);
        }
        others.sort_unstable_by_key(|(opened_at, id, _)| (*opened_at, *id));
        let displaced: Vec<_> = others.iter().take(too_many).map(|(.., id)| *id).collect();
        let detail = format!("displaced by session {}", session.id);
        self.end_all(&displaced, EndReason::Displaced, Some(&detail), now);
        Ok(())
    }

    /// Refuses, unless the session is only observed: then it is recorded.
    fn refuse(&self, session: &Session, refusal: Refusal, now: Now) -> Result<(), Refusal> {
        if session.limits.mode == Mode::Enforce {
            return Err(refusal);
        }
        let record = Record::new(now.wall, Event::RequestObserved);
        let mut record = record
            .of(session.id, &session.principal)
            .because(refusal.code());
        record.policies.clone_from(&session.policies);
        record.detail = Some(refusal.to_string());
        self.audit.write(record);
        Ok(())
    }
}
