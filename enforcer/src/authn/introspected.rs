//! What an issuer answers when it is asked about a token (RFC 7662).

use serde::Deserialize;

use super::{
    Identified,
    claims::{Believed, Origin},
    error::{Excerpt, TokenError},
    token::{Claims, Token},
};
use crate::{
    clock::WallInstant,
    config::Introspection,
    policy,
    session::{Credential, Principal, SessionKey},
};

/// A token that its issuer calls active.
#[derive(Debug)]
pub struct Active(Believed);

/// Why an answer leads to nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Introspected {
    /// It says that the token is good for nothing here: the client's fault.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It is no answer: the issuer's fault.
    #[error("it is no answer of an introspection endpoint")]
    Senseless,
}

/// The parts that are about the token itself.
#[derive(Deserialize)]
struct State {
    active: bool,
    token_type: Option<String>,
}

/// Reads an answer about `token`, which was received at `now`.
///
/// # Errors
/// Why it leads to nobody.
pub fn read(
    answer: &[u8],
    token: &str,
    rules: &Introspection,
    now: WallInstant,
) -> Result<Active, Introspected> {
    let state: State = parse(answer)?;
    if !state.active {
        return Err(TokenError::Inactive.into());
    }
    // A refresh token is active, too, and nothing to come in with.
    if state
        .token_type
        .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(TokenError::NotBearer.into());
    }
    let mut claims: Claims = parse(answer)?;
    match &claims.iss {
        Some(issuer) if *issuer != rules.issuer => {
            return Err(TokenError::IssuerMismatch {
                issuer: Excerpt::new(issuer),
            }
            .into());
        }
        _ => claims.iss = Some(rules.issuer.clone()),
    }
    // A client that acts for itself (RFC 9068, section 2.2).
    claims.sub = claims.sub.or_else(|| claims.client_id.clone());
    let origin = Origin {
        audience: &rules.audience,
        leeway: rules.leeway,
        assumed_expiry: Some(now.saturating_add(rules.default_token_lifetime)),
        all_claims: policy::Claims::new(parse(answer)?),
        signing_key: None,
    };
    let unnamed = |principal: &Principal| SessionKey::from_opaque_token(principal, essence(token));
    Ok(Active(Believed::new(claims, origin, unnamed)?))
}

impl Active {
    /// Who the token speaks for at `now`.
    ///
    /// # Errors
    /// It has expired, or is not valid yet.
    pub fn identify(&self, now: WallInstant) -> Result<&Identified, TokenError> {
        self.0.check_time(now)?;
        Ok(&self.0.identified)
    }

    /// What the session may be opened or renewed from.
    pub fn credential(&self) -> &Credential {
        &self.0.identified.credential
    }
}

/// What tells a token from others: of a JWT all but its signature, of which whoever holds the token
/// may be able to make a second valid one, which must not become a second session.
fn essence(token: &str) -> &str {
    Token::parse(token).map_or(token, |signed| signed.message)
}

fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, Introspected> {
    serde_json::from_slice(answer).map_err(|_| Introspected::Senseless)
}
