//! Tokens whose signature was verified, by their digest.
//!
//! Only good tokens get in, so a flood of bad ones pushes nobody out.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::claims::VerifiedToken;
use crate::clock::BootInstant;

/// About half a kilobyte each.
const CAPACITY: usize = 16_384;

/// A token by its digest: what is remembered of it is remembered under this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

#[derive(Debug)]
pub(super) struct VerifiedTokens(Cache<TokenDigest, Arc<VerifiedToken>>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// The token as it was verified before, by a key that may still be used.
    pub(super) fn get(&self, digest: &TokenDigest, now: BootInstant) -> Option<Arc<VerifiedToken>> {
        self.0
            .get(digest)
            .filter(|verified| verified.key_lasts(now))
    }

    pub(super) fn insert(&self, digest: TokenDigest, verified: &Arc<VerifiedToken>) {
        self.0.insert(digest, Arc::clone(verified));
    }
}
