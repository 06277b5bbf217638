//! Framing of a client's requests, more strictly than the HTTP library: whatever two servers
//! could read differently is refused before the library sees it. Sans I/O: bytes in, "so many may
//! pass" out.
//!
//! ```text
//!         head complete, no body                 "switching protocols" sent
//!   Head ------------------------> Head    any ------------------------------> Raw
//!    |  Content-Length                            |
//!    +------------------> Length --- all read --> Head
//!    |  Transfer-Encoding: chunked                |
//!    +------------------> Chunks --- last one --> Head
//!    |  CONNECT
//!    +------------------> Held ---- granted ----> Raw
//!    |  anything doubtful
//!    +------------------> fault: nothing passes any more
//! ```

use http::{Method, Uri};

/// Longest head.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Most header fields.
pub(crate) const MAX_HEADERS: usize = 100;
const MAX_CHUNK_LINE: usize = 4096;
const MAX_TRAILERS: usize = 16 * 1024;

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadFault {
    #[error("the request head is longer than 64 KiB")]
    TooLarge,
    #[error("the request has more than 100 header fields")]
    TooManyHeaders,
    #[error("a line that does not end with carriage return and line feed")]
    LineEnding,
    #[error("the request head is malformed: {0}")]
    Syntax(httparse::Error),
    #[error("a field value with space around it")]
    PaddedValue,
    #[error("the request target is malformed")]
    Target,
    #[error("both Content-Length and Transfer-Encoding")]
    TwoFramings,
    #[error("several Content-Length fields")]
    SeveralLengths,
    #[error("a Content-Length that is not a number")]
    InvalidLength,
    #[error("a Transfer-Encoding other than chunked")]
    TransferEncoding,
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    EncodedHttp10,
    #[error("no Host field")]
    MissingHost,
    #[error("several Host fields")]
    SeveralHosts,
    #[error("a malformed chunk")]
    Chunk,
    #[error("a CONNECT request with a body")]
    ConnectWithBody,
}

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct HeadInspector {
    state: State,
    fault: Option<HeadFault>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In a head, of which so many bytes have been looked at.
    Head {
        scanned: usize,
    },
    Length(u64),
    Chunks(Chunk),
    /// After a CONNECT: what follows is not HTTP, if the request is granted.
    Held,
    Raw,
}

impl Default for State {
    fn default() -> Self {
        Self::Head { scanned: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Size { digits: u8, size: u64 },
    Extension { length: usize, size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { length: usize, line: usize },
    TrailerLf { length: usize, line: usize },
}

impl HeadInspector {
    /// How many bytes at the start of `buffered` may pass. `buffered` is what has not passed yet;
    /// bytes that may not are shown again, with more behind them.
    pub(crate) fn inspect(&mut self, buffered: &[u8]) -> Result<usize, HeadFault> {
        let mut passed = 0;
        while self.fault.is_none() && passed < buffered.len() {
            match self.step(&buffered[passed..]) {
                Ok(0) => break,
                Ok(length) => passed += length,
                Err(fault) => self.fault = Some(fault),
            }
        }
        match self.fault {
            Some(fault) if passed == 0 => Err(fault),
            _ => Ok(passed),
        }
    }

    /// How many bytes may pass unseen.
    pub(crate) fn unseen(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Chunks(Chunk::Data { left }) => left,
            State::Raw => u64::MAX,
            State::Head { .. } | State::Chunks(_) | State::Held => 0,
        }
    }

    /// `length` bytes have passed unseen.
    pub(crate) fn pass(&mut self, length: usize) {
        let length = length as u64;
        self.state = match self.state {
            State::Length(left) if left <= length => State::default(),
            State::Length(left) => State::Length(left - length),
            State::Chunks(Chunk::Data { left }) if left <= length => State::Chunks(Chunk::DataCr),
            State::Chunks(Chunk::Data { left }) => State::Chunks(Chunk::Data {
                left: left - length,
            }),
            other => other,
        };
    }

    /// What follows a CONNECT is held back until it is granted.
    pub(crate) fn is_holding(&self) -> bool {
        matches!(self.state, State::Held)
    }

    /// What follows is not HTTP.
    pub(crate) fn become_raw(&mut self) {
        self.state = State::Raw;
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, HeadFault> {
        match self.state {
            State::Raw => Ok(bytes.len()),
            State::Held => Ok(0),
            State::Length(_) | State::Chunks(Chunk::Data { .. }) => {
                let length = usize::try_from(self.unseen())
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.pass(length);
                Ok(length)
            }
            State::Chunks(chunk) => {
                self.state = match chunk.next(bytes[0])? {
                    Some(chunk) => State::Chunks(chunk),
                    None => State::default(),
                };
                Ok(1)
            }
            State::Head { scanned } => self.head(bytes, scanned),
        }
    }

    fn head(&mut self, bytes: &[u8], scanned: usize) -> Result<usize, HeadFault> {
        if bytes.starts_with(b"\r\n") {
            self.state = State::default();
            return Ok(2);
        }
        let mut end = None;
        for (index, byte) in bytes.iter().enumerate().skip(scanned) {
            let before = index.checked_sub(1).map(|index| bytes[index]);
            match (before, byte) {
                (Some(b'\r'), b'\n') if bytes[..=index].ends_with(b"\r\n\r\n") => {
                    end = Some(index + 1);
                    break;
                }
                (Some(b'\r'), b'\n') => {}
                (Some(b'\r'), _) | (_, b'\n') => return Err(HeadFault::LineEnding),
                _ => {}
            }
            if index + 1 >= MAX_HEAD {
                return Err(HeadFault::TooLarge);
            }
        }
        let Some(end) = end else {
            self.state = State::Head {
                scanned: bytes.len(),
            };
            return Ok(0);
        };
        self.state = framing(&bytes[..end])?;
        Ok(end)
    }
}

/// What follows a head.
fn framing(head: &[u8]) -> Result<State, HeadFault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(HeadFault::Syntax(httparse::Error::NewLine)),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::TooManyHeaders),
        Err(error) => return Err(HeadFault::Syntax(error)),
    }
    let method = request.method.unwrap_or_default();
    let connect = method == "CONNECT";
    Method::from_bytes(method.as_bytes()).map_err(|_| HeadFault::Syntax(httparse::Error::Token))?;
    let target = request.path.unwrap_or_default();
    target.parse::<Uri>().map_err(|_| HeadFault::Target)?;

    let values = |name: &str| {
        let mut values = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii());
        (values.next(), values.next().is_some())
    };
    let http10 = request.version == Some(0);
    match values("host") {
        (_, true) => return Err(HeadFault::SeveralHosts),
        (None, _) if !http10 => return Err(HeadFault::MissingHost),
        _ => {}
    }
    let (length, several_lengths) = values("content-length");
    match values("transfer-encoding") {
        (None, _) => {}
        (Some(_), _) if length.is_some() => return Err(HeadFault::TwoFramings),
        (Some(_), _) if http10 => return Err(HeadFault::EncodedHttp10),
        (Some(_), _) if connect => return Err(HeadFault::ConnectWithBody),
        (Some(coding), false) if coding.eq_ignore_ascii_case(b"chunked") => {
            return Ok(State::Chunks(Chunk::START));
        }
        (Some(_), _) => return Err(HeadFault::TransferEncoding),
    }
    if several_lengths {
        return Err(HeadFault::SeveralLengths);
    }
    match length.map(content_length) {
        None | Some(Some(0)) if connect => Ok(State::Held),
        None | Some(Some(0)) => Ok(State::default()),
        Some(Some(_)) if connect => Err(HeadFault::ConnectWithBody),
        Some(Some(length)) => Ok(State::Length(length)),
        Some(None) => Err(HeadFault::InvalidLength),
    }
}

/// What a Content-Length field says: digits alone, up to 2^63 - 1.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = str::from_utf8(value).ok()?.parse().ok()?;
    (length <= i64::MAX.unsigned_abs()).then_some(length)
}

impl Chunk {
    const START: Self = Self::Size { digits: 0, size: 0 };

    /// The state after `byte`; `None` after the last byte of the body.
    fn next(self, byte: u8) -> Result<Option<Self>, HeadFault> {
        let next = match (self, byte) {
            (Self::Size { digits: 0..16, .. }, byte) if byte.is_ascii_hexdigit() => {
                let Self::Size { digits, size } = self else {
                    return Err(HeadFault::Chunk);
                };
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeLf { size },
            (Self::Size { digits: 1.., size }, b';') => Self::Extension { length: 0, size },
            (Self::Extension { size, .. }, b'\r') => Self::SizeLf { size },
            (Self::Extension { length, size }, byte)
                if byte != b'\n' && length < MAX_CHUNK_LINE =>
            {
                Self::Extension {
                    length: length + 1,
                    size,
                }
            }
            (Self::SizeLf { size: 0 }, b'\n') => Self::Trailer { length: 0, line: 0 },
            (Self::SizeLf { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::Trailer { length, line }, b'\r') => Self::TrailerLf { length, line },
            (Self::Trailer { length, line }, byte) if byte != b'\n' && length < MAX_TRAILERS => {
                Self::Trailer {
                    length: length + 1,
                    line: line + 1,
                }
            }
            (Self::TrailerLf { line: 0, .. }, b'\n') => return Ok(None),
            (Self::TrailerLf { length, .. }, b'\n') => Self::Trailer { length, line: 0 },
            _ => return Err(HeadFault::Chunk),
        };
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn fault(request: &str) -> Option<HeadFault> {
        let mut inspector = HeadInspector::default();
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            match inspector.inspect(rest) {
                Ok(0) => return None,
                Ok(passed) => rest = &rest[passed..],
                Err(fault) => return Some(fault),
            }
        }
        None
    }

    /// A head with these lines after the request line and `Host`.
    fn with(lines: &str) -> Option<HeadFault> {
        fault(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
    }

    #[test]
    fn plain_requests_pass() {
        assert_eq!(fault(GET), None);
        assert_eq!(with("Content-Length: 0\r\n"), None);
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), None);
        assert_eq!(fault("GET / HTTP/1.0\r\n\r\n"), None);
        assert_eq!(fault("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        assert_eq!(fault("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    }

    #[test]
    fn smuggling_shapes_are_refused() {
        use HeadFault::*;
        for (lines, expected) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                TwoFramings,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                TwoFramings,
            ),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", SeveralLengths),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", SeveralLengths),
            ("Content-Length: 5, 5\r\n", InvalidLength),
            ("Content-Length: +5\r\n", InvalidLength),
            ("Content-Length: -1\r\n", InvalidLength),
            ("Content-Length: 0x5\r\n", InvalidLength),
            ("Content-Length: \r\n", InvalidLength),
            ("Content-Length: 18446744073709551616\r\n", InvalidLength),
            ("Transfer-Encoding: gzip\r\n", TransferEncoding),
            ("Transfer-Encoding: gzip, chunked\r\n", TransferEncoding),
            ("Transfer-Encoding: xchunked\r\n", TransferEncoding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                TransferEncoding,
            ),
            ("Transfer-Encoding: \r\n", TransferEncoding),
            ("Host: b\r\n", SeveralHosts),
            ("X: 1\nY: 2\r\n", LineEnding),
            ("X: 1\rY: 2\r\n", LineEnding),
            (
                "Transfer-Encoding : chunked\r\n",
                Syntax(httparse::Error::HeaderName),
            ),
            ("X: 1\r\n folded\r\n", Syntax(httparse::Error::HeaderName)),
            ("X: a\0b\r\n", Syntax(httparse::Error::HeaderValue)),
            (
                "Transfer-Encoding\u{b}: chunked\r\n",
                Syntax(httparse::Error::HeaderName),
            ),
            (": x\r\n", Syntax(httparse::Error::HeaderName)),
        ] {
            assert_eq!(with(lines), Some(expected), "{lines:?}");
        }
        assert_eq!(
            fault("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Some(EncodedHttp10)
        );
        assert_eq!(fault("GET / HTTP/1.1\r\n\r\n"), Some(MissingHost));
        assert_eq!(fault("GET / HTTP/1.1\nHost: a\n\n"), Some(LineEnding));
        assert_eq!(
            fault("GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            Some(Syntax(httparse::Error::Version))
        );
        assert_eq!(
            fault("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n"),
            Some(Target)
        );
    }

    #[test]
    fn limits_hold() {
        let long = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(MAX_HEAD)
        );
        assert_eq!(fault(&long), Some(HeadFault::TooLarge));
        assert_eq!(fault(&"x".repeat(MAX_HEAD)), Some(HeadFault::TooLarge));
        assert_eq!(with(&"X: y\r\n".repeat(99)), None);
        assert_eq!(
            with(&"X: y\r\n".repeat(100)),
            Some(HeadFault::TooManyHeaders)
        );
    }

    #[test]
    fn chunked_bodies_are_followed() {
        let post = |body: &str| {
            fault(&format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            ))
        };
        assert_eq!(post(&format!("3\r\nabc\r\n0\r\n\r\n{GET}")), None);
        assert_eq!(
            post(&format!("A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n{GET}")),
            None
        );
        for bad in [
            "3\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n",
            "\r\nabc",
            "g\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "10000000000000000\r\n",
            "0\r\nT: v\n\r\n",
        ] {
            assert_eq!(post(bad), Some(HeadFault::Chunk), "{bad:?}");
        }
    }

    #[test]
    fn what_came_before_a_fault_passes_first() {
        let mut inspector = HeadInspector::default();
        let stream = format!("{GET}GET / HTTP/1.1\n\n");
        assert_eq!(inspector.inspect(stream.as_bytes()), Ok(GET.len()));
        assert_eq!(
            inspector.inspect(&stream.as_bytes()[GET.len()..]),
            Err(HeadFault::LineEnding)
        );
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = proptest::collection::vec(any::<u8>(), 0..300);
        (body, any::<bool>()).prop_map(|(body, chunked)| {
            let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
            if chunked {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(100) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            } else {
                bytes.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                bytes.extend_from_slice(&body);
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn arrival_in_pieces_changes_nothing(
            requests in proptest::collection::vec(request(), 1..4),
            piece in 1_usize..200,
        ) {
            let stream = requests.concat();
            let mut inspector = HeadInspector::default();
            let (mut passed, mut arrived) = (0, 0);
            while arrived < stream.len() {
                arrived = stream.len().min(arrived + piece);
                passed += inspector.inspect(&stream[passed..arrived]).unwrap();
            }
            prop_assert_eq!(passed, stream.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(stream in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut inspector = HeadInspector::default();
            let mut passed = 0;
            while let Ok(length @ 1..) = inspector.inspect(&stream[passed..]) {
                passed += length;
            }
        }
    }
}
