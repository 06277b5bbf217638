//! Why a token is not accepted.

use std::fmt;

use crate::{clock::WallInstant, session::Principal};

/// Why a token is not accepted: always the client's fault, and answered with 401.
///
/// The text holds nothing of the token but its issuer, algorithm and key id, shortened and fit
/// for a `WWW-Authenticate` header (RFC 6750, section 3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`LONGEST_TOKEN`](super::LONGEST_TOKEN) bytes.
    #[error("the token is too long: {length} bytes")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// Not a signed token at all.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// `iss` is none of the configured issuers.
    #[error("the issuer `{issuer}` is unknown")]
    IssuerUnknown {
        /// `iss`.
        issuer: Excerpt,
    },
    /// `alg` is none of the issuer's configured algorithms.
    #[error("the algorithm `{algorithm}` is not allowed for the issuer")]
    AlgorithmNotAllowed {
        /// `alg`.
        algorithm: Excerpt,
    },
    /// The header has extensions that must be understood (`crit`); none is.
    #[error("the token has critical extensions, which are not supported")]
    CriticalExtension,
    /// The issuer has no key with this id, or none for the algorithm.
    #[error("the issuer has no such key{}", .key.as_ref().map(|id| format!(": `{id}`")).unwrap_or_default())]
    KeyUnknown {
        /// `kid`.
        key: Option<Excerpt>,
    },
    /// No key of the issuer made the signature.
    #[error("the signature is invalid")]
    SignatureInvalid,
    /// A required claim is missing.
    #[error("the claim `{claim}` is missing")]
    ClaimMissing {
        /// Its name.
        claim: &'static str,
    },
    /// A claim is empty, too long or has control characters.
    #[error("the claim `{claim}` is unusable: {why}")]
    ClaimInvalid {
        /// Its name.
        claim: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `aud` holds none of the configured audiences.
    #[error("the token is for another audience")]
    AudienceMismatch,
    /// Its issuer says so.
    #[error("the token is not active")]
    Inactive,
    /// Its issuer calls it something else, such as a refresh token.
    #[error("the token is not a bearer token")]
    NotBearer,
    /// Its issuer says that another issued it.
    #[error("the token is from another issuer: `{issuer}`")]
    IssuerMismatch {
        /// `iss`.
        issuer: Excerpt,
    },
    /// Its issuer says that it speaks for somebody else than before.
    #[error("the token speaks for somebody else than before")]
    PrincipalChanged,
    /// `exp` is reached.
    #[error("the token expired at {at}")]
    Expired {
        /// `exp`.
        at: WallInstant,
    },
    /// `nbf`, `iat` or `auth_time` is in the future, further than the leeway.
    #[error("the token is not valid yet: `{claim}` is {at}")]
    NotYetValid {
        /// Which of them.
        claim: &'static str,
        /// Its value.
        at: WallInstant,
        /// Who the token is for: all else about it is in order.
        principal: Box<Principal>,
    },
}

impl TokenError {
    /// The stable code, as in answers and in the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "token_too_long",
            Self::Malformed(_) => "token_malformed",
            Self::IssuerUnknown { .. } => "issuer_unknown",
            Self::AlgorithmNotAllowed { .. } => "algorithm_not_allowed",
            Self::CriticalExtension => "critical_extension",
            Self::KeyUnknown { .. } => "key_unknown",
            Self::SignatureInvalid => "signature_invalid",
            Self::ClaimMissing { .. } => "claim_missing",
            Self::ClaimInvalid { .. } => "claim_invalid",
            Self::AudienceMismatch => "audience_mismatch",
            Self::Inactive => "token_inactive",
            Self::NotBearer => "token_not_bearer",
            Self::IssuerMismatch { .. } => "issuer_mismatch",
            Self::PrincipalChanged => "principal_changed",
            Self::Expired { .. } => "token_expired",
            Self::NotYetValid { .. } => "token_not_yet_valid",
        }
    }
}

/// The beginning of a text from a token, fit for logs and headers: at most 64 characters, and `?`
/// for each that is not plain ASCII or would end a quotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    const LENGTH: usize = 64;

    /// Shortens and cleans `text`.
    pub fn new(text: &str) -> Self {
        let clean = |c: char| {
            let plain = (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '`');
            if plain { c } else { '?' }
        };
        let mut excerpt: String = text.chars().take(Self::LENGTH).map(clean).collect();
        if text.chars().nth(Self::LENGTH).is_some() {
            excerpt.push_str("...");
        }
        Self(excerpt)
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
