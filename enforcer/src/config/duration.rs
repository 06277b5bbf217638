//! Durations as people write them: `"15m"`, `"1h 30m"`, `"250ms"`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// Longest duration that is not taken for a slip: ten years of 365.25 days.
const LONGEST: Duration = Duration::from_secs(315_576_000);

/// What stands where a duration should, so that a bare number can be answered with the mend.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawDuration {
    /// A string.
    Text(String),
    /// A number, as it was written or close to it.
    Number(String),
}

/// Whether a duration may be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zero {
    /// Zero turns the thing off.
    Allowed,
    /// Zero means nothing.
    Refused,
}

/// Why it is no duration: what is wrong with it, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadDuration {
    /// After the key's name.
    pub(super) what: String,
    /// A value to write.
    pub(super) example: String,
}

impl RawDuration {
    /// The duration.
    pub(super) fn parse(&self, zero: Zero) -> Result<Duration, BadDuration> {
        let bad = |what: String, example: &str| BadDuration {
            what,
            example: example.to_owned(),
        };
        let text = match self {
            Self::Text(text) => text.trim(),
            Self::Number(number) => return Err(unitless(number)),
        };
        if text.starts_with('-') {
            return Err(bad(format!("is negative: `{text}`"), "15m"));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(unitless(text));
        }
        let duration = humantime::parse_duration(text)
            .map_err(|error| bad(format!("is not a duration: `{text}` ({error})"), "15m"))?;
        if duration.is_zero() && zero == Zero::Refused {
            return Err(bad("is zero".to_owned(), "15m"));
        }
        if duration > LONGEST {
            return Err(bad(format!("is longer than ten years: `{text}`"), "8h"));
        }
        Ok(duration)
    }
}

fn unitless(number: &str) -> BadDuration {
    if number.starts_with('-') {
        return BadDuration {
            what: format!("is negative: `{number}`"),
            example: "15m".to_owned(),
        };
    }
    let seconds = if number.bytes().all(|b| b.is_ascii_digit()) && number != "0" {
        number
    } else {
        "30"
    };
    BadDuration {
        what: format!("has no unit: `{number}`"),
        example: format!("{seconds}s"),
    }
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = RawDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit such as \"15m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawDuration, E> {
                Ok(RawDuration::Text(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RawDuration, E> {
                Ok(RawDuration::Number(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<RawDuration, E> {
                Ok(RawDuration::Number(number.to_string()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Duration, BadDuration> {
        RawDuration::Text(text.to_owned()).parse(Zero::Refused)
    }

    #[test]
    fn durations_read_as_written() {
        for (text, seconds) in [
            ("15m", 900),
            ("1h 30m", 5400),
            (" 60s ", 60),
            ("10years", LONGEST.as_secs()),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        let zero = RawDuration::Text("0s".to_owned());
        assert_eq!(zero.parse(Zero::Allowed), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, what) in [
            ("", "not a duration"),
            ("soon", "not a duration"),
            ("-5m", "negative"),
            ("0s", "zero"),
            ("300", "no unit"),
            ("11years", "longer than ten years"),
            ("99999999999999999999s", "not a duration"),
        ] {
            let bad = parse(text).unwrap_err();
            assert!(bad.what.contains(what), "{text}: {bad:?}");
            assert!(parse(&bad.example).is_ok(), "{text}: {bad:?}");
        }
        let number = RawDuration::Number("300".to_owned());
        assert_eq!(number.parse(Zero::Refused).unwrap_err().example, "300s");
    }
}
