//! The parsers, for the fuzz targets.

use super::{
    exchange::Exchange,
    packet::{Header, Packet, Startup},
    scanner::{Scanner, Violation},
};

/// A packet, and what it is written as.
pub(crate) fn read_packet(bytes: &[u8]) {
    let parse = |bytes: &[u8]| {
        let (header, rest) = bytes.split_first_chunk()?;
        Header::parse(*header).ok()?.packet(rest).ok()
    };
    if let Some(Packet::Startup(startup)) = parse(bytes) {
        let startup = Startup {
            protocol_options: Vec::new(),
            ..startup
        };
        let again = parse(&startup.to_bytes());
        assert_eq!(again, Some(Packet::Startup(startup)));
    }
}

/// Types of the messages in a stream that comes in pieces, and whether the upstream would be busy
/// if they were sent and received in turn.
pub(crate) fn scan(stream: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Violation> {
    let mut scanner = Scanner::default();
    let mut exchange = Exchange::default();
    let mut types = Vec::new();
    for mut rest in stream.chunks(piece) {
        while !rest.is_empty() {
            let scanned = scanner.scan(rest)?;
            assert!(scanned.length > 0 && scanned.length <= rest.len());
            if let Some(kind) = scanned.ended {
                match types.len() % 2 {
                    0 => exchange.sent(kind),
                    _ => exchange.received(kind),
                }
                types.push(kind);
            }
            rest = &rest[scanned.length..];
        }
    }
    Ok((types, exchange.is_busy()))
}
