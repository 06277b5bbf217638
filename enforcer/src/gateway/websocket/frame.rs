//! Where frames and messages of a WebSocket byte stream begin and end (RFC 6455, section 5.2).
//! Payload is skipped, not looked at.
//!
//! ```text
//!            header complete             payload complete
//!  Header ---------------------> Payload -----------------> Header
//!    |  reserved bits or opcode, wrong mask, long or
//!    |  fragmented control frame, overlong or absurd length,
//!    v  continuation of nothing, message inside a message
//!  Violation
//! ```

/// Longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;
const MAX_CONTROL_PAYLOAD: u64 = 125;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Who sends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Frames are masked.
    Client,
    /// Frames are not.
    Server,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Text, binary or continuation.
    Data,
    /// Close, ping or pong.
    Control,
}

/// Not a WebSocket stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("reserved bits without an extension")]
    ReservedBits,
    #[error("reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    #[error("a frame without a mask")]
    Unmasked,
    #[error("a frame with a mask")]
    Masked,
    #[error("a control frame in fragments")]
    FragmentedControl,
    #[error("a control frame of {0} bytes")]
    LongControl(u64),
    #[error("a length that is not in its shortest form, or beyond 2^63")]
    Length,
    #[error("a continuation of no message")]
    StrayContinuation,
    #[error("a message inside a fragmented message")]
    NestedMessage,
}

/// How far [`FrameScanner::scan`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Bytes of the input that belong to what was scanned.
    pub(crate) length: usize,
    /// The frame whose header is now complete, if that is where the scan stopped.
    pub(crate) started: Option<FrameKind>,
}

/// Follows one direction of a connection.
#[derive(Clone, Debug)]
pub(crate) struct FrameScanner {
    sender: Sender,
    extensions: bool,
    header: [u8; MAX_HEADER],
    header_length: usize,
    payload_left: u64,
    message_open: bool,
}

impl FrameScanner {
    /// A scanner at the start of a stream; `extensions` allows the reserved bits.
    pub(crate) fn new(sender: Sender, extensions: bool) -> Self {
        Self {
            sender,
            extensions,
            header: [0; MAX_HEADER],
            header_length: 0,
            payload_left: 0,
            message_open: false,
        }
    }

    /// Scans `input` up to the end of the next header, the end of the frame, or the end of the
    /// input, whichever comes first.
    pub(crate) fn scan(&mut self, input: &[u8]) -> Result<Scanned, Violation> {
        if self.payload_left > 0 {
            let length = usize::try_from(self.payload_left)
                .unwrap_or(usize::MAX)
                .min(input.len());
            self.payload_left -= length as u64;
            return Ok(Scanned {
                length,
                started: None,
            });
        }
        for (index, byte) in input.iter().enumerate() {
            self.header[self.header_length] = *byte;
            self.header_length += 1;
            if self.header_length >= 2 && self.header_length == self.expected_header() {
                let started = self.finish_header()?;
                self.header_length = 0;
                return Ok(Scanned {
                    length: index + 1,
                    started: Some(started),
                });
            }
        }
        Ok(Scanned {
            length: input.len(),
            started: None,
        })
    }

    /// Between two frames.
    pub(crate) fn between_frames(&self) -> bool {
        self.payload_left == 0 && self.header_length == 0
    }

    /// Between two messages.
    pub(crate) fn between_messages(&self) -> bool {
        self.between_frames() && !self.message_open
    }

    fn expected_header(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn finish_header(&mut self) -> Result<FrameKind, Violation> {
        let finished = self.header[0] & 0x80 != 0;
        let opcode = self.header[0] & 0x0f;
        if self.header[0] & 0x70 != 0 && !self.extensions {
            return Err(Violation::ReservedBits);
        }
        match (self.sender, self.header[1] & 0x80 != 0) {
            (Sender::Client, false) => return Err(Violation::Unmasked),
            (Sender::Server, true) => return Err(Violation::Masked),
            (Sender::Client, true) | (Sender::Server, false) => {}
        }
        let length = self.payload_length()?;
        let kind = match opcode {
            CONTINUATION if !self.message_open => return Err(Violation::StrayContinuation),
            CONTINUATION => FrameKind::Data,
            TEXT | BINARY if self.message_open => return Err(Violation::NestedMessage),
            TEXT | BINARY => FrameKind::Data,
            CLOSE | PING | PONG if !finished => return Err(Violation::FragmentedControl),
            CLOSE | PING | PONG if length > MAX_CONTROL_PAYLOAD => {
                return Err(Violation::LongControl(length));
            }
            CLOSE | PING | PONG => FrameKind::Control,
            _ => return Err(Violation::ReservedOpcode(opcode)),
        };
        if kind == FrameKind::Data {
            self.message_open = !finished;
        }
        self.payload_left = length;
        Ok(kind)
    }

    fn payload_length(&self) -> Result<u64, Violation> {
        let extended = |bytes: usize| {
            self.header[2..2 + bytes]
                .iter()
                .fold(0_u64, |length, byte| length << 8 | u64::from(*byte))
        };
        match self.header[1] & 0x7f {
            126 if extended(2) < 126 => Err(Violation::Length),
            126 => Ok(extended(2)),
            127 if extended(8) <= 0xffff || extended(8) >> 63 != 0 => Err(Violation::Length),
            127 => Ok(extended(8)),
            short => Ok(u64::from(short)),
        }
    }
}

/// A Close frame as a server sends it. `reason` has at most 123 bytes.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    debug_assert!(reason.len() <= 123);
    let mut frame = vec![0x80 | CLOSE, (2 + reason.len()) as u8];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Frame {
        finished: bool,
        opcode: u8,
        payload: usize,
    }

    fn encode(sender: Sender, frame: &Frame) -> Vec<u8> {
        let mask = if sender == Sender::Client { 0x80 } else { 0 };
        let mut bytes = vec![u8::from(frame.finished) << 7 | frame.opcode];
        match frame.payload {
            length @ 0..126 => bytes.push(mask | length as u8),
            length @ 126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if sender == Sender::Client {
            bytes.extend_from_slice(&[0xff; 4]);
        }
        bytes.resize(bytes.len() + frame.payload, 0x88);
        bytes
    }

    /// Messages of 1 to 3 frames with control frames in between.
    fn conversation() -> impl Strategy<Value = Vec<Frame>> {
        let size = prop_oneof![0_usize..200, 65_500_usize..65_600];
        let message = proptest::collection::vec((size, proptest::option::of(0_usize..126)), 1..4)
            .prop_map(|parts| {
                let last = parts.len() - 1;
                let mut frames = Vec::new();
                for (index, (payload, ping)) in parts.into_iter().enumerate() {
                    frames.push(Frame {
                        finished: index == last,
                        opcode: if index == 0 { 2 } else { 0 },
                        payload,
                    });
                    frames.extend(ping.map(|payload| Frame {
                        finished: true,
                        opcode: 9,
                        payload,
                    }));
                }
                frames
            });
        proptest::collection::vec(message, 1..4).prop_map(|messages| messages.concat())
    }

    /// Ends of messages (offsets), and how many data frames began.
    fn walk(sender: Sender, stream: &[u8], chunks: &[usize]) -> (Vec<usize>, usize) {
        let mut scanner = FrameScanner::new(sender, false);
        let (mut ends, mut data_frames, mut offset) = (Vec::new(), 0, 0);
        let mut sizes = chunks.iter().cycle();
        while offset < stream.len() {
            let size = *sizes.next().unwrap();
            let mut chunk = &stream[offset..stream.len().min(offset + size)];
            while !chunk.is_empty() {
                let scanned = scanner.scan(chunk).unwrap();
                assert!(scanned.length > 0);
                data_frames += usize::from(scanned.started == Some(FrameKind::Data));
                chunk = &chunk[scanned.length..];
                offset += scanned.length;
                if scanner.between_messages() {
                    ends.push(offset);
                }
            }
        }
        assert!(scanner.between_messages());
        (ends, data_frames)
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(
            frames in conversation(),
            chunks in proptest::collection::vec(1_usize..5000, 1..8),
            client in any::<bool>(),
        ) {
            let sender = if client { Sender::Client } else { Sender::Server };
            let stream: Vec<u8> = frames.iter().flat_map(|frame| encode(sender, frame)).collect();
            let whole = walk(sender, &stream, &[stream.len()]);
            let chunked = walk(sender, &stream, &chunks);
            prop_assert_eq!(&whole, &chunked);
            prop_assert_eq!(whole.1, frames.iter().filter(|frame| frame.opcode < 8).count());

            let (mut open, mut offset, mut ends) = (false, 0, Vec::new());
            for frame in &frames {
                offset += encode(sender, frame).len();
                if frame.opcode < 8 {
                    open = !frame.finished;
                }
                if !open {
                    ends.push(offset);
                }
            }
            prop_assert_eq!(whole.0, ends);
        }

        #[test]
        fn arbitrary_bytes_never_panic_or_stall(stream in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut scanner = FrameScanner::new(Sender::Client, true);
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let Ok(scanned) = scanner.scan(rest) else { break };
                prop_assert!(scanned.length > 0);
                rest = &rest[scanned.length..];
            }
        }
    }

    #[test]
    fn violations_are_named() {
        let client = |bytes: &[u8]| FrameScanner::new(Sender::Client, false).scan(bytes);
        let server = |bytes: &[u8]| FrameScanner::new(Sender::Server, false).scan(bytes);
        assert_eq!(server(&[0xc1, 0]), Err(Violation::ReservedBits));
        assert_eq!(server(&[0x83, 0]), Err(Violation::ReservedOpcode(3)));
        assert_eq!(server(&[0x8b, 0]), Err(Violation::ReservedOpcode(11)));
        assert_eq!(client(&[0x81, 0]), Err(Violation::Unmasked));
        assert_eq!(server(&[0x81, 0x80, 0, 0, 0, 0]), Err(Violation::Masked));
        assert_eq!(server(&[0x09, 0]), Err(Violation::FragmentedControl));
        assert_eq!(
            server(&[0x89, 126, 0, 200]),
            Err(Violation::LongControl(200))
        );
        assert_eq!(server(&[0x82, 126, 0, 5]), Err(Violation::Length));
        assert_eq!(
            server(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            Err(Violation::Length)
        );
        assert_eq!(server(&[0x80, 0]), Err(Violation::StrayContinuation));
        let mut scanner = FrameScanner::new(Sender::Server, false);
        assert!(scanner.scan(&[0x01, 0]).is_ok());
        assert_eq!(scanner.scan(&[0x81, 0]), Err(Violation::NestedMessage));
        assert!(
            FrameScanner::new(Sender::Server, true)
                .scan(&[0xc1, 0])
                .is_ok()
        );
    }

    #[test]
    fn our_close_frame_is_one() {
        let frame = close_frame(1008, "session expired");
        let mut scanner = FrameScanner::new(Sender::Server, false);
        let scanned = scanner.scan(&frame).unwrap();
        assert_eq!(scanned.started, Some(FrameKind::Control));
        assert_eq!(
            scanner.scan(&frame[scanned.length..]).unwrap().length,
            frame.len() - 2
        );
        assert!(scanner.between_messages());
    }
}
