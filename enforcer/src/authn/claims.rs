//! From claims that are believed to a credential.

use std::{sync::Arc, time::Duration};

use super::{
    Identified,
    error::TokenError,
    name,
    token::{Claims, NumericDate, Token},
};
use crate::{
    clock::WallInstant,
    config::JwtIssuer,
    session::{Credential, Principal, SessionKey},
};

/// A token with a good signature and good claims. Only the time is open.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    pub(super) identified: Identified,
    not_before: Option<WallInstant>,
    issued_at: Option<WallInstant>,
    leeway: Duration,
}

impl VerifiedToken {
    /// Reads the claims of a token whose signature is good.
    pub(super) fn new(token: Token<'_>, rules: &JwtIssuer) -> Result<Self, TokenError> {
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
        } = token.claims;
        let aud = required("aud", aud)?;
        if !aud.holds_any(&rules.audience) {
            return Err(TokenError::AudienceMismatch);
        }
        let principal = Principal {
            issuer: required("iss", iss)?,
            subject: usable("sub", required("sub", sub)?)?,
        };
        let NumericDate(expires_at) = required("exp", exp)?;
        let sid = sid.filter(|sid| !sid.is_empty());
        let jti = jti.filter(|jti| !jti.is_empty());
        let key = match (&sid, &jti) {
            (Some(sid), _) => SessionKey::from_sid(&principal, sid),
            (None, Some(jti)) => SessionKey::from_token_id(&principal, jti),
            // Without the signature: whoever holds an ECDSA token can make a second valid
            // signature of it, which must not become a second session.
            (None, None) => SessionKey::from_token(token.message.as_bytes()),
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
                    signing_key: None,
                    certificate: None,
                }),
                claims: Arc::new(token.all_claims),
            },
            not_before: nbf.map(|NumericDate(instant)| instant),
            issued_at: iat.map(|NumericDate(instant)| instant),
            leeway: rules.leeway,
        })
    }

    /// Whether the token is valid at `now`. `exp` is a deadline: it has no leeway.
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
                return Err(TokenError::NotYetValid { claim, at });
            }
        }
        Ok(())
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
