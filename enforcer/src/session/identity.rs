//! Who a session belongs to and what it is known by.

use std::{fmt, num::NonZeroU64, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};

use crate::clock::WallInstant;

/// A session's random id, printed as 16 hexadecimal digits, also in JSON. Never 0, which means
/// "unbound" in the maps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// The id with this number; `None` for 0.
    pub const fn from_u64(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number, as it stands in the maps.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(D::Error::custom)
        } else {
            NonZeroU64::deserialize(deserializer).map(Self)
        }
    }
}

/// Not a session id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a session id: write the 16 hexadecimal digits that `enforcer sessions` shows"
)]
pub struct InvalidSessionId(String);

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.and_then(Self::from_u64)
            .ok_or_else(|| InvalidSessionId(text.to_owned()))
    }
}

/// Who: an issuer and a subject within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// `iss` of a token, or the issuer of a certificate.
    pub issuer: String,
    /// `sub` of a token, or a name in a certificate.
    pub subject: String,
}

/// What makes two credentials the same session: a digest of (iss, sub, `sid`), else of
/// (iss, sub, `jti`), else of the token; of the certificate where that is the credential.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey([u8; 32]);

/// The bit of a key's last byte that tells certificates from tokens, wherever the key goes.
const CERTIFICATE: u8 = 1;

impl SessionKey {
    /// The key of every token with this `sid` claim.
    pub fn from_sid(principal: &Principal, sid: &str) -> Self {
        Self::digest(
            b"sid",
            &[
                principal.issuer.as_bytes(),
                principal.subject.as_bytes(),
                sid.as_bytes(),
            ],
        )
    }

    /// The key of the token with this `jti` claim.
    pub fn from_token_id(principal: &Principal, jti: &str) -> Self {
        Self::digest(
            b"jti",
            &[
                principal.issuer.as_bytes(),
                principal.subject.as_bytes(),
                jti.as_bytes(),
            ],
        )
    }

    /// The key of a token that names neither.
    pub fn from_token(token: &[u8]) -> Self {
        Self::digest(b"token", &[token])
    }

    /// The key of an opaque token that names neither; its issuer alone says whose it is.
    pub fn from_opaque_token(principal: &Principal, token: &str) -> Self {
        let Principal { issuer, subject } = principal;
        let parts = [issuer.as_bytes(), subject.as_bytes(), token.as_bytes()];
        Self::digest(b"opaque", &parts)
    }

    /// The key of a client's certificate: `signed` is the part of it that the signature covers.
    pub fn from_certificate(signed: &[u8]) -> Self {
        let Self(mut digest) = Self::digest(b"certificate", &[signed]);
        digest[31] |= CERTIFICATE;
        Self(digest)
    }

    /// Whether it is a certificate's.
    pub const fn is_certificate(&self) -> bool {
        self.0[31] & CERTIFICATE != 0
    }

    /// A key as the store keeps it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key as the store keeps it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn digest(kind: &[u8], parts: &[&[u8]]) -> Self {
        let mut digest = digest(kind, parts);
        digest[31] &= !CERTIFICATE;
        Self(digest)
    }
}

/// Enough of a digest to tell it from others in a log.
fn abbreviate(digest: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in &digest[..8] {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// A digest of parts that no other split of the same bytes has.
fn digest(kind: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&kind).chain(parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        abbreviate(&self.0, f)
    }
}

/// Which key signed a credential: the key's thumbprint (RFC 7638), with SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyThumbprint([u8; 32]);

impl KeyThumbprint {
    /// A thumbprint of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        abbreviate(&self.0, f)
    }
}

/// Which certificate: a digest of its issuer's name and its serial number, which an authority
/// gives once (RFC 5280, section 4.1.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CertificateId([u8; 32]);

impl CertificateId {
    /// The id of the certificate with this serial number, both parts in DER.
    pub fn new(issuer: &[u8], serial: &[u8]) -> Self {
        Self(digest(b"certificate id", &[issuer, serial]))
    }

    /// An id as the store keeps it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The id as the store keeps it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        abbreviate(&self.0, f)
    }
}

/// The certificate that a credential was shown with, or is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownCertificate {
    /// Which, and after it those of authorities that the client sent along.
    pub chain: Vec<CertificateId>,
    /// Its `notAfter`.
    pub expires_at: WallInstant,
}

/// How long after its session's end a token is refused whose issuer does not tell when it expires.
const LONGEST_SHOWN: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What authentication found out: everything that a session may be opened or renewed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Who.
    pub principal: Principal,
    /// The session that it belongs to.
    pub key: SessionKey,
    /// The key comes from `sid`: only a token with the same `sid` renews. A certificate is its
    /// session's only one.
    pub names_session: bool,
    /// `azp`: the client that the token was issued to.
    pub authorized_party: Option<String>,
    /// `auth_time`, the start of the session; without it the session starts when it is opened.
    pub authenticated_at: Option<WallInstant>,
    /// `exp` or `notAfter`, a deadline.
    pub expires_at: WallInstant,
    /// Its issuer does not tell `exp`: it may be good for longer than is believed here.
    pub assumed_expiry: bool,
    /// The key that signed it, if its issuer can withdraw that.
    pub signing_key: Option<KeyThumbprint>,
    /// The client's certificate on the connection, if it showed one.
    pub certificate: Option<ShownCertificate>,
}

impl Credential {
    /// Until when it is good for a session: no longer than the certificate beside it.
    pub fn good_until(&self) -> WallInstant {
        let certificate = self.certificate.as_ref();
        certificate
            .map(|certificate| certificate.expires_at)
            .map_or(self.expires_at, |at| at.min(self.expires_at))
    }

    /// Until when it may be shown once more, and its session's end is to be remembered.
    pub fn shown_until(&self) -> WallInstant {
        if self.assumed_expiry {
            self.expires_at.saturating_add(LONGEST_SHOWN)
        } else {
            self.expires_at
        }
    }

    /// The certificates that it stands on.
    pub fn certificates(&self) -> &[CertificateId] {
        let certificate = self.certificate.as_ref();
        certificate.map_or(&[], |certificate| &certificate.chain)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// `max_session` was reached.
    Deadline,
    /// No activity for `idle_timeout`.
    Idle,
    /// The token's `exp` or the certificate's `notAfter` was reached.
    Token,
    /// The hours of one of its policies ended.
    Hours,
    /// Its subject opened another one, and had as many as allowed.
    Displaced,
    /// An operator revoked it.
    Revoked,
    /// The user logged out.
    Logout,
    /// Its client's certificate was revoked.
    CertificateRevoked,
    /// Its issuer has withdrawn the key that signed its token.
    KeyWithdrawn,
    /// Its issuer says that its token is not active any more.
    TokenInactive,
    /// Its issuer could not be asked about its token for too long.
    TokenUnconfirmed,
    /// A changed configuration left it no time.
    Policy,
    /// The maps knew it and the store did not.
    Unknown,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::Deadline,
        Self::Idle,
        Self::Token,
        Self::Hours,
        Self::Displaced,
        Self::Revoked,
        Self::Logout,
        Self::CertificateRevoked,
        Self::KeyWithdrawn,
        Self::TokenInactive,
        Self::TokenUnconfirmed,
        Self::Policy,
        Self::Unknown,
    ];

    /// Whether the key opens no session any more. That of a token never does. A certificate is shown
    /// anew by whoever has its private key, which is to authenticate anew: only who was sent away
    /// stays away.
    pub const fn outlasts(self, key: &SessionKey) -> bool {
        !key.is_certificate()
            || matches!(
                self,
                Self::Revoked | Self::Logout | Self::CertificateRevoked
            )
    }

    /// The stable name, as in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Idle => "idle",
            Self::Token => "token",
            Self::Hours => "hours",
            Self::Displaced => "displaced",
            Self::Revoked => "revoked",
            Self::Logout => "logout",
            Self::CertificateRevoked => "certificate_revoked",
            Self::KeyWithdrawn => "key_withdrawn",
            Self::TokenInactive => "token_inactive",
            Self::TokenUnconfirmed => "token_unconfirmed",
            Self::Policy => "policy",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_reads_back_what_it_prints() {
        let id = SessionId::from_u64(0xabc).unwrap();
        assert_eq!(id.to_string(), "0000000000000abc");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "abc",
            "0000000000000000",
            "000000000000000g",
            "+000000000000abc",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_is_locked_out_only_by_who_sends_it_away() {
        let certificates = (0..9_u8).map(|number| SessionKey::from_certificate(&[number]));
        for key in certificates {
            assert!(EndReason::Revoked.outlasts(&key) && EndReason::Logout.outlasts(&key));
            assert!(!EndReason::Idle.outlasts(&key) && !EndReason::Deadline.outlasts(&key));
        }
        for key in (0..9_u8).map(|number| SessionKey::from_token(&[number])) {
            assert!(EndReason::Idle.outlasts(&key) && EndReason::Deadline.outlasts(&key));
        }
    }

    #[test]
    fn keys_of_different_kinds_or_splits_differ() {
        let who = |issuer: &str, subject: &str| Principal {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
        };
        let key = SessionKey::from_sid(&who("a", "bc"), "d");
        assert_ne!(key, SessionKey::from_sid(&who("ab", "c"), "d"));
        assert_ne!(key, SessionKey::from_token_id(&who("a", "bc"), "d"));
    }
}
