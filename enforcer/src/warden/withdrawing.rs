//! What was withdrawn by those who vouched for it: an issuer's key, and a client's certificate.
//! What stands on it is worth nothing any more.

use std::collections::HashSet;

use super::core::Core;
use crate::{
    clock::{BootInstant, Now},
    session::{CertificateId, Credential, EndReason, KeyThumbprint, Session},
};

impl Core {
    /// These are all the keys that an issuer had at an instant: its sessions that none of them
    /// vouches for end together.
    pub(super) fn on_issuer_keys(
        &mut self,
        issuer: &str,
        keys: &[KeyThumbprint],
        as_of: BootInstant,
        now: Now,
    ) {
        let fallen = |session: &Session| {
            session.principal.issuer == issuer && !session.stands_by(keys, as_of)
        };
        let detail = "the issuer does not publish the key that signed its token any more";
        self.end_fallen(fallen, EndReason::KeyWithdrawn, detail, now);
    }

    /// Ends the sessions that stand on one of these certificates. From now on none comes to stand on
    /// one, through whatever gateway: one that is leaving may know older lists.
    pub(super) fn on_revoked_certificates(
        &mut self,
        anew: bool,
        certificates: Vec<CertificateId>,
        now: Now,
    ) {
        let revoked: HashSet<_> = certificates.iter().copied().collect();
        if anew {
            self.revoked_certificates.clear();
        }
        self.revoked_certificates.extend(certificates);
        let fallen = |session: &Session| session.certificates.iter().any(|id| revoked.contains(id));
        let detail = "its client's certificate is on a revocation list";
        self.end_fallen(fallen, EndReason::CertificateRevoked, detail, now);
    }

    /// Whether one of the certificates that the credential stands on is revoked.
    pub(super) fn stands_on_revoked(&self, credential: &Credential) -> bool {
        let mut certificates = credential.certificates().iter();
        certificates.any(|id| self.revoked_certificates.contains(id))
    }

    fn end_fallen(
        &mut self,
        fallen: impl Fn(&Session) -> bool,
        reason: EndReason,
        detail: &str,
        now: Now,
    ) {
        let sessions = self.book.iter().map(|live| &live.session);
        let ids: Vec<_> = sessions
            .filter(|session| fallen(session))
            .map(|session| session.id)
            .collect();
        if !ids.is_empty() {
            self.end_all(&ids, reason, Some(detail), now);
        }
    }
}
