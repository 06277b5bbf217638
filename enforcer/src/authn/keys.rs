//! The keys of an issuer, and which of them may have made a signature.

use std::{
    io,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use super::{
    error::{Excerpt, TokenError},
    token::Token,
};
use crate::config::{JwtIssuer, KeySource, reading_help};

/// Shortest shared secret, in bytes: what HS256 needs (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;

/// Sizes of an RSA modulus that signatures are verified with, in bits (RFC 7518, section 3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    /// `kid`.
    id: Option<String>,
    /// What the issuer may sign with it.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
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
    /// Reads the keys of an issuer.
    ///
    /// Keys of a JWK set that are unknown, unfit or meant for something else are passed over
    /// (RFC 7517, section 5), as long as one is left.
    ///
    /// # Errors
    /// The file, and why the issuer's tokens could not be verified with it.
    pub fn load(issuer: &JwtIssuer) -> Result<Self, KeyError> {
        let path = issuer.keys.path();
        read(path)
            .and_then(|content| Self::parse(issuer, &content))
            .map_err(|fault| KeyError {
                path: path.to_owned(),
                fault,
            })
    }

    fn parse(issuer: &JwtIssuer, content: &[u8]) -> Result<Self, KeyFault> {
        let allowed = &issuer.algorithms;
        let keys = match &issuer.keys {
            KeySource::SecretFile(_) => vec![secret(content, allowed)?],
            KeySource::PublicKeyFile(_) => Key::from_jwk(&public_key(content)?, allowed)
                .into_iter()
                .collect(),
            KeySource::JwksFile(_) => jwks(content)?
                .iter()
                .filter_map(|jwk| Key::from_jwk(jwk, allowed))
                .collect(),
        };
        if keys.is_empty() {
            return Err(KeyFault::NoKeyFor(allowed.clone()));
        }
        Ok(Self(keys))
    }

    /// Whether one of the keys made the token's signature.
    pub(super) fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> Result<(), TokenError> {
        let named = token.header.kid.as_deref();
        let named = named.filter(|_| self.0.iter().any(|key| key.id.is_some()));
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
            .any(|key| key.signed(token, algorithm))
            .then_some(())
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

/// Whether it is a sound public key of the type that the algorithm takes.
fn is_fit(key: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    match key {
        AlgorithmParameters::RSA(rsa) => {
            algorithm.family() == AlgorithmFamily::Rsa
                && decode(&rsa.n)
                    .is_some_and(|n| n.first() != Some(&0) && RSA_BITS.contains(&bits(&n)))
                && decode(&rsa.e).is_some_and(|e| e.first() != Some(&0) && bits(&e) > 1)
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let verification = match (&ec.curve, algorithm) {
                (EllipticCurve::P256, Algorithm::ES256) => &signature::ECDSA_P256_SHA256_FIXED,
                (EllipticCurve::P384, Algorithm::ES384) => &signature::ECDSA_P384_SHA384_FIXED,
                _ => return false,
            };
            let point = |(x, y): (Vec<u8>, Vec<u8>)| [vec![4], x, y].concat();
            let point = decode(&ec.x).zip(decode(&ec.y)).map(point);
            point.is_some_and(|point| is_sound(verification, &point))
        }
        AlgorithmParameters::OctetKeyPair(okp) => {
            okp.curve == EllipticCurve::Ed25519
                && algorithm == Algorithm::EdDSA
                && decode(&okp.x).is_some_and(|x| is_sound(&signature::ED25519, &x))
        }
        // A shared secret in a set of public keys is a slip, and any other type unknown.
        _ => false,
    }
}

fn is_sound(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, key).is_ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Bits of a big-endian number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros());
    number.len() * 8 - leading as usize
}

fn read(path: &Path) -> Result<Vec<u8>, KeyFault> {
    std::fs::read(path).map_err(KeyFault::Unreadable)
}

/// The keys of a JWK set that can be read.
fn jwks(content: &[u8]) -> Result<Vec<Jwk>, KeyFault> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(content).map_err(KeyFault::NotAKeySet)?;
    let keys = set.keys.into_iter();
    Ok(keys
        .filter_map(|key| serde_json::from_value(key).ok())
        .collect())
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

/// The bytes of a file without a final line break.
fn secret(content: &[u8], allowed: &[Algorithm]) -> Result<Key, KeyFault> {
    let secret = content.strip_suffix(b"\n").unwrap_or(content);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < SHORTEST_SECRET {
        return Err(KeyFault::SecretTooShort(secret.len()));
    }
    Ok(Key {
        id: None,
        algorithms: allowed.to_vec(),
        key: DecodingKey::from_secret(secret),
    })
}
