//! Sessions that go on: under a newer credential, or more policies.

use std::net::SocketAddr;

use super::{concurrency::client_address, core::Core, requests::refusal};
use crate::{
    audit::Event,
    channel::{BoundRole, Refusal, SessionView, ToGateway},
    clock::Now,
    policy::Terms,
    session::{Credential, EndReason, Session, SessionId},
};

impl Core {
    /// The credential's live session, renewed. `None` without one, also if it has ended because the
    /// renewal came too late: what opens a session a moment later opens one now.
    pub(super) fn renew_found(
        &mut self,
        cookie: u64,
        credential: &Credential,
        announced_client: Option<SocketAddr>,
        now: Now,
    ) -> Result<Option<SessionId>, Refusal> {
        let Some(id) = self.book.find(&credential.key) else {
            return Ok(None);
        };
        // Who may not connect renews nothing.
        let connection = self.bindable(cookie, BoundRole::Client, Some(id), now)?;
        if let Some(connection) = &connection {
            let address = client_address(connection, announced_client);
            self.check_network(id, address)?;
        }
        match self.renew(id, credential, now) {
            Ok(_) => Ok(Some(id)),
            Err(_)
                if connection.is_some()
                    && self.book.get(id).is_none()
                    && self.barred(credential, now).is_none() =>
            {
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Why the credential opens and renews no session, if that is so.
    pub(super) fn barred(&self, credential: &Credential, now: Now) -> Option<EndReason> {
        let revoked = || self.stands_on_revoked(credential);
        let ended = self.book.ended(credential, now.wall);
        ended.or_else(|| revoked().then_some(EndReason::CertificateRevoked))
    }

    pub(super) fn join(
        &mut self,
        id: SessionId,
        terms: &Terms<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        if live.session.is_under(&terms.policies) {
            return Ok(());
        }
        let mut joined = live.session.clone();
        joined.join(terms, now).map_err(refusal)?;
        self.admit_limits(&joined, now)?;
        self.change(id, joined, now)
    }

    pub(super) fn renew(
        &mut self,
        id: SessionId,
        credential: &Credential,
        now: Now,
    ) -> Result<SessionView, Refusal> {
        if let Some(reason) = self.barred(credential, now) {
            return Err(Refusal::SessionEnded(reason));
        }
        if self
            .book
            .find(&credential.key)
            .is_some_and(|other| other != id)
        {
            return Err(Refusal::AnotherSession);
        }
        let live = self
            .book
            .get(id)
            .ok_or(Refusal::SessionEnded(EndReason::Unknown))?;
        if let Some(dismissal) = &live.dismissal {
            return Err(Refusal::SessionEnded(dismissal.limit.reason));
        }
        let mut renewed = live.session.clone();
        renewed.renew(credential, now).map_err(refusal)?;
        if renewed != live.session {
            self.change(id, renewed, now)?;
        }
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        Ok(self.view(live))
    }

    /// Makes a session what it has become: published, indexed, stored, told and recorded. If this
    /// comes too late, it stays what it was and ends.
    fn change(&mut self, id: SessionId, changed: Session, now: Now) -> Result<(), Refusal> {
        let live = self.book.get_mut(id).ok_or(Refusal::Unavailable)?;
        let before = std::mem::replace(&mut live.session, changed);
        if let Err(reason) = self.publish_limits(id, before.deadline().reason) {
            if let Some(live) = self.book.get_mut(id) {
                live.session = before;
            }
            self.end(id, reason, now);
            return Err(Refusal::SessionEnded(reason));
        }
        self.book.index(id);
        self.reschedule(id, now);
        self.save(id, now);
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        let view = self.view(live);
        let deadline = live.session.wall_limit(live.session.deadline().at, now);
        let mut record = self.session_record(Event::SessionRenewed, id, now);
        record.deadline = Some(deadline);
        self.audit.write(record);
        self.gateways
            .broadcast(ToGateway::Changed { session: view });
        Ok(())
    }
}
