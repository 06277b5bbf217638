//! The keys of an issuer, and which of them may have made a signature.

mod fitness;
mod life;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse, ThumbprintHash},
};
use serde::Deserialize;

use super::{
    error::{Excerpt, TokenError},
    token::Token,
};
use crate::{
    clock::BootInstant,
    config::{JwtIssuer, KeySource, reading_help},
    session::KeyThumbprint,
};
use fitness::is_fit;
pub(super) use life::KeyLife;

/// Shortest shared secret, in bytes: what HS256 needs (RFC 7518, section 3.2).
pub(crate) const SHORTEST_SECRET: usize = 32;

/// Most keys that an issuer may publish: a token without a key id is tried with each.
const MOST_KEYS: usize = 64;

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// One of them.
#[derive(Debug)]
pub(super) struct Key {
    /// `kid`.
    id: Option<String>,
    /// What the issuer may sign with it.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    /// Of a shared secret there is none: its digest would be something to guess at.
    pub(super) thumbprint: Option<KeyThumbprint>,
    /// As long as the key may be used.
    pub(super) life: Arc<KeyLife>,
}

/// A source of keys that is of no use. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("`{}` {fault}", .path.display())]
pub struct KeyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: KeyFault,
}

/// What is wrong with a source of keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// Not a JWK set.
    #[error("is not a JWK set: {0}")]
    NotAKeySet(serde_json::Error),
    /// Not a PEM public key or certificate.
    #[error("holds no PEM public key or certificate that can be read")]
    NotAPublicKey,
    /// A private key, which has no business here.
    #[error("holds a private key where a public one belongs")]
    PrivateKey,
    /// No key is fit for an algorithm of the issuer.
    #[error("holds no key for {}", names(.0))]
    NoKeyFor(Vec<Algorithm>),
    /// More keys than are tried.
    #[error("holds {0} keys; at most {MOST_KEYS} are taken")]
    TooMany(usize),
    /// The shared secret is too short.
    #[error("holds a secret of {0} bytes, which can be guessed")]
    SecretTooShort(usize),
}

impl KeyError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match &self.fault {
            KeyFault::Unreadable(error) => reading_help(error).to_owned(),
            KeyFault::NotAKeySet(_) => {
                r#"save the issuer's key set there: {"keys": [...]} (RFC 7517)"#.to_owned()
            }
            KeyFault::NotAPublicKey => {
                "put a public key or a certificate there, `-----BEGIN PUBLIC KEY-----` .."
                    .to_owned()
            }
            KeyFault::PrivateKey => {
                "put the public half there, and keep the private key with the issuer".to_owned()
            }
            KeyFault::NoKeyFor(_) => {
                "correct `algorithms`, or put a key of the fitting type there: RSA of 2048 to 8192 \
                 bits, P-256, P-384 or Ed25519"
                    .to_owned()
            }
            KeyFault::TooMany(_) => "remove the keys that nothing is signed with".to_owned(),
            KeyFault::SecretTooShort(_) => {
                format!("share a random secret of at least {SHORTEST_SECRET} bytes with the issuer")
            }
        }
    }
}

fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|a| format!("{a:?}")).collect();
    names.join(", ")
}

impl KeySet {
    /// Reads the keys of an issuer that are in a file; `None` if it publishes them.
    ///
    /// Keys of a JWK set that are unknown, unfit or meant for something else are passed over
    /// (RFC 7517, section 5), as long as one is left.
    ///
    /// # Errors
    /// The file, and why the issuer's tokens could not be verified with it.
    pub fn load(issuer: &JwtIssuer) -> Result<Option<Self>, KeyError> {
        let Some(path) = issuer.keys.path() else {
            return Ok(None);
        };
        let content = read(path);
        let set = content.and_then(|content| Self::parse(issuer, &content));
        set.map(Some).map_err(|fault| KeyError {
            path: path.to_owned(),
            fault,
        })
    }

    /// Reads what an issuer publishes: a JWK set, as [`KeySet::load`] takes it. One that lists no
    /// key at all is how an issuer withdraws all that it had.
    ///
    /// # Errors
    /// Why the issuer's tokens could not be verified with it.
    pub fn parse(issuer: &JwtIssuer, content: &[u8]) -> Result<Self, KeyFault> {
        let allowed = &issuer.algorithms;
        let keys: Vec<_> = match &issuer.keys {
            KeySource::SecretFile(_) => vec![secret(content, allowed)?],
            KeySource::PublicKeyFile(_) => Key::from_jwk(&public_key(content)?, allowed)
                .into_iter()
                .collect(),
            KeySource::JwksFile(_) | KeySource::Published(_) => {
                let listed = listed(content)?;
                if listed.is_empty() && matches!(issuer.keys, KeySource::Published(_)) {
                    return Ok(Self(Vec::new()));
                }
                listed
                    .into_iter()
                    .filter_map(|key| serde_json::from_value(key).ok())
                    .filter_map(|jwk| Key::from_jwk(&jwk, allowed))
                    .collect()
            }
        };
        match keys.len() {
            0 => Err(KeyFault::NoKeyFor(allowed.clone())),
            1..=MOST_KEYS => Ok(Self(keys)),
            many => Err(KeyFault::TooMany(many)),
        }
    }

    /// Whether its issuer has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the keys are known by.
    pub fn thumbprints(&self) -> Vec<KeyThumbprint> {
        self.0.iter().filter_map(|key| key.thumbprint).collect()
    }

    /// The keys may be used until then.
    pub(super) fn live_until(&self, end: BootInstant) {
        for key in &self.0 {
            key.life.end_at(end);
        }
    }

    /// Takes the place of `old`: keys of it that are here as well live on as these, and the others
    /// are dead.
    pub(super) fn succeed(&mut self, old: &Self) {
        for old in &old.0 {
            let heir = self
                .0
                .iter_mut()
                .find(|key| key.thumbprint.is_some() && key.thumbprint == old.thumbprint);
            match heir {
                Some(heir) => heir.life = Arc::clone(&old.life),
                None => old.life.end(),
            }
        }
    }

    /// The key id of a token, if it chooses among these keys.
    fn named<'a>(&self, token: &'a Token<'_>) -> Option<&'a str> {
        let named = token.header.kid.as_deref();
        named.filter(|_| self.0.iter().any(|key| key.id.is_some()))
    }

    /// Whether keys that the issuer published since could verify a token that these did not.
    pub(super) fn may_be_outdated(&self, token: &Token<'_>, error: &TokenError) -> bool {
        match error {
            TokenError::KeyUnknown { .. } => true,
            TokenError::SignatureInvalid => self.named(token).is_none(),
            _ => false,
        }
    }

    /// The key that made the token's signature.
    pub(super) fn verify(
        &self,
        token: &Token<'_>,
        algorithm: Algorithm,
    ) -> Result<&Key, TokenError> {
        let named = self.named(token);
        let mut candidates = self
            .0
            .iter()
            .filter(|key| named.is_none() || key.id.as_deref() == named)
            .filter(|key| key.algorithms.contains(&algorithm))
            .peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::KeyUnknown {
                key: token.header.kid.as_deref().map(Excerpt::new),
            });
        }
        candidates
            .find(|key| key.signed(token, algorithm))
            .ok_or(TokenError::SignatureInvalid)
    }
}

impl Key {
    /// The key, if it is fit for one of the `allowed` algorithms.
    fn from_jwk(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Self> {
        let verifies = match (&jwk.common.public_key_use, &jwk.common.key_operations) {
            (Some(meant_for), _) => *meant_for == PublicKeyUse::Signature,
            (None, Some(operations)) => operations.contains(&KeyOperations::Verify),
            (None, None) => true,
        };
        let fits = |algorithm: &Algorithm| {
            let declared = jwk.common.key_algorithm;
            declared.is_none_or(|declared| declared == KeyAlgorithm::from(*algorithm))
                && is_fit(&jwk.algorithm, *algorithm)
        };
        let algorithms: Vec<_> = allowed.iter().copied().filter(fits).collect();
        if !verifies || algorithms.is_empty() {
            return None;
        }
        Some(Self {
            id: jwk.common.key_id.clone(),
            algorithms,
            key: DecodingKey::from_jwk(jwk).ok()?,
            thumbprint: Some(thumbprint(jwk)?),
            life: Arc::default(),
        })
    }

    fn signed(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        jsonwebtoken::crypto::verify(
            token.signature,
            token.message.as_bytes(),
            &self.key,
            algorithm,
        )
        .unwrap_or(false)
    }
}

/// RFC 7638.
fn thumbprint(jwk: &Jwk) -> Option<KeyThumbprint> {
    let text = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(KeyThumbprint::from_bytes(bytes.try_into().ok()?))
}

fn read(path: &Path) -> Result<Vec<u8>, KeyFault> {
    std::fs::read(path).map_err(KeyFault::Unreadable)
}

/// What a JWK set lists, whether it can be read or not.
fn listed(content: &[u8]) -> Result<Vec<serde_json::Value>, KeyFault> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(content).map_err(KeyFault::NotAKeySet)?;
    Ok(set.keys)
}

/// The one key of a PEM file.
pub(super) fn public_key(pem: &[u8]) -> Result<Jwk, KeyFault> {
    const PRIVATE: &[u8] = b"PRIVATE KEY-----";
    if pem.windows(PRIVATE.len()).any(|window| window == PRIVATE) {
        return Err(KeyFault::PrivateKey);
    }
    DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .and_then(|key| Jwk::from_decoding_key(&key, None))
        .map_err(|_| KeyFault::NotAPublicKey)
}

/// The shared secret in a file: its bytes without a final line break.
///
/// # Errors
/// [`KeyFault::SecretTooShort`].
pub(crate) fn shared_secret(content: &[u8]) -> Result<&[u8], KeyFault> {
    let secret = content.strip_suffix(b"\n").unwrap_or(content);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < SHORTEST_SECRET {
        return Err(KeyFault::SecretTooShort(secret.len()));
    }
    Ok(secret)
}

fn secret(content: &[u8], allowed: &[Algorithm]) -> Result<Key, KeyFault> {
    Ok(Key {
        id: None,
        algorithms: allowed.to_vec(),
        key: DecodingKey::from_secret(shared_secret(content)?),
        thumbprint: None,
        life: Arc::default(),
    })
}
