//! The header that goes out.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

use crate::config::ProxyVersion;

/// Says that a connection serves `client`, who connected to `local`.
pub(crate) fn header(version: ProxyVersion, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let ends = same_family(client, local);
    match version {
        ProxyVersion::V1 => v1::Addresses::from(ends).to_string().into_bytes(),
        ProxyVersion::V2 => {
            let command = v2::Version::Two | v2::Command::Proxy;
            let builder = v2::Builder::with_addresses(command, v2::Protocol::Stream, ends);
            // Fails only for a payload of more than 64 KiB, and there is none.
            builder.build().unwrap_or_default()
        }
    }
}

/// A header has addresses of one family: behind a proxy the two may differ.
fn same_family(client: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    if client.is_ipv4() == local.is_ipv4() {
        return (client, local);
    }
    (mapped(client), mapped(local))
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let client = "192.0.2.1:5000".parse().unwrap();
        let local = "10.0.0.1:443".parse().unwrap();
        assert_eq!(
            header(ProxyVersion::V1, client, local),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\n"
        );
        assert_eq!(
            header(ProxyVersion::V2, client, local),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x13\x88\x01\xbb"
        );
        let six = "[2001:db8::1]:5000".parse().unwrap();
        assert_eq!(
            header(ProxyVersion::V1, six, local),
            b"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 5000 443\r\n"
        );
    }
}
