//! The packets that a connection starts with, which have a length and no type. Pure.

use std::collections::BTreeSet;

/// Longest packet, as PostgreSQL has it.
pub(super) const LONGEST: usize = 10_000;
/// The newest minor version of protocol 3 that is spoken.
pub(super) const NEWEST_MINOR: u16 = 2;

/// Length of the length and of what it stands before.
const HEADER: usize = 8;
const MAJOR: u16 = 3;
/// Of the packets that are no start-up messages, where those have the major version.
const REQUEST: u16 = 1234;
const CANCEL: u16 = 5678;
const SSL: u16 = 5679;
const GSS: u16 = 5680;
/// Longest secret of a cancel key.
const LONGEST_SECRET: usize = 256;
/// Start-up parameters of this kind ask for changes of the protocol; none is spoken.
const PROTOCOL_OPTION: &str = "_pq_.";

/// The first eight bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes that follow.
    pub(super) rest: usize,
    major: u16,
    minor: u16,
}

/// What a client starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// TLS is to begin.
    SslRequest,
    /// GSSAPI encryption is to begin.
    GssRequest,
    Cancel(CancelKey),
    Startup(Startup),
}

/// What a query is cancelled with: BackendKeyData, and CancelRequest.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey {
    pub(super) process: u32,
    pub(super) secret: Vec<u8>,
}

/// A StartupMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Startup {
    /// Of protocol 3, as the client asked for it.
    pub(super) minor: u16,
    pub(super) user: String,
    /// All others, in the client's order.
    pub(super) parameters: Vec<(String, String)>,
    /// Changes of the protocol that the client would like.
    pub(super) protocol_options: Vec<String>,
}

/// Why a packet is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketFault {
    #[error("no start-up packet is {0} bytes long")]
    Length(u32),
    #[error("protocol {0}.{1} is not spoken: the versions are 3.0 to 3.{NEWEST_MINOR}")]
    Version(u16, u16),
    #[error("the start-up packet is malformed: {0}")]
    Malformed(&'static str),
    #[error("the client left within its start-up packet")]
    Incomplete,
    #[error("encryption was asked for again")]
    Repeated,
    #[error("TLS without SSLRequest needs the ALPN protocol `postgresql`")]
    NoAlpn,
}

impl Header {
    /// Takes the first eight bytes.
    pub(super) fn parse(bytes: [u8; HEADER]) -> Result<Self, PacketFault> {
        let [a, b, c, d, major @ .., x, y] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        let rest = usize::try_from(length)
            .ok()
            .filter(|length| *length <= LONGEST)
            .and_then(|length| length.checked_sub(HEADER))
            .ok_or(PacketFault::Length(length))?;
        Ok(Self {
            rest,
            major: u16::from_be_bytes(major),
            minor: u16::from_be_bytes([x, y]),
        })
    }

    /// Takes the rest.
    pub(super) fn packet(self, rest: &[u8]) -> Result<Packet, PacketFault> {
        match (self.major, self.minor, rest) {
            (REQUEST, SSL, []) => Ok(Packet::SslRequest),
            (REQUEST, GSS, []) => Ok(Packet::GssRequest),
            (REQUEST, CANCEL, rest) => CancelKey::parse(rest)
                .map(Packet::Cancel)
                .ok_or(PacketFault::Malformed("a cancel key of this length")),
            (MAJOR, minor, rest) => Startup::parse(minor, rest).map(Packet::Startup),
            (major, minor, _) => Err(PacketFault::Version(major, minor)),
        }
    }
}

impl CancelKey {
    /// As it stands in a CancelRequest and in BackendKeyData: a process id, then the secret.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (process, secret) = bytes.split_first_chunk()?;
        (4..=LONGEST_SECRET).contains(&secret.len()).then(|| Self {
            process: u32::from_be_bytes(*process),
            secret: secret.to_vec(),
        })
    }

    /// The packet that cancels.
    pub(super) fn request(&self) -> Vec<u8> {
        packet(REQUEST, CANCEL, &self.bytes())
    }

    /// What [`CancelKey::parse`] takes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.process.to_be_bytes()[..], &self.secret].concat()
    }
}

/// Keys are secrets.
impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Startup {
    fn parse(minor: u16, rest: &[u8]) -> Result<Self, PacketFault> {
        let malformed = PacketFault::Malformed;
        let text = std::str::from_utf8(rest).map_err(|_| malformed("text that is not UTF-8"))?;
        // Names and values end with a zero byte each, and the list with one more.
        let list = text.strip_suffix('\0');
        let list = list.ok_or(malformed("a list of parameters without an end"))?;
        let mut texts = list.split_terminator('\0');
        let mut names = BTreeSet::new();
        let mut user = None;
        let mut parameters = Vec::new();
        let mut protocol_options = Vec::new();
        while let Some(name) = texts.next() {
            let value = texts.next().filter(|_| !name.is_empty());
            let value = value.ok_or(malformed("a parameter without name or value"))?;
            if !names.insert(name) {
                return Err(malformed("a parameter that comes twice"));
            }
            if name == "user" {
                user = Some(value.to_owned());
            } else if name.starts_with(PROTOCOL_OPTION) {
                protocol_options.push(name.to_owned());
            } else {
                parameters.push((name.to_owned(), value.to_owned()));
            }
        }
        if !list.is_empty() && !list.ends_with('\0') {
            return Err(malformed("a value without an end"));
        }
        let user = user.filter(|user| !user.is_empty());
        Ok(Self {
            minor,
            user: user.ok_or(malformed("no user"))?,
            parameters,
            protocol_options,
        })
    }

    /// The minor version that is spoken with the client.
    pub(super) fn spoken_minor(&self) -> u16 {
        self.minor.min(NEWEST_MINOR)
    }

    /// The client asked for something that is not spoken.
    pub(super) fn asks_too_much(&self) -> bool {
        self.minor > NEWEST_MINOR || !self.protocol_options.is_empty()
    }

    /// The packet.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let user = [("user", &*self.user)];
        let others = self
            .parameters
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let mut body = Vec::new();
        for text in user.into_iter().chain(others).flat_map(<[&str; 2]>::from) {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        packet(MAJOR, self.minor, &body)
    }
}

/// The packet that asks for TLS.
pub(in crate::gateway) fn ssl_request() -> Vec<u8> {
    packet(REQUEST, SSL, &[])
}

fn packet(major: u16, minor: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let version = [major.to_be_bytes(), minor.to_be_bytes()].concat();
    [&length.to_be_bytes(), &*version, body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Packet, PacketFault> {
        let (header, rest) = bytes.split_first_chunk().unwrap();
        let header = Header::parse(*header)?;
        assert_eq!(header.rest, rest.len());
        header.packet(rest)
    }

    fn startup(minor: u16, body: &[u8]) -> Result<Packet, PacketFault> {
        parse(&packet(MAJOR, minor, body))
    }

    #[test]
    fn requests_are_told_by_their_numbers() {
        assert_eq!(
            ssl_request(),
            [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f],
            "80877103"
        );
        assert_eq!(parse(&ssl_request()), Ok(Packet::SslRequest));
        let gss = packet(REQUEST, GSS, &[]);
        assert_eq!(gss[4..], 80_877_104_u32.to_be_bytes());
        assert_eq!(parse(&gss), Ok(Packet::GssRequest));
        let key = CancelKey {
            process: 7,
            secret: vec![1, 2, 3, 4],
        };
        assert_eq!(key.request()[..8], [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e]);
        assert_eq!(parse(&key.request()), Ok(Packet::Cancel(key)));
    }

    #[test]
    fn longer_keys_are_of_protocol_3_2_and_none_is_longer_than_256_bytes() {
        let cancel = |length| {
            let key = CancelKey {
                process: 7,
                secret: vec![9; length],
            };
            parse(&key.request())
        };
        assert!(cancel(32).is_ok() && cancel(256).is_ok());
        for length in [0, 3, 257] {
            assert!(matches!(cancel(length), Err(PacketFault::Malformed(_))));
        }
    }

    #[test]
    fn a_start_up_message_is_read_and_written_alike() {
        let bytes = b"user\0alice\0database\0shop\0_pq_.x\x001\0options\0\0\0";
        let Ok(Packet::Startup(startup)) = startup(9, bytes) else {
            panic!("not read");
        };
        assert_eq!((startup.minor, startup.spoken_minor()), (9, 2));
        assert_eq!(startup.user, "alice");
        assert_eq!(startup.protocol_options, ["_pq_.x"]);
        assert!(startup.asks_too_much());
        let plain = Startup {
            minor: 0,
            protocol_options: Vec::new(),
            ..startup
        };
        assert!(!plain.asks_too_much());
        assert_eq!(parse(&plain.to_bytes()), Ok(Packet::Startup(plain)));
    }

    #[test]
    fn what_is_no_start_up_message_is_refused() {
        for (body, why) in [
            (&b""[..], "without an end"),
            (b"\0", "no user"),
            (b"database\0x\0\0", "no user"),
            (b"user\0\0\0", "no user"),
            (b"user\0alice\0", "without an end"),
            (b"user\0alice\0x\0\0", "without name or value"),
            (b"user\0alice\0\0x\0\0", "without name or value"),
            (b"user\0alice\0user\0bob\0\0", "comes twice"),
            (b"user\0alice", "without an end"),
            (b"user\0\xff\0\0", "UTF-8"),
        ] {
            let fault = startup(0, body).unwrap_err();
            assert!(fault.to_string().contains(why), "{body:?}: {fault}");
        }
    }

    #[test]
    fn other_versions_and_lengths_are_refused() {
        for (major, minor) in [(2, 0), (4, 0), (REQUEST, 1), (0, 0)] {
            let fault = parse(&packet(major, minor, b"\0"));
            assert_eq!(fault, Err(PacketFault::Version(major, minor)));
        }
        for bytes in [
            *b"GET / HT",
            [0, 0, 0, 7, 0, 3, 0, 0],
            [0, 0, 0x27, 0x11, 0, 3, 0, 0],
            [0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        ] {
            assert!(matches!(Header::parse(bytes), Err(PacketFault::Length(_))));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(bytes in prop::collection::vec(any::<u8>(), 8..200)) {
            let (header, rest) = bytes.split_first_chunk().unwrap();
            if let Ok(header) = Header::parse(*header) {
                let _ = header.packet(rest);
            }
        }

        #[test]
        fn whatever_is_read_is_written_to_be_read_the_same(
            body in "(user|a|b|_pq_.x|\0|\0\0|é){0,12}",
            minor: u16,
        ) {
            if let Ok(Packet::Startup(read)) = startup(minor, body.as_bytes()) {
                let bare = Startup { protocol_options: Vec::new(), ..read };
                prop_assert_eq!(parse(&bare.to_bytes()), Ok(Packet::Startup(bare)));
            }
        }
    }
}
