//! How records hang together: each one's hash covers the hash of the one before.
//!
//! ```text
//! hash(0) = SHA-256("enforcer audit chain" + id of the chain)
//! hash(n) = SHA-256(hash(n - 1) + n as 8 bytes, the highest first + text of record n)
//! ```
//!
//! The text is the record's one JSON line as it is stored: nothing is encoded anew to be checked,
//! so that records of later versions can be checked too.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"enforcer audit chain";

/// Declares bytes that are printed as hexadecimal digits.
macro_rules! hexadecimal {
    ($(#[$meta:meta])* $name:ident, $length:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name([u8; $length]);

        impl $name {
            /// These bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigits;

            fn from_str(text: &str) -> Result<Self, InvalidDigits> {
                let mut bytes = [0; $length];
                parse_digits(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidDigits;

            fn try_from(text: String) -> Result<Self, InvalidDigits> {
                text.parse()
            }
        }
    };
}

hexadecimal! {
    /// The hash of a record and of all before it.
    Hash, 32
}

hexadecimal! {
    /// A chain's random id. A new database begins a new chain.
    ChainId, 16
}

/// Not as many hexadecimal digits as there should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {digits} hexadecimal digits")]
pub struct InvalidDigits {
    text: String,
    digits: usize,
}

fn parse_digits(text: &str, bytes: &mut [u8]) -> Result<(), InvalidDigits> {
    let invalid = || InvalidDigits {
        text: text.to_owned(),
        digits: bytes.len() * 2,
    };
    let fits = text.len() == bytes.len() * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !fits {
        return Err(invalid());
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        // Digits only: looked at above.
        *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).unwrap_or_default();
    }
    Ok(())
}

/// A record's place in its chain, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its number: 1 is the first of the chain.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl ChainId {
    /// What the first record follows.
    pub fn origin(&self) -> Position {
        let mut digest = Sha256::new();
        digest.update(DOMAIN);
        digest.update(self.0);
        Position {
            sequence: 0,
            hash: Hash(digest.finalize().into()),
        }
    }
}

impl Hash {
    /// The hash of record `sequence` with this `text`, if the one before has this hash.
    #[must_use]
    pub fn followed_by(&self, sequence: u64, text: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(self.0);
        digest.update(sequence.to_be_bytes());
        digest.update(text);
        Self(digest.finalize().into())
    }
}

impl Position {
    /// The position of the record with this `text` that follows.
    #[must_use]
    pub fn next(&self, text: &str) -> Self {
        let sequence = self.sequence + 1;
        Self {
            sequence,
            hash: self.hash.followed_by(sequence, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_that_the_documentation_defines() {
        // (printf 'enforcer audit chain'; head -c 16 /dev/zero) | sha256sum
        let expected = "4f73265cf1807c5f184699151a31ca235b9e242ec5af80b5503ac58fe97f0640";
        let origin = ChainId([0; 16]).origin();
        assert_eq!(origin.hash.to_string(), expected);
        let by_hand =
            Sha256::digest([&origin.hash.0[..], &[0, 0, 0, 0, 0, 0, 0, 1], b"{}"].concat());
        let next = origin.next("{}");
        assert_eq!(next.sequence, 1);
        assert_eq!(next.hash.as_bytes()[..], by_hand[..]);
    }

    #[test]
    fn digits_read_back_what_they_print_and_nothing_else_is_taken() {
        let id = ChainId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"g".repeat(32), &"é".repeat(16), &"a".repeat(33)] {
            assert!(bad.parse::<ChainId>().is_err(), "{bad}");
        }
    }
}
