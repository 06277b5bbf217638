//! A header at the start of a connection. Sans I/O: what is there in, "so much is the header's"
//! out.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// Longest header. One of version 1 has 107 bytes at most; after the addresses of version 2 there
/// may be anything up to 64 KiB, of which nothing is used.
const MAX_LENGTH: usize = 4096;
const MAX_V1_LENGTH: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";
/// Signature, version and command, family and protocol; then the length of what follows.
const V2_LENGTH_AT: usize = 14;
const V2_FIXED: usize = 16;

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderFault {
    #[error("there is none")]
    Missing,
    #[error("it ends too early")]
    Incomplete,
    #[error("it is too long")]
    TooLong,
    #[error("it is malformed")]
    Malformed,
    #[error("it announces something other than a TCP connection")]
    NoStream,
}

/// What a proxy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// It connects for this client.
    Client(SocketAddr),
    /// It connects for itself, or for somebody without an address.
    Own,
}

/// Collects a header.
#[derive(Debug, Default)]
pub(crate) struct HeaderReader {
    bytes: Vec<u8>,
}

impl HeaderReader {
    /// Takes what belongs to the header from the start of `available`: how much that is, and what
    /// the header says once it is complete.
    pub(crate) fn take(
        &mut self,
        available: &[u8],
    ) -> Result<(usize, Option<Announcement>), HeaderFault> {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(available);
        match end(&self.bytes)? {
            None => Ok((available.len(), None)),
            Some(end) => {
                self.bytes.truncate(end);
                let announcement = parse(&self.bytes)?;
                Ok((end.saturating_sub(before), Some(announcement)))
            }
        }
    }

    /// There will be no more bytes.
    pub(crate) fn end(&self) -> Result<(), HeaderFault> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(HeaderFault::Incomplete)
        }
    }
}

/// Where the header ends, if that is known yet.
fn end(bytes: &[u8]) -> Result<Option<usize>, HeaderFault> {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        let Some(&[high, low]) = bytes.get(V2_LENGTH_AT..V2_FIXED) else {
            return Ok(None);
        };
        let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
        return match length {
            length if length > MAX_LENGTH => Err(HeaderFault::TooLong),
            length => Ok((bytes.len() >= length).then_some(length)),
        };
    }
    if !begins(bytes, V1_PREFIX) {
        return Err(HeaderFault::Missing);
    }
    let line = &bytes[..bytes.len().min(MAX_V1_LENGTH)];
    match line.iter().position(|byte| *byte == b'\n') {
        Some(at) => Ok(Some(at + 1)),
        None if bytes.len() >= MAX_V1_LENGTH => Err(HeaderFault::TooLong),
        None => Ok(None),
    }
}

/// Whether `bytes` begin like this, as far as they go.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    let length = bytes.len().min(prefix.len());
    bytes[..length] == prefix[..length]
}

fn parse(header: &[u8]) -> Result<Announcement, HeaderFault> {
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        return parse_v2(header);
    }
    let header = v1::Header::try_from(header).map_err(|_| HeaderFault::Malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(it) => client(it.source_address, it.source_port),
        v1::Addresses::Tcp6(it) => client(it.source_address, it.source_port),
        v1::Addresses::Unknown => Announcement::Own,
    })
}

fn parse_v2(header: &[u8]) -> Result<Announcement, HeaderFault> {
    let header = v2::Header::try_from(header).map_err(|_| HeaderFault::Malformed)?;
    if header.command == v2::Command::Local {
        return Ok(Announcement::Own);
    }
    if header.protocol == v2::Protocol::Datagram {
        return Err(HeaderFault::NoStream);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(it) => client(it.source_address, it.source_port),
        v2::Addresses::IPv6(it) => client(it.source_address, it.source_port),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => Announcement::Own,
    })
}

fn client(ip: impl Into<std::net::IpAddr>, port: u16) -> Announcement {
    Announcement::Client(SocketAddr::new(ip.into(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{config::ProxyVersion, gateway::proxy::header};

    /// Reads `bytes` in pieces of `size`: what the header says and what follows it.
    fn read(bytes: &[u8], size: usize) -> Result<(Announcement, &[u8]), HeaderFault> {
        let mut reader = HeaderReader::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let available = &rest[..rest.len().min(size)];
            let (taken, announcement) = reader.take(available)?;
            rest = &rest[taken..];
            if let Some(announcement) = announcement {
                return Ok((announcement, rest));
            }
            assert_eq!(taken, available.len());
        }
        Err(HeaderFault::Incomplete)
    }

    fn v2(fixed: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &fixed, &length, payload].concat()
    }

    #[test]
    fn headers_of_both_versions_are_read_and_nothing_after_them() {
        let four = Announcement::Client("192.0.2.1:5000".parse().unwrap());
        let six = Announcement::Client("[2001:db8::1]:5000".parse().unwrap());
        let addresses = [192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 1, 0xbb];
        let with_tlv = [&addresses[..], &[4, 0, 1, 42]].concat();
        for (header, announcement) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\n".to_vec(), four),
            (b"PROXY TCP6 2001:db8::1 ::1 5000 443\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), Announcement::Own),
            (v2([0x21, 0x11], &addresses), four),
            (v2([0x21, 0x11], &with_tlv), four),
            (v2([0x20, 0x11], &addresses), Announcement::Own),
            (v2([0x20, 0], &[]), Announcement::Own),
            (v2([0x21, 0x31], &[0; 216]), Announcement::Own),
        ] {
            let bytes = [&header[..], b"\x16\x03\x01\r\n"].concat();
            for size in [1, 2, 13, 1000] {
                let read = read(&bytes, size).unwrap();
                assert_eq!(read, (announcement, &b"\x16\x03\x01\r\n"[..]));
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_from_what_is_a_bad_one() {
        for (bytes, fault) in [
            (b"\x16\x03\x01\x02\x00".to_vec(), HeaderFault::Missing),
            (b"GET / HTTP/1.1\r\n".to_vec(), HeaderFault::Missing),
            (b"PROXX".to_vec(), HeaderFault::Missing),
            (b"PROXY TCP4 a b c d\r\n".to_vec(), HeaderFault::Malformed),
            (b"PROXY UNKNOWN\n".to_vec(), HeaderFault::Malformed),
            (
                [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
                HeaderFault::TooLong,
            ),
            (v2([0x21, 0x11], &[0; 5000]), HeaderFault::TooLong),
            (v2([0x21, 0x11], &[0; 4]), HeaderFault::Malformed),
            (v2([0x31, 0x11], &[0; 12]), HeaderFault::Malformed),
            (v2([0x21, 0x12], &[0; 12]), HeaderFault::NoStream),
            (b"PROXY TCP4".to_vec(), HeaderFault::Incomplete),
        ] {
            assert_eq!(read(&bytes, 7).unwrap_err(), fault, "{bytes:?}");
        }
        assert_eq!(HeaderReader::default().end(), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            client: SocketAddr, local: SocketAddr, text: bool, size in 1_usize..64
        ) {
            let version = if text { ProxyVersion::V1 } else { ProxyVersion::V2 };
            let written = header(version, client, local);
            let (announcement, rest) = read(&written, size).unwrap();
            prop_assert!(rest.is_empty());
            let Announcement::Client(read) = announcement else {
                panic!("{announcement:?}");
            };
            prop_assert_eq!(read.ip().to_canonical(), client.ip().to_canonical());
            prop_assert_eq!(read.port(), client.port());
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            start in 0_usize..3, bytes: Vec<u8>, size in 1_usize..64
        ) {
            let start: &[u8] = [&b""[..], V1_PREFIX, v2::PROTOCOL_PREFIX][start];
            let _ = read(&[start, &bytes].concat(), size);
        }
    }
}
