//! The gateway's own key, with which it tells upstreams who asks.

use std::{io, path::Path};

use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, KeyOperations, PublicKeyUse, ThumbprintHash},
};
use serde::Serialize;

use super::keys::{KeyFault, public_key};
use crate::config::reading_help;

/// A private key, the algorithm that goes with it, and its public half.
pub struct SigningKey {
    header: Header,
    key: EncodingKey,
    public: Jwk,
}

/// Why a file holds no key that can sign. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// No private key that can sign.
    #[error("holds no PKCS#8 private key that can sign")]
    NotASigningKey,
    /// No public key, where one that was in use before belongs.
    #[error(transparent)]
    PublicKey(#[from] KeyFault),
}

impl SigningKeyFault {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Unreadable(error) => reading_help(error).to_owned(),
            Self::NotASigningKey => "write a P-256, P-384, Ed25519 or RSA key in PKCS#8, as \
                `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes it"
                .to_owned(),
            Self::PublicKey(_) => {
                "put the public half of a former key there, as `openssl pkey -pubout` writes it"
                    .to_owned()
            }
        }
    }
}

type ReadPem = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;

/// What each algorithm takes, tried in this order.
const ALGORITHMS: [(Algorithm, ReadPem); 4] = [
    (Algorithm::ES256, EncodingKey::from_ec_pem),
    (Algorithm::ES384, EncodingKey::from_ec_pem),
    (Algorithm::EdDSA, EncodingKey::from_ed_pem),
    (Algorithm::RS256, EncodingKey::from_rsa_pem),
];

impl SigningKey {
    /// Reads a PEM private key; its type decides the algorithm.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, SigningKeyFault> {
        let pem = std::fs::read(path).map_err(SigningKeyFault::Unreadable)?;
        ALGORITHMS
            .iter()
            .find_map(|(algorithm, read)| Self::new(*algorithm, read(&pem).ok()?))
            .ok_or(SigningKeyFault::NotASigningKey)
    }

    /// `None` if the key does not work with the algorithm.
    fn new(algorithm: Algorithm, key: EncodingKey) -> Option<Self> {
        let public = published(Jwk::from_encoding_key(&key, algorithm).ok()?)?;
        let mut header = Header::new(algorithm);
        header.kid.clone_from(&public.common.key_id);
        let signing = Self {
            header,
            key,
            public,
        };
        signing.sign(&()).ok()?;
        Some(signing)
    }

    /// A signed token (RFC 7519) with these claims.
    ///
    /// # Errors
    /// If the library refuses to sign.
    pub fn sign(&self, claims: &impl Serialize) -> jsonwebtoken::errors::Result<String> {
        jsonwebtoken::encode(&self.header, claims, &self.key)
    }

    /// The public half, with its thumbprint as `kid`.
    pub fn public(&self) -> &Jwk {
        &self.public
    }
}

/// A key that was in use before: tokens that it signed are still about.
///
/// # Errors
/// What is wrong with the file.
pub fn former_key(path: &Path) -> Result<Jwk, SigningKeyFault> {
    let pem = std::fs::read(path).map_err(SigningKeyFault::Unreadable)?;
    published(public_key(&pem)?).ok_or(SigningKeyFault::PublicKey(KeyFault::NotAPublicKey))
}

/// A public key as it is published: what it is for, and its thumbprint (RFC 7638) as `kid`.
fn published(mut key: Jwk) -> Option<Jwk> {
    key.common.key_id = Some(key.thumbprint(ThumbprintHash::SHA256).ok()?);
    key.common.public_key_use = Some(PublicKeyUse::Signature);
    key.common.key_operations = Some(vec![KeyOperations::Verify]);
    Some(key)
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
    use serde_json::{Value, json};

    use super::*;

    fn written(pem: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        file
    }

    #[test]
    fn a_key_signs_with_its_algorithm_and_its_public_half_verifies() {
        for (kind, algorithm) in [
            (&PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
        ] {
            let pair = KeyPair::generate_for(kind).unwrap();
            let file = written(&pair.serialize_pem());
            let key = SigningKey::load(file.path()).unwrap();
            let token = key.sign(&json!({"sub": "alice", "exp": 1})).unwrap();
            let header = jsonwebtoken::decode_header(&token).unwrap();
            assert_eq!(header.alg, algorithm);
            assert_eq!(header.kid, key.public().common.key_id);
            let mut validation = Validation::new(algorithm);
            validation.validate_exp = false;
            let verifier = DecodingKey::from_jwk(key.public()).unwrap();
            let decoded = jsonwebtoken::decode::<Value>(&token, &verifier, &validation).unwrap();
            assert_eq!(decoded.claims["sub"], "alice");

            let former = written(&pair.public_key_pem());
            let former = former_key(former.path()).unwrap();
            assert_eq!(former.common.key_id, key.public().common.key_id);
        }
    }

    #[test]
    fn only_public_parameters_are_published() {
        let pair = KeyPair::generate().unwrap();
        let file = written(&pair.serialize_pem());
        let json = serde_json::to_value(SigningKey::load(file.path()).unwrap().public()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        for name in ["kty", "crv", "x", "y", "kid", "use"] {
            assert!(names.iter().any(|it| it == name), "{names:?}");
        }
        assert!(json.get("d").is_none());
    }

    #[test]
    fn what_cannot_sign_is_refused() {
        let pair = KeyPair::generate().unwrap();
        for bad in ["", "no key", &pair.public_key_pem()] {
            let fault = SigningKey::load(written(bad).path()).unwrap_err();
            assert!(matches!(fault, SigningKeyFault::NotASigningKey), "{fault}");
        }
        let fault = former_key(written(&pair.serialize_pem()).path()).unwrap_err();
        assert!(matches!(
            fault,
            SigningKeyFault::PublicKey(KeyFault::PrivateKey)
        ));
    }
}
