//! The clocks: one newtype for each, and the only place that reads them.
//!
//! Limits are kept on `CLOCK_BOOTTIME`, which counts time in suspend and never steps. Claims of
//! tokens and certificates are wall-clock instants and are translated by [`Now::boot_at`].

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// An instant of `CLOCK_BOOTTIME`, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootInstant(u64);

impl BootInstant {
    /// The instant `nanos` nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant plus `duration`, or the last representable one.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }

    /// This instant minus `duration`, or boot.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_nanos(duration)))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// An instant of `CLOCK_REALTIME`, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallInstant(i64);

impl WallInstant {
    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The instant `seconds` after the epoch (a NumericDate of RFC 7519), clamped to what can be
    /// represented.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_unix_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// As HTTP writes it (RFC 9110, section 5.6.7), in whole seconds of GMT; `None` outside of the
    /// years that it can write.
    pub fn http_date(self) -> Option<String> {
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        let timestamp = jiff::Timestamp::from_second(self.as_unix_seconds()).ok()?;
        printer.timestamp_to_rfc9110_string(&timestamp).ok()
    }

    /// This instant plus `duration`, or the last representable one.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_signed_nanos(duration)))
    }

    /// This instant minus `duration`, or the first representable one.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_signed_nanos(duration)))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// RFC 3339 in UTC, with microseconds.
impl fmt::Display for WallInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => write!(f, "{timestamp:.6}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`.
    pub boot: BootInstant,
    /// `CLOCK_REALTIME`.
    pub wall: WallInstant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self {
            boot: boot_now(),
            wall: wall_now(),
        }
    }

    /// When `CLOCK_BOOTTIME` will show what the wall clock shows at `wall`, if it isn't stepped.
    /// An instant before boot becomes boot.
    pub fn boot_at(&self, wall: WallInstant) -> BootInstant {
        if wall >= self.wall {
            self.boot
                .saturating_add(wall.saturating_duration_since(self.wall))
        } else {
            self.boot
                .saturating_sub(self.wall.saturating_duration_since(wall))
        }
    }

    /// What the wall clock shows at `boot`, if it isn't stepped.
    pub fn wall_at(&self, boot: BootInstant) -> WallInstant {
        if boot >= self.boot {
            self.wall
                .saturating_add(boot.saturating_duration_since(self.boot))
        } else {
            self.wall
                .saturating_sub(self.boot.saturating_duration_since(boot))
        }
    }
}

/// Reads `CLOCK_BOOTTIME`.
pub fn boot_now() -> BootInstant {
    let nanos = read(rustix::time::ClockId::Boottime);
    BootInstant(u64::try_from(nanos).unwrap_or(0))
}

/// Reads `CLOCK_REALTIME`.
pub fn wall_now() -> WallInstant {
    WallInstant(read(rustix::time::ClockId::Realtime))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the clocks"
)]
fn read(clock: rustix::time::ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec
        .saturating_mul(NANOS_PER_SECOND)
        .saturating_add(time.tv_nsec)
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn saturating_signed_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        boot: BootInstant::from_nanos(100_000_000_000),
        wall: WallInstant::from_unix_seconds(1_700_000_000),
    };

    #[test]
    fn a_wall_instant_translates_both_ways() {
        let later = NOW.wall.saturating_add(Duration::from_secs(5));
        assert_eq!(NOW.boot_at(later).as_nanos(), 105_000_000_000);
        assert_eq!(NOW.wall_at(NOW.boot_at(later)), later);
        let earlier = NOW.wall.saturating_sub(Duration::from_secs(5));
        assert_eq!(NOW.boot_at(earlier).as_nanos(), 95_000_000_000);
        assert_eq!(NOW.wall_at(NOW.boot_at(earlier)), earlier);
    }

    #[test]
    fn an_instant_before_boot_becomes_boot_and_a_huge_one_the_last() {
        assert_eq!(NOW.boot_at(WallInstant::from_unix_seconds(0)).as_nanos(), 0);
        let last = WallInstant::from_unix_seconds(i64::MAX);
        assert!(NOW.boot_at(last) > NOW.boot);
    }

    #[test]
    fn instants_print_as_rfc_3339() {
        assert_eq!(
            WallInstant::from_unix_seconds(0).to_string(),
            "1970-01-01T00:00:00.000000Z"
        );
    }

    #[test]
    fn instants_are_dates_to_http() {
        let instant = WallInstant::from_unix_seconds(784_111_777);
        let date = instant.http_date();
        assert_eq!(date.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }
}
