//! Who vouches for clients: issuers of tokens, where their keys are, and who is asked about opaque
//! ones.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;

use super::Outbound;

/// Who may come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// `[[identity.jwt]]`
    pub jwt: Vec<JwtIssuer>,
    /// `[[identity.introspection]]`
    pub introspection: Vec<Introspection>,
}

impl Identity {
    /// The names of all issuers of tokens.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        let jwt = self.jwt.iter().map(|issuer| issuer.issuer.as_str());
        let asked = self.introspection.iter().map(|it| it.issuer.as_str());
        jwt.chain(asked)
    }
}

/// A token issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtIssuer {
    /// Exact `iss`.
    pub issuer: String,
    /// One of these must be in `aud`; one string or a list in the file.
    pub audience: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// `certificate_bound`: only tokens that are bound to the client's certificate are accepted
    /// (RFC 8705). Bound ones are held to theirs in any case.
    pub certificate_bound: bool,
    /// The algorithms it may sign with.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Tolerance for `nbf` and `iat`; default 30 s. `exp` is a deadline and has none.
    pub leeway: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// A JWK set (RFC 7517).
    JwksFile(PathBuf),
    /// One PEM public key or certificate.
    PublicKeyFile(PathBuf),
    /// A shared secret: the file's bytes without a final line break, at least 32 of them.
    SecretFile(PathBuf),
    /// What the issuer publishes.
    Published(Box<PublishedKeys>),
}

impl KeySource {
    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::JwksFile(path) | Self::PublicKeyFile(path) | Self::SecretFile(path) => Some(path),
            Self::Published(_) => None,
        }
    }

    /// The key that names the source in the configuration.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::JwksFile(_) => "jwks_file",
            Self::PublicKeyFile(_) => "public_key_file",
            Self::SecretFile(_) => "secret_file",
            Self::Published(published) => match published.location {
                KeyLocation::Jwks(_) => "jwks_url",
                KeyLocation::Discovery(_) => "discovery",
            },
        }
    }
}

/// Keys that are fetched from the issuer, again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedKeys {
    /// Where they are.
    pub location: KeyLocation,
    /// Longest time until they are fetched again; a shorter `max-age` of the answer shortens it.
    /// Default 5 min.
    pub refresh_interval: Duration,
    /// How long they are used beyond that while the issuer cannot be asked; default 1 h.
    pub stale_ttl: Duration,
    /// How they are asked for.
    pub outbound: Outbound,
}

/// Where an issuer publishes its keys.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyLocation {
    /// `jwks_url`: a JWK set.
    Jwks(Uri),
    /// `discovery`: the issuer's configuration document (OpenID Connect Discovery), which names the
    /// JWK set.
    Discovery(Uri),
}

/// An issuer whose tokens are asked about (RFC 7662).
#[derive(Clone, Debug, PartialEq)]
pub struct Introspection {
    /// The issuer of its principals.
    pub issuer: String,
    /// Where its tokens are asked about.
    pub endpoint: Uri,
    /// One of these must be in `aud`; empty: `aud` is not looked at.
    pub audience: Vec<String>,
    /// What its opaque tokens start with; empty: anything.
    pub token_prefix: String,
    /// Who asks.
    pub client: IntrospectionClient,
    /// How long an active token is believed to be so; default 30 s, zero: it is asked about at
    /// every request.
    pub active_ttl: Duration,
    /// How long an inactive one is; default 10 s.
    pub inactive_ttl: Duration,
    /// How long an active token is believed beyond `active_ttl` while nobody answers; default 1 min.
    pub stale_ttl: Duration,
    /// How often the token of a session with open connections is asked about; default 30 s.
    pub recheck_interval: Duration,
    /// Life of a token whose `exp` is not told, from when it was last found active; default 10 min.
    pub default_token_lifetime: Duration,
    /// `certificate_bound`: only tokens that are bound to the client's certificate are accepted
    /// (RFC 8705); default false.
    pub certificate_bound: bool,
    /// Tolerance for `nbf` and `iat`; default 30 s.
    pub leeway: Duration,
    /// How the endpoint is asked.
    pub outbound: Outbound,
}

/// How the gateway proves who it is to an introspection endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionClient {
    /// `client_id`.
    pub id: String,
    /// The proof.
    pub proof: ClientProof,
}

/// Methods of client authentication (RFC 6749, section 2.3.1; RFC 8705).
#[derive(Clone, Debug, PartialEq)]
pub enum ClientProof {
    /// `client_secret_basic`: the secret in this file, in the `Authorization` field.
    SecretBasic(PathBuf),
    /// `client_secret_post`: the secret in this file, in the request's body.
    SecretPost(PathBuf),
    /// `tls_client_auth`: the certificate of `outbound`.
    Tls,
}
