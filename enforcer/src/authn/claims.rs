//! From claims that are believed to a credential.

use std::{sync::Arc, time::Duration};

use super::{
    Identified,
    error::TokenError,
    keys::{Key, KeyLife},
    name,
    token::{Claims, NumericDate, Token},
};
use crate::{
    clock::{BootInstant, WallInstant},
    config::JwtIssuer,
    policy,
    session::{Credential, KeyThumbprint, Principal, SessionKey},
};

/// Claims that are believed and good. Only the time is open.
#[derive(Debug)]
pub(super) struct Believed {
    pub(super) identified: Identified,
    not_before: Option<WallInstant>,
    issued_at: Option<WallInstant>,
    leeway: Duration,
}

/// What else a credential is made from.
pub(super) struct Origin<'a> {
    /// One of these must be in `aud`; empty: it is not looked at.
    pub(super) audience: &'a [String],
    pub(super) leeway: Duration,
    /// When it expires if it does not say so itself.
    pub(super) assumed_expiry: Option<WallInstant>,
    /// Those that are read here and all others.
    pub(super) all_claims: policy::Claims,
    pub(super) signing_key: Option<KeyThumbprint>,
}

impl Believed {
    /// Reads claims. `unnamed` makes the session's key where they name neither session nor token.
    pub(super) fn new(
        claims: Claims,
        origin: Origin<'_>,
        unnamed: impl FnOnce(&Principal) -> SessionKey,
    ) -> Result<Self, TokenError> {
        let Claims {
            iss,
            sub,
            aud,
            exp,
            nbf,
            iat,
            auth_time,
            sid,
            jti,
            azp,
            client_id,
        } = claims;
        if !origin.audience.is_empty() && !required("aud", aud)?.holds_any(origin.audience) {
            return Err(TokenError::AudienceMismatch);
        }
        let principal = Principal {
            issuer: required("iss", iss)?,
            subject: usable("sub", required("sub", sub)?)?,
        };
        let stated = exp.map(|NumericDate(at)| at);
        let expires_at = required("exp", stated.or(origin.assumed_expiry))?;
        let sid = sid.filter(|sid| !sid.is_empty());
        let jti = jti.filter(|jti| !jti.is_empty());
        let key = match (&sid, &jti) {
            (Some(sid), _) => SessionKey::from_sid(&principal, sid),
            (None, Some(jti)) => SessionKey::from_token_id(&principal, jti),
            (None, None) => unnamed(&principal),
        };
        let authorized_party = match (azp, client_id) {
            (Some(azp), _) => Some(usable("azp", azp)?),
            (None, Some(client_id)) => Some(usable("client_id", client_id)?),
            (None, None) => None,
        };
        Ok(Self {
            identified: Identified {
                credential: Arc::new(Credential {
                    principal,
                    key,
                    names_session: sid.is_some(),
                    authorized_party,
                    authenticated_at: auth_time.map(|NumericDate(instant)| instant),
                    expires_at,
                    assumed_expiry: stated.is_none(),
                    signing_key: origin.signing_key,
                    certificate: None,
                }),
                claims: Arc::new(origin.all_claims),
            },
            not_before: nbf.map(|NumericDate(instant)| instant),
            issued_at: iat.map(|NumericDate(instant)| instant),
            leeway: origin.leeway,
        })
    }

    /// Whether they are valid at `now`. `exp` is a deadline: it has no leeway.
    pub(super) fn check_time(&self, now: WallInstant) -> Result<(), TokenError> {
        let credential = &self.identified.credential;
        let at = credential.expires_at;
        if now >= at {
            return Err(TokenError::Expired { at });
        }
        let latest = now.saturating_add(self.leeway);
        for (claim, instant) in [
            ("nbf", self.not_before),
            ("iat", self.issued_at),
            ("auth_time", credential.authenticated_at),
        ] {
            if let Some(at) = instant.filter(|at| *at > latest) {
                return Err(TokenError::NotYetValid {
                    claim,
                    at,
                    principal: Box::new(credential.principal.clone()),
                });
            }
        }
        Ok(())
    }
}

/// A token with a good signature and good claims.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    pub(super) believed: Believed,
    /// Of the key that made the signature.
    key_life: Arc<KeyLife>,
}

impl VerifiedToken {
    /// Reads the claims of a token whose signature this key made.
    pub(super) fn new(token: Token<'_>, key: &Key, rules: &JwtIssuer) -> Result<Self, TokenError> {
        let origin = Origin {
            audience: &rules.audience,
            leeway: rules.leeway,
            assumed_expiry: None,
            all_claims: token.all_claims,
            signing_key: key.thumbprint,
        };
        // Without the signature: whoever holds an ECDSA token can make a second valid signature of
        // it, which must not become a second session.
        let unnamed = |_: &Principal| SessionKey::from_token(token.message.as_bytes());
        Ok(Self {
            believed: Believed::new(token.claims, origin, unnamed)?,
            key_life: Arc::clone(&key.life),
        })
    }

    /// Whether the key that made the signature may still be used.
    pub(super) fn key_lasts(&self, now: BootInstant) -> bool {
        self.key_life.lasts(now)
    }
}

fn required<T>(claim: &'static str, value: Option<T>) -> Result<T, TokenError> {
    value.ok_or(TokenError::ClaimMissing { claim })
}

/// A name that goes to logs, messages and headers.
fn usable(claim: &'static str, value: String) -> Result<String, TokenError> {
    match name::fault(&value) {
        Some(why) => Err(TokenError::ClaimInvalid { claim, why }),
        None => Ok(value),
    }
}
