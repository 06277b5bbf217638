//! Which addresses may be connected to. Pure.
//!
//! A name is only as good as what it resolves to: an answer of the name system, or a redirect, must
//! not lead to services of this machine or of its cloud.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// How near an address is, from far to near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nearness {
    /// The Internet.
    Global,
    /// A private network (RFC 1918, RFC 6598, RFC 4193).
    Private,
    /// Where clouds have their metadata, if that is not on the link.
    Metadata,
    /// The link, where clouds have their metadata (RFC 3927, RFC 4291).
    LinkLocal,
    /// This machine.
    Loopback,
}

impl fmt::Display for Nearness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Private => "private",
            Self::Metadata => "cloud metadata",
            Self::LinkLocal => "link-local",
            Self::Loopback => "loopback",
        })
    }
}

/// Metadata services that are off the link: they hand out the machine's credentials all the same.
const METADATA: [IpAddr; 3] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Amazon EC2.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Google Compute Engine.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forbidden {
    /// Nobody's own.
    #[error("{0} is no host's address")]
    NoHost(IpAddr),
    /// Loopback, link-local or a metadata service, and in none of the networks that are allowed.
    #[error("{0} is a {1} address, which `allow_networks` does not name")]
    Near(IpAddr, Nearness),
    /// A redirect must not lead nearer than where it came from.
    #[error("{0} is a {1} address, and a {2} one redirected there")]
    Nearer(IpAddr, Nearness, Nearness),
}

/// How near `address` is, if it may be connected to. `redirected_from` is how near the server was
/// that named it.
pub(super) fn admit(
    address: IpAddr,
    allowed: &[IpNet],
    redirected_from: Option<Nearness>,
) -> Result<Nearness, Forbidden> {
    let address = canonical(address);
    let nearness = nearness(address).ok_or(Forbidden::NoHost(address))?;
    if nearness >= Nearness::Metadata && !allowed.iter().any(|network| network.contains(&address)) {
        return Err(Forbidden::Near(address, nearness));
    }
    match redirected_from {
        Some(from) if nearness > from => Err(Forbidden::Nearer(address, nearness, from)),
        _ => Ok(nearness),
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does: mapped (RFC 4291) or translated by
/// NAT64 (RFC 6052).
fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
            }
            _ => IpAddr::V6(v6),
        },
        v4 => v4,
    }
}

fn nearness(address: IpAddr) -> Option<Nearness> {
    match address {
        metadata if METADATA.contains(&metadata) => Some(Nearness::Metadata),
        IpAddr::V4(v4) => nearness_v4(v4),
        IpAddr::V6(v6) => nearness_v6(v6),
    }
}

fn nearness_v4(address: Ipv4Addr) -> Option<Nearness> {
    let [first, second, ..] = address.octets();
    // "This network", multicast, reserved and broadcast.
    if first == 0 || first >= 224 {
        None
    } else if address.is_loopback() {
        Some(Nearness::Loopback)
    } else if address.is_link_local() {
        Some(Nearness::LinkLocal)
    } else if address.is_private() || (first == 100 && second & 0xc0 == 64) {
        Some(Nearness::Private)
    } else {
        Some(Nearness::Global)
    }
}

fn nearness_v6(address: Ipv6Addr) -> Option<Nearness> {
    if address.is_loopback() {
        Some(Nearness::Loopback)
    } else if address.is_unicast_link_local() {
        Some(Nearness::LinkLocal)
    } else if address.is_unique_local() {
        Some(Nearness::Private)
    } else if address.is_multicast() || address.segments()[..6] == [0; 6] {
        // The latter: unspecified, or compatible with an IPv4 address (deprecated).
        None
    } else {
        Some(Nearness::Global)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(address: &str, allowed: &[&str]) -> Result<Nearness, Forbidden> {
        let allowed: Vec<_> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        admit(address.parse().unwrap(), &allowed, None)
    }

    #[test]
    fn far_and_private_addresses_are_admitted_and_near_ones_are_not() {
        for (address, nearness) in [
            ("192.0.2.1", Nearness::Global),
            ("100.128.0.1", Nearness::Global),
            ("2001:db8::1", Nearness::Global),
            ("10.0.0.1", Nearness::Private),
            ("172.16.0.1", Nearness::Private),
            ("192.168.1.1", Nearness::Private),
            ("100.64.0.1", Nearness::Private),
            ("100.100.100.201", Nearness::Private),
            ("fd00::1", Nearness::Private),
            ("::ffff:10.0.0.1", Nearness::Private),
        ] {
            assert_eq!(admitted(address, &[]), Ok(nearness), "{address}");
        }
        for (address, nearness) in [
            ("127.0.0.1", Nearness::Loopback),
            ("127.255.255.255", Nearness::Loopback),
            ("::1", Nearness::Loopback),
            ("::ffff:127.0.0.1", Nearness::Loopback),
            ("64:ff9b::7f00:1", Nearness::Loopback),
            ("169.254.169.254", Nearness::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Nearness::LinkLocal),
            ("fe80::1", Nearness::LinkLocal),
            ("100.100.100.200", Nearness::Metadata),
            ("::ffff:100.100.100.200", Nearness::Metadata),
            ("fd00:ec2::254", Nearness::Metadata),
            ("fd20:ce::254", Nearness::Metadata),
        ] {
            let forbidden = admitted(address, &["192.0.2.0/24"]);
            let near = |it: Forbidden| matches!(it, Forbidden::Near(_, found) if found == nearness);
            assert!(forbidden.is_err_and(near), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::7f00:1",
            "ff02::1",
        ] {
            let forbidden = admitted(address, &["0.0.0.0/0", "::/0"]);
            assert!(
                matches!(forbidden, Err(Forbidden::NoHost(_))),
                "{address}: {forbidden:?}"
            );
        }
    }

    #[test]
    fn near_ones_are_admitted_where_their_network_is_named() {
        let allowed = ["127.0.0.1/32", "fe80::/10", "fd00:ec2::254/128"];
        assert_eq!(admitted("127.0.0.1", &allowed), Ok(Nearness::Loopback));
        assert_eq!(
            admitted("::ffff:127.0.0.1", &allowed),
            Ok(Nearness::Loopback)
        );
        assert_eq!(admitted("fe80::7", &allowed), Ok(Nearness::LinkLocal));
        assert_eq!(admitted("fd00:ec2::254", &allowed), Ok(Nearness::Metadata));
        assert!(admitted("127.0.0.2", &allowed).is_err());
        assert!(admitted("::1", &allowed).is_err());
    }

    #[test]
    fn a_redirect_leads_as_far_away_or_farther() {
        let allowed = ["127.0.0.0/8".parse().unwrap()];
        let hop = |from, to: &str| admit(to.parse().unwrap(), &allowed, Some(from)).is_ok();
        assert!(hop(Nearness::Global, "192.0.2.1"));
        assert!(!hop(Nearness::Global, "10.0.0.1"));
        assert!(!hop(Nearness::Private, "127.0.0.1"));
        assert!(hop(Nearness::Private, "192.0.2.1"));
        assert!(hop(Nearness::Loopback, "127.0.0.1"));
    }
}
