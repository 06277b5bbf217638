//! What issuers said of tokens, by the tokens' digests.
//!
//! Active tokens and others are remembered apart, so that a flood of invented ones pushes no good
//! one out; of those others no more is kept than why they are refused.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::{
    authn::{TokenDigest, TokenError, introspected::Active},
    clock::BootInstant,
};

/// About a kilobyte each, and the token.
const MOST_ACTIVE: usize = 16_384;
const MOST_REFUSED: usize = 16_384;

/// What an issuer last said of a token.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) said: Result<Attested, TokenError>,
    /// When it was asked.
    pub(super) asked_at: BootInstant,
}

/// An active token. To ask about it again it has to be kept.
#[derive(Debug)]
pub(super) struct Attested {
    pub(super) token: Arc<str>,
    pub(super) digest: TokenDigest,
    pub(super) active: Active,
}

#[derive(Debug)]
pub(super) struct Answers {
    active: Cache<TokenDigest, Arc<Answer>>,
    refused: Cache<TokenDigest, Arc<Answer>>,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self {
            active: Cache::new(MOST_ACTIVE),
            refused: Cache::new(MOST_REFUSED),
        }
    }

    /// The last answer about a token.
    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Arc<Answer>> {
        self.active.get(digest).or_else(|| self.refused.get(digest))
    }

    /// Remembers an answer in the place of the last.
    pub(super) fn remember(&self, digest: TokenDigest, answer: &Arc<Answer>) {
        let (now, before) = match answer.said {
            Ok(_) => (&self.active, &self.refused),
            Err(_) => (&self.refused, &self.active),
        };
        before.remove(&digest);
        now.insert(digest, Arc::clone(answer));
    }
}

impl Answer {
    /// Whether a token that this was said of now speaks for somebody else.
    pub(super) fn speaks_for_another(&self, active: &Active) -> bool {
        match &self.said {
            Ok(before) => before.active.credential().principal != active.credential().principal,
            // Once it has changed it stays worthless.
            Err(error) => *error == TokenError::PrincipalChanged,
        }
    }

    /// Whether a newer answer about the same token says that all is as it was.
    pub(super) fn is_confirmed_by(&self, newer: &Self) -> bool {
        let attested = newer.said.as_ref();
        attested.is_ok_and(|attested| !self.speaks_for_another(&attested.active))
    }

    /// Whether the token ends later than `other`'s. The same one, asked about again, may.
    pub(super) fn expires_later(&self, other: &Self) -> bool {
        let expires_at = |answer: &Self| {
            let attested = answer.said.as_ref().ok()?;
            Some(attested.active.credential().expires_at)
        };
        expires_at(self) > expires_at(other)
    }
}
