//! Which detectors there are, and when they speak.

use std::{collections::BTreeMap, fmt, time::Duration};

/// A detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DetectorKind {
    /// A session is renewed far too often.
    RefreshStorm,
    /// A session comes back from elsewhere after a long pause.
    IdleReturn,
    /// An address causes many refusals and expiries.
    AddressBurst,
    /// A principal is in many networks at once.
    ManyNetworks,
    /// Tokens of ended sessions are used.
    EndedToken,
    /// An issuer's tokens are not valid yet.
    ClockSkew,
}

/// When a detector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorSettings {
    /// How much it takes; percent of the idle timeout for `idle_return`.
    pub threshold: u32,
    /// Within how long.
    pub window: Duration,
}

impl DetectorKind {
    /// Every detector.
    pub const ALL: [Self; 6] = [
        Self::RefreshStorm,
        Self::IdleReturn,
        Self::AddressBurst,
        Self::ManyNetworks,
        Self::EndedToken,
        Self::ClockSkew,
    ];

    /// The stable name: of the section in the configuration, and the reason in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefreshStorm => "refresh_storm",
            Self::IdleReturn => "idle_return",
            Self::AddressBurst => "address_burst",
            Self::ManyNetworks => "many_networks",
            Self::EndedToken => "ended_token",
            Self::ClockSkew => "clock_skew",
        }
    }

    /// When it speaks, unless the configuration says otherwise.
    pub const fn defaults(self) -> DetectorSettings {
        let (threshold, seconds) = match self {
            Self::RefreshStorm => (30, 60),
            Self::IdleReturn => (50, 7 * 86_400),
            Self::AddressBurst => (30, 60),
            Self::ManyNetworks => (4, 10 * 60),
            Self::EndedToken => (5, 5 * 60),
            Self::ClockSkew => (5, 10 * 60),
        };
        DetectorSettings {
            threshold,
            window: Duration::from_secs(seconds),
        }
    }

    /// All of them with their defaults.
    pub fn all_defaults() -> BTreeMap<Self, DetectorSettings> {
        Self::ALL.map(|kind| (kind, kind.defaults())).into()
    }
}

impl fmt::Display for DetectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
