//! Tokens whose signature was verified, by their digest.
//!
//! Only good tokens get in, so a flood of bad ones pushes nobody out.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::{claims::VerifiedToken, error::TokenError};

/// About two kilobytes each, and rarely more than twenty: a token is not long.
const CAPACITY: usize = 16_384;

#[derive(Debug)]
pub(super) struct VerifiedTokens(Cache<[u8; 32], Arc<VerifiedToken>>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// The token as it was verified before, or as `verify` finds it now.
    pub(super) fn get_or_verify(
        &self,
        token: &str,
        verify: impl FnOnce() -> Result<VerifiedToken, TokenError>,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        let digest = Sha256::digest(token).into();
        if let Some(verified) = self.0.get(&digest) {
            return Ok(verified);
        }
        let verified = Arc::new(verify()?);
        self.0.insert(digest, Arc::clone(&verified));
        Ok(verified)
    }
}
