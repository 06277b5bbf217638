//! Where messages end in a stream of them. Pure.
//!
//! A message is a type, a length that counts itself, and so many bytes less four. What is in
//! between is nobody's business here: a row of a gigabyte passes as it comes.

const HEADER: usize = 5;
const LENGTH: u32 = 4;

/// Follows a stream in pieces of any size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scanner {
    header: [u8; HEADER],
    /// Bytes of the header that are known; all of them within a body.
    known: usize,
    /// Bytes of the body that are still to come.
    left: u32,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Bytes that were looked at: not more than to the end of one message.
    pub(super) length: usize,
    /// The type of the message that ends there.
    pub(super) ended: Option<u8>,
}

/// A length that no message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message cannot be {0} bytes long here")]
pub(crate) struct Violation(pub(super) u32);

impl Scanner {
    /// The next byte is the first of a message.
    pub(super) fn is_between_messages(&self) -> bool {
        self.known == 0
    }

    /// Looks at bytes up to the end of a message.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, Violation> {
        let mut length = 0;
        if self.known < HEADER {
            length = bytes.len().min(HEADER - self.known);
            self.header[self.known..self.known + length].copy_from_slice(&bytes[..length]);
            self.known += length;
            if self.known < HEADER {
                return Ok(Scanned {
                    length,
                    ended: None,
                });
            }
            let [_, counted @ ..] = self.header;
            let counted = u32::from_be_bytes(counted);
            let body = counted.checked_sub(LENGTH);
            // PostgreSQL's lengths are signed.
            let body = body.filter(|_| i32::try_from(counted).is_ok());
            self.left = body.ok_or(Violation(counted))?;
        }
        let rest = bytes.len() - length;
        let taken = u32::try_from(rest).map_or(self.left, |rest| rest.min(self.left));
        self.left -= taken;
        let ended = (self.left == 0).then(|| {
            self.known = 0;
            self.header[0]
        });
        Ok(Scanned {
            length: length + taken as usize,
            ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Types of the messages that end in the stream, and whether another has begun.
    fn scan(stream: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Violation> {
        let mut scanner = Scanner::default();
        let mut types = Vec::new();
        for mut rest in stream.chunks(piece) {
            while !rest.is_empty() {
                let scanned = scanner.scan(rest)?;
                assert!(scanned.length > 0 && scanned.length <= rest.len());
                types.extend(scanned.ended);
                rest = &rest[scanned.length..];
            }
        }
        Ok((types, !scanner.is_between_messages()))
    }

    fn message(kind: u8, body: usize) -> Vec<u8> {
        let length = u32::try_from(body + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), &vec![0; body]].concat()
    }

    #[test]
    fn impossible_lengths_are_told() {
        for length in [0, 3, 0x8000_0000, u32::MAX] {
            let header = [&b"Q"[..], &u32::to_be_bytes(length)].concat();
            assert_eq!(scan(&header, 2), Err(Violation(length)));
        }
        let longest = [&b"D"[..], &i32::MAX.to_be_bytes()].concat();
        assert_eq!(scan(&longest, 5), Ok((Vec::new(), true)));
    }

    proptest! {
        #[test]
        fn messages_end_where_they_do_whatever_the_pieces(
            messages in prop::collection::vec((any::<u8>(), 0..40_usize), 0..20),
            piece in 1..60_usize,
            cut in 0..5_usize,
        ) {
            let mut stream: Vec<u8> = Vec::new();
            for (kind, body) in &messages {
                stream.extend(message(*kind, *body));
            }
            let mut types: Vec<_> = messages.iter().map(|(kind, _)| *kind).collect();
            let whole = stream.len();
            stream.truncate(whole.saturating_sub(cut));
            if stream.len() < whole {
                types.pop();
            }
            let begun = messages.last().is_some_and(|(_, body)| cut > 0 && cut < body + 5);
            prop_assert_eq!(scan(&stream, piece), Ok((types, begun)));
        }

        #[test]
        fn arbitrary_streams_are_scanned_alike_in_pieces_and_whole(
            stream in prop::collection::vec(any::<u8>(), 0..400),
            piece in 1..60_usize,
        ) {
            prop_assert_eq!(scan(&stream, piece), scan(&stream, 1000));
        }
    }
}
