//! Wall-clock instants as RFC 3339 text: how they stand in records and reports.
//!
//! For `#[serde(with = "rfc3339")]`; fields that may be absent take
//! `#[serde(with = "rfc3339::option")]` and a default.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::clock::WallInstant;

/// The text is no RFC 3339 instant, or one that nanoseconds of 64 bits can't count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an instant: write it like 2026-01-31T12:00:00Z")]
pub struct InvalidInstant(String);

/// Reads what [`WallInstant`] prints, and every other spelling of RFC 3339.
///
/// # Errors
/// [`InvalidInstant`] if it is something else.
pub fn parse(text: &str) -> Result<WallInstant, InvalidInstant> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|timestamp| i64::try_from(timestamp.as_nanosecond()).ok())
        .map(WallInstant::from_unix_nanos)
        .ok_or_else(|| InvalidInstant(text.to_owned()))
}

/// Writes the instant in UTC with microseconds.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(instant: &WallInstant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(instant)
}

/// Reads an instant.
///
/// # Errors
/// If the value is no instant.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallInstant, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for fields that may be absent.
pub mod option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::clock::WallInstant;

    /// Writes the instant, or null.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(
        instant: &Option<WallInstant>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match instant {
            Some(instant) => serializer.collect_str(instant),
            None => serializer.serialize_none(),
        }
    }

    /// Reads an instant or null.
    ///
    /// # Errors
    /// If the value is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<WallInstant>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| super::parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_reads_back_what_it_prints() {
        let instant = WallInstant::from_unix_nanos(1_700_000_000_123_456_000);
        assert_eq!(parse(&instant.to_string()), Ok(instant));
        assert_eq!(parse("2023-11-14T23:13:20.123456+01:00"), Ok(instant));
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for bad in ["", "yesterday", "2023-11-14", "9999-01-01T00:00:00Z"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
