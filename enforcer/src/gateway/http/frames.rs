//! Follows the frames of an HTTP/2 connection, and counts those that carry nothing: the library
//! takes any number of them. Sans I/O.
//!
//! | frame | allowance |
//! | --- | --- |
//! | DATA with data, HEADERS, either way | + 20: some clients open both windows for every 4 KiB that they read, eight times for a full frame |
//! | SETTINGS, PING, PRIORITY, WINDOW_UPDATE, unknown ones, of the client | - 1 |
//! | the others | 0: the library counts them, or they end the connection |
//!
//! It starts and is kept at most at 1,000, and grows by 100 a second.

use std::time::Duration;

use crate::clock::BootInstant;

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const MOST_ALLOWED: u32 = 1_000;
const EARNED: u32 = 20;
const GROWTH_INTERVAL: Duration = Duration::from_millis(10);

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) stream: u32,
}

/// Follows the frames of one direction.
#[derive(Debug)]
pub(crate) struct FrameFollower {
    /// What is left of a payload.
    left: usize,
    header: [u8; HEADER],
    /// How much of the next header is there.
    filled: usize,
}

impl FrameFollower {
    /// What the client says.
    pub(crate) fn of_client() -> Self {
        Self {
            left: PREFACE,
            ..Self::of_server()
        }
    }

    /// What the server says.
    pub(crate) fn of_server() -> Self {
        Self {
            left: 0,
            header: [0; HEADER],
            filled: 0,
        }
    }

    /// Follows the next bytes, and shows each frame whose header ends in them.
    pub(crate) fn follow(&mut self, mut bytes: &[u8], mut show: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                self.left -= length;
                bytes = &bytes[length..];
                continue;
            }
            let length = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if self.filled == HEADER {
                let head = parse(self.header);
                self.left = head.length;
                self.filled = 0;
                show(head);
            }
        }
    }

    /// The last frame is whole, and no other has begun.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.left == 0 && self.filled == 0
    }
}

fn parse([a, b, c, kind, _, w, x, y, z]: [u8; HEADER]) -> FrameHead {
    FrameHead {
        length: u32::from_be_bytes([0, a, b, c]) as usize,
        kind,
        stream: u32::from_be_bytes([w, x, y, z]) & (u32::MAX >> 1),
    }
}

/// How many frames that carry nothing a client may still send.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u32,
    grown_at: BootInstant,
}

/// A client has sent too many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Allowance {
    pub(crate) fn new(now: BootInstant) -> Self {
        Self {
            left: MOST_ALLOWED,
            grown_at: now,
        }
    }

    /// The client has sent a frame.
    pub(crate) fn received(&mut self, head: FrameHead, now: BootInstant) -> Result<(), Exhausted> {
        match head.kind {
            DATA | HEADERS => self.exchanged(head),
            RST_STREAM | PUSH_PROMISE | GOAWAY | CONTINUATION => {}
            _ => {
                self.grow(now);
                self.left = self.left.checked_sub(1).ok_or(Exhausted)?;
            }
        }
        Ok(())
    }

    /// A frame has been sent to the client.
    pub(crate) fn sent(&mut self, head: FrameHead) {
        if matches!(head.kind, DATA | HEADERS) {
            self.exchanged(head);
        }
    }

    fn exchanged(&mut self, head: FrameHead) {
        if head.length > 0 {
            self.left = (self.left + EARNED).min(MOST_ALLOWED);
        }
    }

    fn grow(&mut self, now: BootInstant) {
        let passed = now.saturating_duration_since(self.grown_at);
        let intervals = passed.as_millis() / GROWTH_INTERVAL.as_millis();
        if intervals > 0 {
            let grown = u32::try_from(intervals).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(grown).min(MOST_ALLOWED);
            self.grown_at = now;
        }
    }
}

/// GOAWAY for a client that is to calm down; `last_stream` is the last that was seen.
pub(crate) fn calm_down(last_stream: u32) -> Vec<u8> {
    const WHY: &[u8] = b"too_many_control_frames";
    let mut frame = vec![0, 0, 8 + WHY.len() as u8, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend(last_stream.to_be_bytes());
    frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend(WHY);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::sessions::tests::at;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0xff]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(vec![0xaa; length]);
        bytes
    }

    fn head(kind: u8, length: usize) -> FrameHead {
        FrameHead {
            length,
            kind,
            stream: 0,
        }
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec((0_u8..12, 0_u32..9, 0_usize..40), 0..9),
            cuts in prop::collection::vec(1_usize..30, 1..9),
        ) {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            for (kind, stream, length) in &frames {
                bytes.extend(frame(*kind, *stream | 1 << 31, *length));
            }
            let mut follower = FrameFollower::of_client();
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at(rest.len().min(*cut));
                follower.follow(part, |head| found.push((head.kind, head.stream, head.length)));
                rest = behind;
            }
            prop_assert_eq!(found, frames);
            prop_assert!(follower.is_between_frames());
        }
    }

    #[test]
    fn between_frames_is_not_in_the_middle_of_one() {
        let mut follower = FrameFollower::of_server();
        let bytes = frame(PING, 0, 8);
        for byte in &bytes[..bytes.len() - 1] {
            follower.follow(&[*byte], |_| {});
            assert!(!follower.is_between_frames());
        }
        follower.follow(&bytes[bytes.len() - 1..], |_| {});
        assert!(follower.is_between_frames());
    }

    #[test]
    fn frames_that_carry_nothing_are_used_up() {
        for kind in [SETTINGS, PING, 2, 8, 0x16] {
            let mut allowance = Allowance::new(at(1));
            for _ in 0..MOST_ALLOWED {
                assert_eq!(allowance.received(head(kind, 8), at(1)), Ok(()));
            }
            assert_eq!(allowance.received(head(kind, 8), at(1)), Err(Exhausted));
            // A second is worth a hundred.
            for _ in 0..100 {
                assert_eq!(allowance.received(head(kind, 8), at(2)), Ok(()));
            }
            assert_eq!(allowance.received(head(kind, 8), at(2)), Err(Exhausted));
        }
    }

    #[test]
    fn who_exchanges_something_goes_on() {
        let mut allowance = Allowance::new(at(1));
        for _ in 0..MOST_ALLOWED * 2 {
            allowance.sent(head(DATA, 1));
            for kind in [8, 8, PING, SETTINGS].repeat(5) {
                assert_eq!(allowance.received(head(kind, 8), at(1)), Ok(()));
            }
        }
        // The last exchange has used what it earned.
        for _ in 0..MOST_ALLOWED - EARNED {
            // Answers to what asks for nothing earn nothing, nor does empty data.
            allowance.sent(head(PING, 8));
            allowance.sent(head(DATA, 0));
            assert_eq!(allowance.received(head(DATA, 0), at(1)), Ok(()));
            assert_eq!(allowance.received(head(PING, 8), at(1)), Ok(()));
        }
        assert_eq!(allowance.received(head(PING, 8), at(1)), Err(Exhausted));
    }

    #[test]
    fn calm_down_is_a_whole_frame() {
        let mut follower = FrameFollower::of_server();
        let mut heads = Vec::new();
        follower.follow(&calm_down(7), |head| heads.push(head.kind));
        assert_eq!(heads, [GOAWAY]);
        assert!(follower.is_between_frames());
    }
}
