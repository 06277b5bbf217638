//! Which target a CONNECT asks for, and whether a route allows it. Pure.
//!
//! Of several patterns that allow a target the narrowest decides which route it is: a name before
//! a suffix, the longer suffix before the shorter, the longer prefix of a network before the
//! shorter, then fewer ports before more. A name that no pattern names is resolved, and its
//! addresses are held against the networks; only those that are allowed are connected to.
//!
//! Loopback, link-local, multicast and other special addresses lead into the gateway's own machine
//! or are no hosts at all. A wide network does not include them: only one that holds nothing else
//! does. A name that is written out may resolve to whatever it likes; one below a suffix may not
//! resolve to a special address, unless a network allows it.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use http::Uri;
use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::config::{HostPattern, TargetPattern, TunnelRoute};

/// Index of a tunnel route in the configuration.
pub(crate) type TunnelIndex = usize;

/// Where a tunnel is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// The host of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// In lower case, without a final dot.
    Name(String),
    /// IPv4 as IPv4.
    Address(IpAddr),
}

/// The request target of a CONNECT is not `host:port` (RFC 9110, section 9.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CONNECT takes a target of the form host:port")]
pub(crate) struct InvalidTarget;

/// No route of the listener allows the target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no route allows a tunnel to {0}")]
pub(crate) struct TargetNotAllowed(pub(crate) Target);

impl Target {
    /// Takes the request target apart.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, InvalidTarget> {
        let authority = uri.authority().ok_or(InvalidTarget)?;
        if uri.scheme().is_some() || authority.as_str().contains('@') {
            return Err(InvalidTarget);
        }
        let port = authority.port_u16().filter(|port| *port != 0);
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let host = match bare.parse::<IpAddr>() {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => {
                let name = bare.strip_suffix('.').unwrap_or(bare);
                match ServerName::try_from(name) {
                    Ok(ServerName::DnsName(name)) => Host::Name(name.as_ref().to_ascii_lowercase()),
                    _ => return Err(InvalidTarget),
                }
            }
        };
        Ok(Self {
            host,
            port: port.ok_or(InvalidTarget)?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => write!(f, "{}", SocketAddr::new(*address, self.port)),
        }
    }
}

/// How the target is allowed, as far as it can be told before its name is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its name, whatever that resolves to.
    Named(TunnelIndex),
    /// By a suffix, unless it resolves to special addresses only.
    BelowSuffix(TunnelIndex),
    /// Its addresses decide.
    ByAddress,
}

/// A route, and the addresses of the target that it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    pub(crate) tunnel: TunnelIndex,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The targets of all listeners.
#[derive(Debug, Default)]
pub(crate) struct TargetTable(HashMap<String, Vec<Rule>>);

#[derive(Debug)]
struct Rule {
    pattern: TargetPattern,
    tunnel: TunnelIndex,
}

impl TargetTable {
    /// The table of these routes.
    pub(crate) fn new(tunnels: &[TunnelRoute]) -> Self {
        let mut table = HashMap::<_, Vec<Rule>>::new();
        for (index, route) in tunnels.iter().enumerate() {
            let rules = table.entry(route.listener.clone()).or_default();
            rules.extend(route.targets.iter().map(|pattern| Rule {
                pattern: pattern.clone(),
                tunnel: index,
            }));
        }
        for rules in table.values_mut() {
            rules.sort_by_key(|rule| Reverse(narrowness(&rule.pattern)));
        }
        Self(table)
    }

    /// Whether any tunnel starts at the listener.
    pub(crate) fn serves(&self, listener: &str) -> bool {
        self.0.contains_key(listener)
    }

    /// Whether a tunnel to the target is allowed, as far as its name goes.
    pub(crate) fn find(&self, listener: &str, target: &Target) -> Result<Way, TargetNotAllowed> {
        let mut rules = self.rules(listener, target.port);
        let way = rules.find_map(|rule| match (&rule.pattern.host, &target.host) {
            (HostPattern::Name(name), Host::Name(asked)) if name == asked => {
                Some(Way::Named(rule.tunnel))
            }
            (HostPattern::Suffix(suffix), Host::Name(asked)) if is_below(asked, suffix) => {
                Some(Way::BelowSuffix(rule.tunnel))
            }
            (HostPattern::Network(_), Host::Name(_)) => Some(Way::ByAddress),
            (HostPattern::Network(network), Host::Address(asked)) if covers(network, asked) => {
                Some(Way::ByAddress)
            }
            _ => None,
        });
        way.ok_or_else(|| TargetNotAllowed(target.clone()))
    }

    /// The route that leads to one of the target's addresses, and which of them it allows.
    pub(crate) fn permit(
        &self,
        listener: &str,
        target: &Target,
        way: Way,
        addresses: Vec<IpAddr>,
    ) -> Result<Permit, TargetNotAllowed> {
        let by_network = |address: &IpAddr| {
            let mut rules = self.rules(listener, target.port);
            let rule = rules.find(|rule| match &rule.pattern.host {
                HostPattern::Network(network) => covers(network, address),
                _ => false,
            });
            rule.map(|rule| rule.tunnel)
        };
        let allowed = |address: &IpAddr| match way {
            Way::Named(tunnel) => Some(tunnel),
            Way::BelowSuffix(tunnel) if special(address).is_none() => Some(tunnel),
            Way::BelowSuffix(_) | Way::ByAddress => by_network(address),
        };
        let tunnel = match way {
            Way::Named(tunnel) => Some(tunnel),
            _ => addresses.iter().find_map(allowed),
        };
        let tunnel = tunnel.ok_or_else(|| TargetNotAllowed(target.clone()))?;
        let addresses = addresses.into_iter();
        Ok(Permit {
            tunnel,
            addresses: addresses
                .filter(|address| allowed(address) == Some(tunnel))
                .collect(),
        })
    }

    fn rules(&self, listener: &str, port: u16) -> impl Iterator<Item = &Rule> {
        let rules = self.0.get(listener).into_iter().flatten();
        rules.filter(move |rule| {
            let ports = rule.pattern.ports;
            (ports.first..=ports.last).contains(&port)
        })
    }
}

/// The greater, the narrower.
fn narrowness(pattern: &TargetPattern) -> (u8, usize, Reverse<u16>) {
    let (kind, length) = match &pattern.host {
        HostPattern::Name(name) => (2, name.len()),
        HostPattern::Suffix(suffix) => (1, suffix.len()),
        HostPattern::Network(network) => (0, network.prefix_len().into()),
    };
    (
        kind,
        length,
        Reverse(pattern.ports.last - pattern.ports.first),
    )
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.len() > suffix.len() && name.ends_with(suffix)
}

fn covers(network: &IpNet, address: &IpAddr) -> bool {
    network.contains(address) && special(address).is_none_or(|range| range.contains(network))
}

/// The range of special addresses that this one is in (RFC 6890).
fn special(address: &IpAddr) -> Option<IpNet> {
    static RANGES: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
        let ranges = [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/127",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2002::/16",
            "fe80::/10",
            "ff00::/8",
        ];
        ranges
            .iter()
            .filter_map(|range| range.parse().ok())
            .collect()
    });
    RANGES.iter().find(|range| range.contains(address)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PortRange;

    fn target(text: &str) -> Target {
        Target::parse(&text.parse().unwrap()).unwrap()
    }

    fn pattern(host: HostPattern, first: u16, last: u16) -> TargetPattern {
        let ports = PortRange { first, last };
        TargetPattern { host, ports }
    }

    fn name(text: &str) -> TargetPattern {
        pattern(HostPattern::Name(text.to_owned()), 1, u16::MAX)
    }

    fn suffix(text: &str) -> TargetPattern {
        pattern(HostPattern::Suffix(text.to_owned()), 1, u16::MAX)
    }

    fn network(text: &str) -> TargetPattern {
        pattern(HostPattern::Network(text.parse().unwrap()), 1, u16::MAX)
    }

    /// One route for each list of targets.
    fn table<const N: usize>(routes: [&[TargetPattern]; N]) -> TargetTable {
        let routes = routes.map(|targets| TunnelRoute {
            listener: "public".to_owned(),
            targets: targets.to_vec(),
            policies: vec!["default".to_owned()],
            require: crate::policy::Requirements::default(),
            proxy_protocol: None,
            connect_timeout: std::time::Duration::from_secs(5),
        });
        TargetTable::new(&routes)
    }

    /// The route, and how many of the addresses it allows.
    fn route(table: &TargetTable, asked: &str, addresses: &[&str]) -> Option<(usize, usize)> {
        let target = target(asked);
        let way = table.find("public", &target).ok()?;
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let permit = table.permit("public", &target, way, addresses).ok()?;
        Some((permit.tunnel, permit.addresses.len()))
    }

    #[test]
    fn targets_are_hosts_with_ports() {
        assert_eq!(target("DB.internal.:5432").to_string(), "db.internal:5432");
        assert_eq!(target("[::1]:22").to_string(), "[::1]:22");
        assert_eq!(target("[::ffff:10.0.0.1]:22").to_string(), "10.0.0.1:22");
        for text in ["db", "db:0", "/x", "http://db:1/", "me@db:1", "*", "a_:1b"] {
            let uri = text.parse::<Uri>();
            let fault = uri.is_err() || Target::parse(&uri.unwrap()).is_err();
            assert!(fault, "{text}");
        }
    }

    #[test]
    fn the_narrowest_pattern_decides() {
        let table = table([
            &[network("10.0.0.0/8"), suffix(".internal")],
            &[name("db.internal"), network("10.1.0.0/16")],
            &[suffix(".eu.internal"), network("10.1.2.3/32")],
        ]);
        assert_eq!(route(&table, "web.internal:1", &["8.8.8.8"]), Some((0, 1)));
        assert_eq!(route(&table, "db.internal:1", &["8.8.8.8"]), Some((1, 1)));
        assert_eq!(route(&table, "a.eu.internal:1", &["8.8.8.8"]), Some((2, 1)));
        assert_eq!(route(&table, "internal:1", &["8.8.8.8"]), None);
        assert_eq!(route(&table, "xinternal:1", &["8.8.8.8"]), None);
        for (address, wanted) in [("10.9.9.9", 0), ("10.1.9.9", 1), ("10.1.2.3", 2)] {
            assert_eq!(
                route(&table, &format!("{address}:1"), &[address]),
                Some((wanted, 1))
            );
        }
        assert_eq!(route(&table, "11.0.0.1:1", &["11.0.0.1"]), None);
    }

    #[test]
    fn ports_count() {
        let vnc = pattern(HostPattern::Name("vnc".to_owned()), 5900, 5999);
        let one = pattern(HostPattern::Name("vnc".to_owned()), 5901, 5901);
        let table = table([&[vnc], &[one]]);
        assert_eq!(route(&table, "vnc:5900", &["8.8.8.8"]), Some((0, 1)));
        assert_eq!(route(&table, "vnc:5901", &["8.8.8.8"]), Some((1, 1)));
        assert_eq!(route(&table, "vnc:5899", &["8.8.8.8"]), None);
        let other = table.find("other", &target("vnc:5900"));
        assert_eq!(other, Err(TargetNotAllowed(target("vnc:5900"))));
    }

    #[test]
    fn the_addresses_of_a_name_are_held_against_networks() {
        let table = table([&[network("10.0.0.0/8")], &[network("fd00::/8")]]);
        assert_eq!(route(&table, "a.example:1", &["10.0.0.1"]), Some((0, 1)));
        let both = ["8.8.8.8", "fd00::1", "10.0.0.1", "fd00::2"];
        assert_eq!(route(&table, "a.example:1", &both), Some((1, 2)));
        assert_eq!(route(&table, "a.example:1", &["8.8.8.8"]), None);
    }

    #[test]
    fn special_addresses_are_only_what_is_named_as_such() {
        let special = [
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "0.0.0.0",
            "::",
        ];
        let wide = table([&[network("0.0.0.0/0"), network("::/0"), suffix(".evil")]]);
        for address in special {
            let target = SocketAddr::new(address.parse().unwrap(), 80).to_string();
            assert_eq!(route(&wide, &target, &[address]), None, "{address}");
            assert_eq!(route(&wide, "a.example:80", &[address]), None, "{address}");
            assert_eq!(route(&wide, "a.evil:80", &[address]), None, "{address}");
        }
        assert_eq!(
            route(&wide, "a.evil:80", &["127.0.0.1", "8.8.8.8"]),
            Some((0, 1))
        );
        let narrow = table([&[
            network("127.0.0.0/8"),
            name("localhost"),
            network("::1/128"),
        ]]);
        assert_eq!(route(&narrow, "127.0.0.1:80", &["127.0.0.1"]), Some((0, 1)));
        assert_eq!(route(&narrow, "[::1]:80", &["::1"]), Some((0, 1)));
        assert_eq!(
            route(&narrow, "localhost:80", &["127.0.0.1", "::1"]),
            Some((0, 2))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_targets_never_panic(text in "[a-z0-9.:\\[\\]@/%*-]{0,40}") {
            if let Ok(uri) = text.parse::<Uri>()
                && let Ok(target) = Target::parse(&uri)
            {
                let again: Uri = target.to_string().parse().unwrap();
                prop_assert_eq!(Target::parse(&again), Ok(target));
            }
        }

        #[test]
        fn what_is_permitted_is_in_a_network(bits: u32, prefix in 0_u8..=32, asked: u32) {
            let network = ipnet::Ipv4Net::new(bits.into(), prefix).unwrap().trunc();
            let table = table([&[pattern(HostPattern::Network(network.into()), 80, 80)]]);
            let address = std::net::Ipv4Addr::from(asked);
            let target = Target { host: Host::Address(address.into()), port: 80 };
            if table.find("public", &target).is_ok() {
                prop_assert!(network.contains(&address));
            }
        }
    }
}
