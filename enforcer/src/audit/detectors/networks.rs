//! Which networks principals have connected from lately.

use std::net::IpAddr;

use ipnet::IpNet;
use quick_cache::unsync::Cache;

use super::DetectorSettings;
use crate::{clock::WallInstant, session::Principal};

/// Networks that are remembered of a principal.
const MOST_NETWORKS: usize = 64;

/// What is one network to the detectors: a customer's, usually.
const IPV4_PREFIX: u8 = 24;
const IPV6_PREFIX: u8 = 48;

/// The network of an address.
pub(super) fn network(address: IpAddr) -> IpNet {
    let prefix = if address.is_ipv4() {
        IPV4_PREFIX
    } else {
        IPV6_PREFIX
    };
    IpNet::new_assert(address, prefix).trunc()
}

/// Networks by principal.
pub(super) struct Networks(Cache<Principal, Seen>);

#[derive(Default)]
struct Seen {
    /// The latest last.
    networks: Vec<(IpNet, WallInstant)>,
    silent_until: Option<WallInstant>,
}

impl Networks {
    /// Remembers about so many principals.
    pub(super) fn new(principals: usize) -> Self {
        Self(Cache::new(principals))
    }

    /// The principal is there now. Returns where it has been within the window, here included.
    pub(super) fn visit(
        &mut self,
        principal: Principal,
        network: IpNet,
        settings: &DetectorSettings,
        now: WallInstant,
    ) -> Vec<IpNet> {
        if let Some(mut seen) = self.0.get_mut(&principal) {
            return seen.visit(network, settings, now);
        }
        let mut seen = Seen::default();
        let networks = seen.visit(network, settings, now);
        self.0.insert(principal, seen);
        networks
    }

    /// Whether the principal was there within the window.
    pub(super) fn knows(
        &self,
        principal: &Principal,
        network: IpNet,
        settings: &DetectorSettings,
        now: WallInstant,
    ) -> bool {
        self.0.peek(principal).is_some_and(|seen| {
            let here = |(other, at): &(IpNet, WallInstant)| {
                *other == network && now.saturating_duration_since(*at) < settings.window
            };
            seen.networks.iter().any(here)
        })
    }

    /// Whether the principal was anywhere.
    pub(super) fn knows_any(&self, principal: &Principal) -> bool {
        self.0.peek(principal).is_some()
    }

    /// Whether nothing was said about the principal lately; from now on it was.
    pub(super) fn may_speak(
        &mut self,
        principal: &Principal,
        settings: &DetectorSettings,
        now: WallInstant,
    ) -> bool {
        let Some(mut seen) = self.0.get_mut(principal) else {
            return false;
        };
        let silent = seen.silent_until.is_some_and(|until| now < until);
        if !silent {
            seen.silent_until = Some(now.saturating_add(settings.window));
        }
        !silent
    }
}

impl Seen {
    fn visit(
        &mut self,
        network: IpNet,
        settings: &DetectorSettings,
        now: WallInstant,
    ) -> Vec<IpNet> {
        self.networks.retain(|(other, at)| {
            *other != network && now.saturating_duration_since(*at) < settings.window
        });
        if self.networks.len() == MOST_NETWORKS {
            self.networks.remove(0);
        }
        self.networks.push((network, now));
        self.networks.iter().map(|(network, _)| *network).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_in_one_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2::3"), "2001:db8:1::/48");
    }
}
