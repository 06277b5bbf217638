//! Authentication: tokens and keys -> [`Credential`](crate::session::Credential).
// TEMPORARY stand-in, replaced at merge.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::{
    clock::WallInstant,
    config::{Identity, KeySource},
    session::{Credential, Principal, SessionKey},
};

/// Stand-in.
#[derive(Debug, thiserror::Error)]
#[error("key error")]
pub struct KeyError;

/// Stand-in.
#[derive(Debug, thiserror::Error)]
#[error("the token is not valid")]
pub struct TokenError;

impl TokenError {
    /// Stand-in.
    pub fn code(&self) -> &'static str {
        "invalid_token"
    }
}

/// Stand-in.
pub struct Authenticator {
    keys: Vec<(String, DecodingKey)>,
}

#[derive(serde::Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: i64,
    sid: Option<String>,
    jti: Option<String>,
    azp: Option<String>,
}

impl Authenticator {
    /// Stand-in.
    pub fn load(identity: &Identity) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for jwt in &identity.jwt {
            if let KeySource::SecretFile(path) = &jwt.keys {
                let secret = std::fs::read(path).map_err(|_| KeyError)?;
                keys.push((jwt.issuer.clone(), DecodingKey::from_secret(&secret)));
            }
        }
        Ok(Self { keys })
    }

    /// Stand-in.
    pub fn validate(&self, token: &str, now: WallInstant) -> Result<Arc<Credential>, TokenError> {
        for (issuer, key) in &self.keys {
            let mut validation = Validation::new(Algorithm::HS256);
            validation.validate_aud = false;
            validation.validate_exp = false;
            let Ok(data) = jsonwebtoken::decode::<Claims>(token, key, &validation) else {
                continue;
            };
            let claims = data.claims;
            if &claims.iss != issuer || WallInstant::from_unix_seconds(claims.exp) <= now {
                return Err(TokenError);
            }
            let principal = Principal {
                issuer: claims.iss,
                subject: claims.sub,
            };
            let key = match (&claims.sid, &claims.jti) {
                (Some(sid), _) => SessionKey::from_sid(&principal, sid),
                (None, Some(jti)) => SessionKey::from_token_id(&principal, jti),
                (None, None) => SessionKey::from_token(token.as_bytes()),
            };
            return Ok(Arc::new(Credential {
                principal,
                key,
                names_session: claims.sid.is_some(),
                authorized_party: claims.azp,
                authenticated_at: None,
                expires_at: WallInstant::from_unix_seconds(claims.exp),
            }));
        }
        Err(TokenError)
    }
}
