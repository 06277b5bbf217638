//! A token taken apart: nothing in it is believed yet.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IgnoredAny},
};

use super::error::{Excerpt, TokenError};
use crate::{clock::WallInstant, policy};

const UNREADABLE_HEADER: &str = "its header cannot be read";
const UNREADABLE_PAYLOAD: &str = "its payload cannot be read";

/// A signed token in compact form (RFC 7515, section 7.1).
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// Header and payload, still encoded: what the signature covers.
    pub(super) message: &'a str,
    /// Still encoded.
    pub(super) signature: &'a str,
    pub(super) header: Header,
    pub(super) claims: Claims,
    /// Those and all others.
    pub(super) all_claims: policy::Claims,
}

/// The parts of the header that matter here. A repeated one makes the token malformed.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    alg: String,
    pub(super) kid: Option<String>,
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
}

/// The claims that matter here. A repeated one makes the token malformed.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) aud: Option<Audience>,
    pub(super) exp: Option<NumericDate>,
    pub(super) nbf: Option<NumericDate>,
    pub(super) iat: Option<NumericDate>,
    pub(super) auth_time: Option<NumericDate>,
    pub(super) sid: Option<String>,
    pub(super) jti: Option<String>,
    pub(super) azp: Option<String>,
    pub(super) client_id: Option<String>,
}

/// `aud`: one string or a list of them (RFC 7519, section 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// Whether it holds one of `names`.
    pub(super) fn holds_any(&self, names: &[String]) -> bool {
        match self {
            Self::One(name) => names.contains(name),
            Self::Many(held) => held.iter().any(|name| names.contains(name)),
        }
    }
}

/// Seconds since the epoch, whole or not (RFC 7519, section 2), clamped to what an instant can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumericDate(pub(super) WallInstant);

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        let shape = TokenError::Malformed("it is not three parts with dots between");
        let (message, signature) = text.rsplit_once('.').ok_or(shape.clone())?;
        let (header, payload) = message.split_once('.').ok_or(shape.clone())?;
        if payload.contains('.') {
            return Err(shape);
        }
        let payload = decode(payload, UNREADABLE_PAYLOAD)?;
        Ok(Self {
            message,
            signature,
            header: parse(&decode(header, UNREADABLE_HEADER)?, UNREADABLE_HEADER)?,
            claims: parse(&payload, UNREADABLE_PAYLOAD)?,
            all_claims: policy::Claims::new(parse(&payload, UNREADABLE_PAYLOAD)?),
        })
    }

    /// The algorithm of the header, if it is one of `allowed`.
    pub(super) fn algorithm(&self, allowed: &[Algorithm]) -> Result<Algorithm, TokenError> {
        if self.header.crit {
            return Err(TokenError::CriticalExtension);
        }
        let named = self.header.alg.parse().ok();
        named
            .filter(|algorithm| allowed.contains(algorithm))
            .ok_or_else(|| TokenError::AlgorithmNotAllowed {
                algorithm: Excerpt::new(&self.header.alg),
            })
    }
}

fn decode(part: &str, fault: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed(fault))
}

fn parse<T: DeserializeOwned>(json: &[u8], fault: &'static str) -> Result<T, TokenError> {
    serde_json::from_slice(json).map_err(|_| TokenError::Malformed(fault))
}

fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since the epoch")
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<NumericDate, E> {
                Ok(NumericDate(WallInstant::from_unix_seconds(seconds)))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
                self.visit_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
                // A cast from a float saturates.
                let nanos = (seconds * 1e9).floor() as i64;
                Ok(NumericDate(WallInstant::from_unix_nanos(nanos)))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(json: &str) -> i64 {
        let NumericDate(instant) = serde_json::from_str(json).unwrap();
        instant.as_unix_nanos()
    }

    #[test]
    fn dates_are_whole_or_fractional_and_never_overflow() {
        assert_eq!(date("5"), 5_000_000_000);
        assert_eq!(date("5.5"), 5_500_000_000);
        assert_eq!(date("-1.5"), -1_500_000_000);
        assert_eq!(date("18446744073709551615"), i64::MAX);
        assert_eq!(date("-9223372036854775808"), i64::MIN);
        assert_eq!(date("1e300"), i64::MAX);
        assert_eq!(date("-1e300"), i64::MIN);
        for bad in ["\"5\"", "true", "1e999", "[]"] {
            assert!(serde_json::from_str::<NumericDate>(bad).is_err(), "{bad}");
        }
    }
}
