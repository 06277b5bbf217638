//! Frames of HTTP/2 (RFC 9113, section 4.1), as right or as wrong as a test wants them.

use anyhow::{Result, ensure};

/// What a client says first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header.
pub const HEADER: usize = 9;

/// Types of frames.
#[expect(missing_docs, reason = "the names of RFC 9113, section 6")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[expect(missing_docs, reason = "the names of RFC 9113, section 6")]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Parameters of SETTINGS.
#[expect(missing_docs, reason = "the names of RFC 9113, section 6.5.2")]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 9113, section 7")]
pub enum Code {
    NoError = 0,
    ProtocolError = 1,
    FlowControlError = 3,
    StreamClosed = 5,
    FrameSizeError = 6,
    RefusedStream = 7,
    Cancel = 8,
    CompressionError = 9,
    ConnectError = 10,
    EnhanceYourCalm = 11,
}

/// A frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, with the reserved bit.
    pub stream: u32,
    /// What follows its header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Any frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// Data that more follows.
    pub fn data(stream: u32, data: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, 0, stream, data)
    }

    /// The last data of a stream.
    pub fn last_data(stream: u32, data: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, flag::END_STREAM, stream, data)
    }

    /// A whole header block.
    pub fn headers(stream: u32, block: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::HEADERS, flag::END_HEADERS, stream, block)
    }

    /// A stream's only HEADERS.
    pub fn only_headers(stream: u32, block: impl Into<Vec<u8>>) -> Self {
        let flags = flag::END_HEADERS | flag::END_STREAM;
        Self::new(kind::HEADERS, flags, stream, block)
    }

    /// A stream's priority, which nobody heeds.
    pub fn priority(stream: u32, dependency: u32) -> Self {
        let payload = [&dependency.to_be_bytes()[..], &[16]].concat();
        Self::new(kind::PRIORITY, 0, stream, payload)
    }

    /// The end of a stream.
    pub fn reset(stream: u32, code: Code) -> Self {
        let payload = (code as u32).to_be_bytes();
        Self::new(kind::RST_STREAM, 0, stream, payload)
    }

    /// Settings.
    pub fn settings(settings: &[(u16, u32)]) -> Self {
        let bytes =
            |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload = settings.iter().flat_map(bytes).collect::<Vec<_>>();
        Self::new(kind::SETTINGS, 0, 0, payload)
    }

    /// A question that is answered at once.
    pub fn ping(payload: [u8; 8]) -> Self {
        Self::new(kind::PING, 0, 0, payload)
    }

    /// Room for so many bytes more.
    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    /// More of a header block, and its end if `last`.
    pub fn continuation(stream: u32, block: impl Into<Vec<u8>>, last: bool) -> Self {
        let flags = if last { flag::END_HEADERS } else { 0 };
        Self::new(kind::CONTINUATION, flags, stream, block)
    }

    /// The same with other flags.
    pub fn with_flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Everything but the payload, and the payload's length.
    pub(super) fn decode_header(bytes: &[u8]) -> Result<(Self, usize)> {
        ensure!(bytes.len() == HEADER, "a frame's header has {HEADER} bytes");
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let frame = Self::new(bytes[3], bytes[4], stream, Vec::new());
        Ok((frame, length as usize))
    }

    /// The number at this place of the payload.
    pub fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// A header block without compression: every field literal, none remembered (RFC 7541, section
/// 6.2.2), so that a field may be anything.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            string(&mut block, text.as_bytes());
        }
    }
    block
}

/// A string literal that is not Huffman-coded (RFC 7541, section 5.2).
pub fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    integer(block, 0, 7, bytes.len());
    block.extend(bytes);
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
pub fn integer(block: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let most = (1 << prefix) - 1;
    if value < most {
        return block.push(pattern | value as u8);
    }
    block.push(pattern | most as u8);
    let mut left = value - most;
    while left >= 128 {
        block.push((left % 128) as u8 | 128);
        left /= 128;
    }
    block.push(left as u8);
}
