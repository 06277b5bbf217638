//! Limits, and how several of them become one.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What counts as activity. `Application` is the stricter: less counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityKind {
    /// Requests and data messages, as the gateway sees them.
    Application,
    /// TCP payload from the client, as the kernel sees it.
    Payload,
}

impl ActivityKind {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Payload => "payload",
        }
    }
}

/// Whether limits are enforced. `Enforce` is the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The kernel cuts.
    Enforce,
    /// What would have been cut is recorded.
    Observe,
}

impl Mode {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// What becomes of a session that would be one too many. `Refuse` is the stricter: it takes
/// somebody who can end a session, not only a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtSessionLimit {
    /// It is not opened.
    Refuse,
    /// It is opened, and the subject's oldest ends.
    EndOldest,
}

impl AtSessionLimit {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::EndOldest => "end_oldest",
        }
    }
}

/// How many sessions a subject may have at once (`max_sessions_per_subject`,
/// `at_session_limit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsPerSubject {
    /// So many.
    pub max: u32,
    /// And then.
    pub then: AtSessionLimit,
}

impl SessionsPerSubject {
    fn strictest(self, other: Self) -> Self {
        Self {
            max: self.max.min(other.max),
            then: self.then.min(other.then),
        }
    }
}

/// How much of the first client's address every other one must share: the lengths of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    /// Of IPv4 addresses.
    pub ipv4: u8,
    /// Of IPv6 addresses.
    pub ipv6: u8,
}

impl NetworkBinding {
    /// The network that an address binds to.
    pub fn network(self, address: IpAddr) -> IpNet {
        let length = match address {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        };
        // A length that no prefix has leaves the address alone, which is the strictest.
        IpNet::new(address, length).map_or(IpNet::from(address), |network| network.trunc())
    }

    fn strictest(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4.max(other.ipv4),
            ipv6: self.ipv6.max(other.ipv6),
        }
    }
}

/// The limits of a policy, or of a session under several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest life of a session from its start.
    pub max_session: Duration,
    /// Longest time without activity.
    pub idle_timeout: Option<Duration>,
    /// How long before its end a session is announced as expiring.
    pub warn_before: Duration,
    /// How long before its end the protocol's own farewell is sent.
    pub farewell: Duration,
    /// What counts as activity.
    pub activity: ActivityKind,
    /// Whether the limits are enforced.
    pub mode: Mode,
    /// Client connections that a session may have at once.
    pub max_connections: Option<u32>,
    /// Sessions that a subject may have at once.
    pub sessions_per_subject: Option<SessionsPerSubject>,
    /// A session's connections all come from the network of its first one.
    pub bind_network: Option<NetworkBinding>,
}

impl Limits {
    /// Whether what the kernel sees of a client's payload moves the idle limit.
    pub fn count_payload(&self) -> bool {
        self.idle_timeout.is_some() && self.activity == ActivityKind::Payload
    }

    /// The strictest value of each limit. Where modes differ see [`Applied`](super::Applied).
    pub fn strictest(&self, other: &Self) -> Self {
        Self {
            max_session: self.max_session.min(other.max_session),
            idle_timeout: stricter(self.idle_timeout, other.idle_timeout, Duration::min),
            warn_before: self.warn_before.max(other.warn_before),
            farewell: self.farewell.max(other.farewell),
            activity: self.activity.min(other.activity),
            mode: self.mode.min(other.mode),
            max_connections: stricter(self.max_connections, other.max_connections, u32::min),
            sessions_per_subject: stricter(
                self.sessions_per_subject,
                other.sessions_per_subject,
                SessionsPerSubject::strictest,
            ),
            bind_network: stricter(
                self.bind_network,
                other.bind_network,
                NetworkBinding::strictest,
            ),
        }
    }
}

/// A limit that is not set is none.
fn stricter<T: Copy>(a: Option<T>, b: Option<T>, stricter: impl Fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(stricter(a, b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fifteen minutes, enforced.
    pub(crate) fn plain() -> Limits {
        Limits {
            max_session: Duration::from_secs(900),
            idle_timeout: None,
            warn_before: Duration::ZERO,
            farewell: Duration::ZERO,
            activity: ActivityKind::Application,
            mode: Mode::Enforce,
            max_connections: None,
            sessions_per_subject: None,
            bind_network: None,
        }
    }

    /// Limits of all kinds.
    pub(crate) fn limits() -> impl Strategy<Value = Limits> {
        let duration = || (1..100_000_u64).prop_map(Duration::from_millis);
        let at_limit = prop_oneof![
            Just(AtSessionLimit::Refuse),
            Just(AtSessionLimit::EndOldest)
        ];
        let sessions =
            (1..5_u32, at_limit).prop_map(|(max, then)| SessionsPerSubject { max, then });
        let binding = (1..=32_u8, 1..=128_u8);
        let binding = binding.prop_map(|(ipv4, ipv6)| NetworkBinding { ipv4, ipv6 });
        let times = (
            duration(),
            prop::option::of(duration()),
            duration(),
            duration(),
        );
        let kinds = (
            prop_oneof![Just(ActivityKind::Application), Just(ActivityKind::Payload)],
            prop_oneof![Just(Mode::Enforce), Just(Mode::Observe)],
        );
        let numbers = (
            prop::option::of(1..9_u32),
            prop::option::of(sessions),
            prop::option::of(binding),
        );
        (times, kinds, numbers).prop_map(|(times, kinds, numbers)| Limits {
            max_session: times.0,
            idle_timeout: times.1,
            warn_before: times.2,
            farewell: times.3,
            activity: kinds.0,
            mode: kinds.1,
            max_connections: numbers.0,
            sessions_per_subject: numbers.1,
            bind_network: numbers.2,
        })
    }

    proptest! {
        #[test]
        fn the_strictest_is_the_same_in_any_order_and_however_often(
            a in limits(), b in limits(), c in limits(),
        ) {
            prop_assert_eq!(a.strictest(&a), a.clone());
            prop_assert_eq!(a.strictest(&b), b.strictest(&a));
            prop_assert_eq!(a.strictest(&b).strictest(&c), a.strictest(&b.strictest(&c)));
        }

        #[test]
        fn the_strictest_is_as_strict_as_each(a in limits(), b in limits()) {
            let strictest = a.strictest(&b);
            prop_assert_eq!(strictest.strictest(&a), strictest.clone());
            prop_assert!(strictest.max_session <= a.max_session);
            if let Some(idle_timeout) = a.idle_timeout {
                prop_assert!(strictest.idle_timeout.is_some_and(|it| it <= idle_timeout));
            }
        }
    }

    #[test]
    fn an_address_binds_to_its_network() {
        let binding = NetworkBinding { ipv4: 24, ipv6: 56 };
        let network = |address: &str| binding.network(address.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:0:1ff::1"), "2001:db8:0:100::/56");
    }
}
