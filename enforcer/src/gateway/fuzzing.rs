//! The gateway's parsers, for the fuzz targets.

use super::{
    http::{frames::FrameFollower, head::HeadInspector, path::MatchPath},
    postgres,
    proxy::incoming::HeaderReader,
    websocket::frame::{FrameScanner, Sender},
};

/// Whatever the pieces, a scan takes something of a piece that is not empty, and not more than it.
pub(crate) fn scan_frames(stream: &[u8], piece: usize) {
    for sender in [Sender::Client, Sender::Server] {
        let mut scanner = FrameScanner::new(sender, false);
        'stream: for mut rest in stream.chunks(piece) {
            while !rest.is_empty() {
                let Ok(scanned) = scanner.scan(rest) else {
                    break 'stream;
                };
                assert!(scanned.length > 0 && scanned.length <= rest.len());
                rest = &rest[scanned.length..];
            }
        }
    }
}

/// Whatever the pieces, no more may pass than there is.
pub(crate) fn inspect_requests(stream: &[u8], piece: usize) {
    let mut inspector = HeadInspector::default();
    let mut buffered = Vec::new();
    for bytes in stream.chunks(piece) {
        buffered.extend_from_slice(bytes);
        let Ok(passable) = inspector.inspect(&buffered) else {
            return;
        };
        assert!(passable <= buffered.len());
        buffered.drain(..passable);
    }
}

/// The same frames are found, whatever the pieces.
pub(crate) fn follow_frames(stream: &[u8], piece: usize) {
    let (mut whole, mut in_pieces) = (Vec::new(), Vec::new());
    FrameFollower::of_client().follow(stream, |head| whole.push(head));
    let mut follower = FrameFollower::of_client();
    for bytes in stream.chunks(piece) {
        follower.follow(bytes, |head| in_pieces.push(head));
    }
    assert_eq!(whole, in_pieces);
}

/// No form of an accepted path has a segment that leads upwards.
pub(crate) fn parse_path(path: &str) {
    let Ok(parsed) = MatchPath::parse(path) else {
        return;
    };
    for form in parsed.forms() {
        assert!(
            form.split(|byte| *byte == b'/')
                .all(|segment| segment != b".." && segment != b".")
        );
    }
}

/// Whatever the pieces, no more is taken than there is.
pub(crate) fn read_announcement(stream: &[u8], piece: usize) {
    let mut reader = HeaderReader::default();
    for bytes in stream.chunks(piece) {
        match reader.take(bytes) {
            Ok((taken, None)) => assert_eq!(taken, bytes.len()),
            Ok((taken, Some(_))) => return assert!(taken <= bytes.len()),
            Err(_) => return,
        }
    }
}

/// What is read of a start-up message is written so that it is read the same; whatever the pieces,
/// a stream has the same messages.
pub(crate) fn read_postgres(stream: &[u8], piece: usize) {
    postgres::fuzzing::read_packet(stream);
    let whole = postgres::fuzzing::scan(stream, stream.len().max(1));
    assert_eq!(postgres::fuzzing::scan(stream, piece), whole);
}
