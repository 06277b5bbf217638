//! Assertions: what an upstream is told about a request's session, signed, so that it need not
//! trust everybody who can reach it.
//!
//! An assertion is a short-lived token (RFC 7519) for one upstream's audience. It says who asks
//! and within which session, and is never valid past the session's deadline. The keys that verify
//! it are published.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use jsonwebtoken::jwk::JwkSet;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde_json::Value;

use crate::{
    authn::signing::{SigningKey, SigningKeyFault, former_key},
    clock::{Now, WallInstant},
    config,
    gateway::stages::Bound,
    policy::Claims,
    session::SessionId,
};

/// Assertions that are kept to be used again: about half a kilobyte each.
const KEPT: usize = 16_384;
/// The claims of the client's token that upstreams are told.
const PASSED_ON: [&str; 3] = ["acr", "amr", "auth_time"];

/// Signs assertions, and uses each for many requests.
#[derive(Debug)]
pub(crate) struct Assertions {
    issuer: String,
    ttl: Duration,
    key: SigningKey,
    /// The public keys, as they are published (RFC 7517).
    published: String,
    kept: Cache<(SessionId, Arc<str>), Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    field: HeaderValue,
    /// What it was made from.
    claims: Arc<Claims>,
    renew_at: WallInstant,
}

#[derive(Debug, Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    /// The issuer that `sub` is a subject of.
    sub_iss: &'a str,
    /// The session, as in the audit log.
    sid: SessionId,
    iat: i64,
    exp: i64,
    #[serde(flatten)]
    passed_on: serde_json::Map<String, Value>,
}

impl Assertions {
    /// Reads the keys.
    pub(crate) fn load(config: &config::Assertion) -> Result<Self, SigningKeyFault> {
        let key = SigningKey::load(&config.private_key)?;
        let mut keys = vec![key.public().clone()];
        for path in &config.former_keys {
            keys.push(former_key(path)?);
        }
        Ok(Self {
            issuer: config.issuer.clone(),
            ttl: config.ttl,
            key,
            published: format!("{}\n", serde_json::json!(JwkSet { keys })),
            kept: Cache::new(KEPT),
        })
    }

    /// The key set, as JSON.
    pub(crate) fn published(&self) -> &str {
        &self.published
    }

    /// The field of a request to an upstream of this audience. `None` if the library does not
    /// sign.
    pub(crate) fn field(
        &self,
        audience: &Arc<str>,
        bound: &Bound,
        now: Now,
    ) -> Option<HeaderValue> {
        let key = (bound.session_id(), Arc::clone(audience));
        if let Some(kept) = self.kept.get(&key)
            && now.wall < kept.renew_at
            && Arc::ptr_eq(&kept.claims, bound.claims())
        {
            return Some(kept.field);
        }
        let deadline = now.wall_at(bound.session().state().view.deadline);
        let expires_at = now.wall.saturating_add(self.ttl).min(deadline);
        let exp = expires_at.as_unix_seconds();
        let principal = bound.principal();
        let token = self.key.sign(&Assertion {
            iss: &self.issuer,
            aud: audience,
            sub: &principal.subject,
            sub_iss: &principal.issuer,
            sid: bound.session_id(),
            iat: now.wall.as_unix_seconds(),
            exp,
            passed_on: passed_on(bound.claims()),
        });
        let field = HeaderValue::try_from(token.ok()?).ok()?;
        let left = expires_at.saturating_duration_since(now.wall);
        let kept = Kept {
            field: field.clone(),
            claims: Arc::clone(bound.claims()),
            renew_at: now.wall.saturating_add(left / 2),
        };
        self.kept.insert(key, kept);
        Some(field)
    }
}

fn passed_on(claims: &Claims) -> serde_json::Map<String, Value> {
    let claims = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), claims.get(name)?.clone())));
    claims.collect()
}
