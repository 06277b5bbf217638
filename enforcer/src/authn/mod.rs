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
//! configuration, and the header of a token only chooses among them. What the signature covers
//! is remembered by the token's digest; what depends on the time is checked on every call.

mod cache;
pub mod certificate;
mod claims;
pub mod confirmation;
mod distinguished_name;
mod error;
mod keys;
mod name;
pub mod signing;
mod spiffe;
mod token;

use std::{collections::HashMap, sync::Arc};

pub use certificate::CertificateError;
pub use confirmation::ConfirmationError;
pub use error::{Excerpt, TokenError};
pub use keys::{KeyError, KeyFault, KeySet};

use crate::{
    clock::WallInstant,
    config::{Identity, JwtIssuer},
    policy::Claims,
    session::Credential,
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

#[derive(Debug)]
struct Issuer {
    rules: JwtIssuer,
    keys: KeySet,
}

impl Authenticator {
    /// Reads the keys of every issuer.
    ///
    /// # Errors
    /// The first source of keys that cannot be read or has no key for its issuer's algorithms.
    pub fn load(identity: &Identity) -> Result<Self, KeyError> {
        let load = |rules: &JwtIssuer| {
            let issuer = Issuer {
                keys: KeySet::load(rules)?,
                rules: rules.clone(),
            };
            Ok((rules.issuer.clone(), issuer))
        };
        Ok(Self {
            issuers: identity.jwt.iter().map(load).collect::<Result<_, _>>()?,
            verified: VerifiedTokens::new(),
        })
    }

    /// Who a bearer token speaks for at `now`.
    ///
    /// # Errors
    /// Why the token is not accepted; always the client's fault.
    pub fn validate(&self, token: &str, now: WallInstant) -> Result<Identified, TokenError> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::TooLong {
                length: token.len(),
            });
        }
        let verified = self.verified.get_or_verify(token, || self.verify(token))?;
        verified.check_time(now)?;
        Ok(verified.identified.clone())
    }

    /// Whether the issuer's tokens are good for nothing unless they are bound to a certificate.
    pub fn binds_certificates(&self, issuer: &str) -> bool {
        let issuer = self.issuers.get(issuer);
        issuer.is_some_and(|issuer| issuer.rules.certificate_bound)
    }

    /// Everything about a token that does not depend on the time.
    fn verify(&self, token: &str) -> Result<VerifiedToken, TokenError> {
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
        issuer.keys.verify(&token, algorithm)?;
        VerifiedToken::new(token, &issuer.rules)
    }
}

#[cfg(test)]
mod tests;
