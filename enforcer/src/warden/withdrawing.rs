//! Keys that an issuer has withdrawn: what they signed is worth nothing any more.

use super::core::Core;
use crate::{
    clock::{BootInstant, Now},
    session::{EndReason, KeyThumbprint},
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
        let fallen = self
            .book
            .iter()
            .map(|live| &live.session)
            .filter(|session| {
                session.principal.issuer == issuer && !session.stands_by(keys, as_of)
            });
        let fallen: Vec<_> = fallen.map(|session| session.id).collect();
        if fallen.is_empty() {
            return;
        }
        let detail = "the issuer does not publish the key that signed its token any more";
        self.end_all(&fallen, EndReason::KeyWithdrawn, Some(detail), now);
    }
}
