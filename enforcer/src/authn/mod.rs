//! Authentication: tokens, keys and [certificates](certificate) -> [`Credential`].
//!
//! A token (RFC 7519, signed as in RFC 7515) passes these gates, and each has its own error:
//!
//! ```text
//! length -> shape -> issuer -> algorithm -> key -> signature -> claims -> time
//!                                                                  |       ^
//!                                                                  +-cache-+
//! ```
//!
//! The issuer alone decides which algorithms and which keys may have signed: both come from the
//! configuration (or from where it says that the issuer publishes them), and the header of a token
//! only chooses among them. What the signature covers is remembered by the token's digest, as long
//! as its key lasts; what depends on the time is checked on every call.
//!
//! Nothing here reaches out: published keys are brought by [`Authenticator::publish`], the answers
//! of an introspection endpoint are read by [`introspected`].

mod cache;
pub mod certificate;
mod claims;
pub mod confirmation;
mod distinguished_name;
mod error;
pub mod introspected;
mod keys;
mod name;
pub mod signing;
mod spiffe;
mod token;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

pub use cache::TokenDigest;
pub use certificate::CertificateError;
pub use confirmation::ConfirmationError;
pub use error::{Excerpt, TokenError};
pub use keys::{KeyError, KeyFault, KeySet};
pub(crate) use keys::{SHORTEST_SECRET, shared_secret};

use crate::{
    clock::{BootInstant, Now},
    config::{Identity, JwtIssuer, KeySource},
    policy::Claims,
    session::{Credential, KeyThumbprint},
};
use cache::VerifiedTokens;
use claims::VerifiedToken;
use token::Token;

/// Longest token, in bytes.
pub const LONGEST_TOKEN: usize = 16 * 1024;

/// Validates tokens against the issuers of a configuration.
#[derive(Debug)]
pub struct Authenticator {
    issuers: HashMap<String, Issuer>,
    verified: VerifiedTokens,
}

/// Who somebody is, and what else the issuer says of them.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who.
    pub credential: Arc<Credential>,
    /// The issuer's claims.
    pub claims: Arc<Claims>,
}

impl Identified {
    /// By a credential that makes no claims: a certificate.
    pub fn without_claims(credential: Credential) -> Self {
        Self {
            credential: Arc::new(credential),
            claims: Arc::default(),
        }
    }
}

/// An issuer and its keys. Those that it publishes come and go.
#[derive(Debug)]
struct Issuer {
    rules: JwtIssuer,
    keys: RwLock<Option<Arc<KeySet>>>,
}

/// Why a token is not accepted now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unaccepted {
    /// It never will be: the client's fault.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// None of the issuer's keys that are known made its signature; one that was published since
    /// may have.
    #[error("{error}")]
    KeysOutdated {
        /// `iss`.
        issuer: String,
        /// What is wrong with it if there is no newer key.
        error: TokenError,
    },
    /// The issuer's keys are not known, or have not been confirmed for too long.
    #[error("the keys of the issuer `{issuer}` are not known at present")]
    KeysUnknown {
        /// `iss`.
        issuer: String,
    },
}

impl Authenticator {
    /// Reads the keys of every issuer that has them in a file.
    ///
    /// # Errors
    /// The first source of keys that cannot be read or has no key for its issuer's algorithms.
    pub fn load(identity: &Identity) -> Result<Self, KeyError> {
        let load = |rules: &JwtIssuer| {
            let keys = KeySet::load(rules)?.map(Arc::new);
            let issuer = Issuer {
                keys: RwLock::new(keys),
                rules: rules.clone(),
            };
            Ok((rules.issuer.clone(), issuer))
        };
        Ok(Self {
            issuers: identity.jwt.iter().map(load).collect::<Result<_, _>>()?,
            verified: VerifiedTokens::new(),
        })
    }

    /// Takes in all keys that an issuer publishes. They may be used until `end`, unless they are
    /// confirmed by then. What keys that are gone have signed is worth nothing from now on.
    pub fn publish(&self, issuer: &str, mut keys: KeySet, end: BootInstant) {
        let Some(issuer) = self.issuers.get(issuer) else {
            return;
        };
        let mut current = issuer.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = &*current {
            keys.succeed(old);
        }
        keys.live_until(end);
        *current = Some(Arc::new(keys));
    }

    /// Issuers whose public keys are in files, and by what these are known.
    pub fn thumbprints_of_files(&self) -> impl Iterator<Item = (&str, Vec<KeyThumbprint>)> {
        let in_files = self
            .issuers
            .iter()
            .filter(|(_, issuer)| !issuer.publishes());
        in_files.filter_map(|(name, issuer)| {
            let thumbprints = issuer.keys()?.thumbprints();
            (!thumbprints.is_empty()).then_some((name.as_str(), thumbprints))
        })
    }

    /// The issuer that a token names, which nothing proves.
    pub fn claimed_issuer(token: &str) -> Option<String> {
        Token::parse(token).ok()?.claims.iss
    }

    /// Who a bearer token speaks for at `now`.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn validate(&self, token: &str, now: Now) -> Result<Identified, Unaccepted> {
        if token.len() > LONGEST_TOKEN {
            return Err(Unaccepted::Token(TokenError::TooLong {
                length: token.len(),
            }));
        }
        let digest = TokenDigest::of(token);
        let verified = match self.verified.get(&digest, now.boot) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify(token, now.boot)?);
                self.verified.insert(digest, &verified);
                verified
            }
        };
        verified.believed.check_time(now.wall)?;
        Ok(verified.believed.identified.clone())
    }

    /// Whether the issuer's tokens are good for nothing unless they are bound to a certificate.
    pub fn binds_certificates(&self, issuer: &str) -> bool {
        let issuer = self.issuers.get(issuer);
        issuer.is_some_and(|issuer| issuer.rules.certificate_bound)
    }

    /// Everything about a token that does not depend on the time.
    fn verify(&self, token: &str, now: BootInstant) -> Result<VerifiedToken, Unaccepted> {
        let token = Token::parse(token)?;
        let name = token.claims.iss.as_deref();
        let name = name.ok_or(TokenError::ClaimMissing { claim: "iss" })?;
        let issuer = self
            .issuers
            .get(name)
            .ok_or_else(|| TokenError::IssuerUnknown {
                issuer: Excerpt::new(name),
            })?;
        let algorithm = token.algorithm(&issuer.rules.algorithms)?;
        let unknown = || Unaccepted::KeysUnknown {
            issuer: name.to_owned(),
        };
        let keys = issuer.keys().ok_or_else(unknown)?;
        match keys.verify(&token, algorithm) {
            Ok(key) if key.life.lasts(now) => Ok(VerifiedToken::new(token, key, &issuer.rules)?),
            Ok(_) => Err(unknown()),
            Err(error) if issuer.publishes() && keys.may_be_outdated(&token, &error) => {
                Err(Unaccepted::KeysOutdated {
                    issuer: name.to_owned(),
                    error,
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Issuer {
    fn keys(&self) -> Option<Arc<KeySet>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    fn publishes(&self) -> bool {
        matches!(self.rules.keys, KeySource::Published(_))
    }
}

#[cfg(test)]
mod tests;
