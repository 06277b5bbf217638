//! The live session that a credential leads to, for those who must not open one.

use std::net::SocketAddr;

use super::{book::Live, core::Core, requests::Told};
use crate::{
    channel::{BoundRole, Kinship, Refusal, SessionUsage, SessionView},
    clock::Now,
    session::{Credential, SessionId},
};

impl Core {
    /// Finds the credential's live session, renews it if the credential is newer, and binds the
    /// client's socket to it.
    pub(super) fn find(
        &mut self,
        cookie: u64,
        credential: &Credential,
        kinship: Kinship,
        announced_client: Option<SocketAddr>,
        now: Now,
    ) -> Result<(SessionView, SessionUsage), Refusal> {
        if let Some(reason) = self.barred(credential, now) {
            return Err(Refusal::SessionEnded(reason));
        }
        let id = self
            .book
            .find(&credential.key)
            .or_else(|| self.succeeded_on(cookie, credential))
            .or_else(|| match kinship {
                Kinship::Own => None,
                Kinship::Successor => self.only_succeeded(credential),
            })
            .ok_or(Refusal::NoSession)?;
        // A socket that cannot be bound to it changes nothing about it.
        self.bindable(cookie, BoundRole::Client, Some(id), now)?;
        self.renew(id, credential, now)?;
        self.bind(
            cookie,
            id,
            BoundRole::Client,
            Told::by(announced_client),
            now,
        )?;
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        Ok((self.view(live), self.usage(live, now)))
    }

    /// The session of the client's socket, if the credential succeeds its credentials.
    fn succeeded_on(&self, cookie: u64, credential: &Credential) -> Option<SessionId> {
        let binding = self.maps.binding(cookie)?;
        let live = self.book.get(SessionId::from_u64(binding.session_id)?)?;
        succeeds(credential, live).then_some(live.session.id)
    }

    /// The session whose credentials the credential succeeds, if there is no other.
    fn only_succeeded(&self, credential: &Credential) -> Option<SessionId> {
        let mut succeeded = self.book.iter().filter(|live| succeeds(credential, live));
        let only = succeeded.next()?;
        succeeded.next().is_none().then_some(only.session.id)
    }

    fn usage(&self, live: &Live, now: Now) -> SessionUsage {
        let session = &live.session;
        let payload = self.last_payload(session.id);
        SessionUsage {
            connections: live.legs.len(),
            deadline: session.wall_limit(session.deadline().at, now),
            idle_at: session.idle_at(payload),
        }
    }
}

fn succeeds(credential: &Credential, live: &Live) -> bool {
    credential.good_until() > live.session.token_expires_at && live.session.accepts(credential)
}
