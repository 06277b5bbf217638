//! Where to start reading a log.

use std::{str::FromStr, time::Duration};

use crate::clock::WallInstant;

/// A point in the past, as it is written on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// An instant.
    At(WallInstant),
    /// This long before now.
    Ago(Duration),
}

/// Neither an instant nor a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an instant such as 2026-01-31T12:00:00Z, or a duration such as 15m")]
pub struct InvalidSince;

impl Since {
    /// The instant that is meant at `now`.
    pub fn instant(self, now: WallInstant) -> WallInstant {
        match self {
            Self::At(instant) => instant,
            Self::Ago(duration) => now.saturating_sub(duration),
        }
    }
}

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, InvalidSince> {
        if let Ok(duration) = humantime::parse_duration(text) {
            return Ok(Self::Ago(duration));
        }
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| InvalidSince)?;
        let nanos = i64::try_from(timestamp.as_nanosecond()).map_err(|_| InvalidSince)?;
        Ok(Self::At(WallInstant::from_unix_nanos(nanos)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_durations_are_told_apart() {
        let now = WallInstant::from_unix_seconds(1_000);
        for (text, seconds) in [("15m", 100), ("1970-01-01T00:00:07Z", 7)] {
            let since: Since = text.parse().unwrap();
            assert_eq!(
                since.instant(now),
                WallInstant::from_unix_seconds(seconds),
                "{text}"
            );
        }
        assert_eq!("yesterday".parse::<Since>(), Err(InvalidSince));
    }
}
