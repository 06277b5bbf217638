//! How long a key may be used.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::BootInstant;

/// The end of a key, which whoever was verified with it looks at again and again. By default there
/// is none.
#[derive(Debug)]
pub(in crate::authn) struct KeyLife(AtomicU64);

impl Default for KeyLife {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl KeyLife {
    /// Whether the key may be used at `now`.
    pub(in crate::authn) fn lasts(&self, now: BootInstant) -> bool {
        now.as_nanos() < self.0.load(Ordering::Relaxed)
    }

    /// The key may be used until then.
    pub(super) fn end_at(&self, end: BootInstant) {
        self.0.store(end.as_nanos(), Ordering::Relaxed);
    }

    /// The key is not to be used any more.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
