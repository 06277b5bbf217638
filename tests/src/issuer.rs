//! Issuers of tokens, honest and otherwise.

use anyhow::{Context as _, Result};
use enforcer::clock::WallInstant;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header,
    jwk::{Jwk, JwkSet},
};
use rcgen::{KeyPair, RsaKeySize};
use serde_json::{Map, Value, json};

/// `iss` of every honest token.
pub const ISSUER: &str = "https://issuer.test";
/// `aud` of every honest token.
pub const AUDIENCE: &str = "bed";

/// A token issuer with one key.
#[derive(Clone, Debug)]
pub struct Issuer {
    algorithm: Algorithm,
    signing_key: EncodingKey,
    public_key_pem: Option<String>,
}

impl Issuer {
    /// One that signs with this algorithm.
    pub fn new(algorithm: Algorithm) -> Result<Self> {
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac => return Ok(Self::with_secret(algorithm, SECRET)),
            AlgorithmFamily::Rsa => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            }
            AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => {
                KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
            }
            AlgorithmFamily::Ec => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            AlgorithmFamily::Ed => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        let key = key.context("make an issuer's key")?;
        let pem = key.serialize_pem();
        let signing_key = match algorithm.family() {
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        Ok(Self {
            algorithm,
            signing_key: signing_key.context("load an issuer's key")?,
            public_key_pem: Some(key.public_key_pem()),
        })
    }

    /// One that signs with a shared secret, whatever the secret is.
    pub fn with_secret(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self {
            algorithm,
            signing_key: EncodingKey::from_secret(secret),
            public_key_pem: None,
        }
    }

    /// The algorithm's name.
    pub fn algorithm(&self) -> String {
        format!("{:?}", self.algorithm)
    }

    /// The public key, PEM; an error for a shared secret.
    pub fn public_key_pem(&self) -> Result<&str> {
        self.public_key_pem
            .as_deref()
            .context("a shared secret has no public key")
    }

    /// The key set, as an issuer publishes it.
    pub fn jwks(&self) -> Result<String> {
        let pem = self.public_key_pem()?.as_bytes();
        let key = match self.algorithm.family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            _ => DecodingKey::from_ed_pem(pem),
        };
        let key = key.context("load a public key")?;
        let mut jwk = Jwk::from_decoding_key(&key, Some(self.algorithm)).context("make a JWK")?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        serde_json::to_string_pretty(&JwkSet { keys: vec![jwk] }).context("write a JWK set")
    }

    /// A signed token.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let mut header = Header::new(self.algorithm);
        header.kid = self.public_key_pem.is_some().then(|| KEY_ID.to_owned());
        self.sign_with_header(&header, claims)
    }

    /// A token with a header of the caller's.
    pub fn sign_with_header(&self, header: &Header, claims: &Claims) -> Result<String> {
        jsonwebtoken::encode(header, &claims.0, &self.signing_key).context("sign a token")
    }
}

/// What a shared-secret issuer shares.
pub const SECRET: &[u8] =
    b"a secret of the bed's, long enough for every algorithm there is: 64 bytes";

const KEY_ID: &str = "bed-1";

/// Claims of a token.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// What an honest token says of `subject` until `expires_at`.
    pub fn new(subject: &str, expires_at: WallInstant) -> Self {
        Self(Map::new())
            .with("iss", ISSUER)
            .with("aud", AUDIENCE)
            .with("sub", subject)
            .with("exp", expires_at.as_unix_seconds())
    }

    /// The same with another claim.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The same without a claim.
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// An unsigned token (`alg` is `none`).
    pub fn unsigned(&self) -> String {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(&json!({"alg": "none", "typ": "JWT"}));
        format!("{header}.{}.", part(&Value::Object(self.0.clone())))
    }
}
