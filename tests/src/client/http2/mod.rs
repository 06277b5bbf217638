//! HTTP/2 by hand: frames that no library would send, and what comes back.

mod frame;

use std::collections::{HashMap, VecDeque};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use loona_hpack::Decoder;

pub use self::frame::{Code, Frame, HEADER, PREFACE, block, flag, integer, kind, setting, string};
use super::{Client, Ending, Raw, Tls};
use crate::certificates::SERVER_NAME;

/// A client's end of a connection.
pub struct Peer {
    raw: Raw<Tls>,
    token: String,
    hpack: Decoder<'static>,
    /// Read, and not asked for yet.
    waiting: VecDeque<Frame>,
    /// Header blocks, decoded in the order in which they came, by stream.
    blocks: HashMap<u32, VecDeque<Fields>>,
}

/// Names and values.
pub type Fields = Vec<(String, String)>;

/// What was answered on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status of the final response.
    pub status: u16,
    /// Its fields, the trailers behind the others.
    pub fields: Fields,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A field's value; empty where there is none.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// A connection on which nothing is said yet.
    pub fn silent(client: &Client, token: &str) -> Result<Self> {
        Ok(Self {
            raw: client.speaking(&[b"h2"]).tls()?,
            token: token.to_owned(),
            hpack: Decoder::new(),
            waiting: VecDeque::new(),
            blocks: HashMap::new(),
        })
    }

    /// A connection on which both sides have said their settings.
    pub fn new(client: &Client, token: &str) -> Result<Self> {
        Self::with_settings(client, token, &[])
    }

    /// The same with settings.
    pub fn with_settings(client: &Client, token: &str, settings: &[(u16, u32)]) -> Result<Self> {
        let mut peer = Self::silent(client, token)?;
        peer.write([PREFACE, &Frame::settings(settings).encode()].concat())?;
        peer.wait_for("the server's settings", |frame| {
            frame.kind == kind::SETTINGS && !frame.has(flag::ACK)
        })?;
        ensure!(
            peer.waiting.is_empty(),
            "before its settings came {:?}",
            peer.waiting
        );
        peer.send(&[Frame::settings(&[]).with_flags(flag::ACK)])?;
        peer.wait_for("the settings were acknowledged", |frame| {
            frame.kind == kind::SETTINGS && frame.has(flag::ACK)
        })?;
        Ok(peer)
    }

    /// The bytes below.
    pub fn raw(&self) -> &Raw<Tls> {
        &self.raw
    }

    /// What the client has said about its table for header fields.
    pub fn limit_table(&mut self, size: usize) {
        self.hpack.set_max_allowed_table_size(size);
    }

    /// Sends bytes.
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.raw.write(bytes)
    }

    /// Sends frames, in one write.
    pub fn send(&self, frames: &[Frame]) -> Result<()> {
        self.write(frames.iter().flat_map(Frame::encode).collect::<Vec<_>>())
    }

    /// The fields of a good request.
    pub fn request<'a>(&'a self, method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", SERVER_NAME),
            ("authorization", &self.token),
        ]
    }

    /// HEADERS of a good request without a body.
    pub fn get(&self, stream: u32, path: &str) -> Frame {
        Frame::only_headers(stream, block(&self.request("GET", path)))
    }

    /// HEADERS of a good request whose body follows.
    pub fn post(&self, stream: u32, path: &str) -> Frame {
        Frame::headers(stream, block(&self.request("POST", path)))
    }

    /// A frame that has come and was not asked for yet.
    pub fn take_waiting(&mut self, matches: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let place = self.waiting.iter().position(matches)?;
        self.waiting.remove(place)
    }

    /// The last fields that have come on a stream and were not asked for yet.
    pub fn take_fields(&mut self, stream: u32) -> Option<Fields> {
        self.blocks.get_mut(&stream)?.pop_back()
    }

    /// Whether one of this kind has.
    pub fn has_waiting(&self, kind: u8) -> bool {
        self.waiting.iter().any(|frame| frame.kind == kind)
    }

    /// The next frame that matches. Those before it are kept for later questions.
    pub fn wait_for(&mut self, what: &str, matches: impl Fn(&Frame) -> bool) -> Result<Frame> {
        if let Some(frame) = self.take_waiting(&matches) {
            return Ok(frame);
        }
        loop {
            let frame = self.read().context(what.to_owned())?;
            match frame {
                Ok(frame) if matches(&frame) => return Ok(frame),
                Ok(frame) => self.waiting.push_back(frame),
                Err(ending) => bail!(
                    "the connection ended ({:?}) before {what}; there came {:?}",
                    ending.how,
                    self.waiting
                ),
            }
        }
    }

    /// The response on a stream, to its end.
    pub fn reply(&mut self, stream: u32) -> Result<Reply> {
        let mut reply = Reply::default();
        loop {
            let frame = self.wait_for(&format!("an answer on stream {stream}"), |frame| {
                let says_something = [kind::HEADERS, kind::DATA, kind::RST_STREAM];
                frame.stream == stream && says_something.contains(&frame.kind)
            })?;
            match frame.kind {
                kind::RST_STREAM => bail!("stream {stream} was reset: {:?}", frame.number(0)),
                kind::DATA => reply.body.extend(&frame.payload),
                _ => {
                    let blocks = self.blocks.get_mut(&stream);
                    let fields = blocks.and_then(VecDeque::pop_front);
                    for (name, value) in fields.context("a header block")? {
                        match &*name {
                            ":status" => reply.status = value.parse().context("a status")?,
                            _ => reply.fields.push((name, value)),
                        }
                    }
                }
            }
            if frame.has(flag::END_STREAM) {
                return Ok(reply);
            }
        }
    }

    /// Checks that a request on this stream is served.
    pub fn check_served(&mut self, stream: u32) -> Result<()> {
        self.send(&[self.get(stream, "/headers")])?;
        let status = self.reply(stream)?.status;
        ensure!(status == 200, "the answer was {status}");
        Ok(())
    }

    /// Checks that the stream is reset with this code, and the connection goes on.
    pub fn check_stream_error(&mut self, stream: u32, code: Code) -> Result<()> {
        let reset = self.wait_for(&format!("stream {stream} was reset"), |frame| {
            matches!(frame.kind, kind::GOAWAY)
                || frame.kind == kind::RST_STREAM && frame.stream == stream
        })?;
        ensure!(reset.kind == kind::RST_STREAM, "not the stream: {reset:?}");
        ensure!(
            reset.number(0) == Some(code as u32),
            "not {code:?}: {reset:?}"
        );
        self.check_alive()
    }

    /// Checks that GOAWAY comes with this code, and then the end.
    pub fn check_connection_error(&mut self, code: Code) -> Result<()> {
        let goaway = self.wait_for("GOAWAY came", |frame| frame.kind == kind::GOAWAY)?;
        ensure!(
            goaway.number(4) == Some(code as u32),
            "not {code:?}: {goaway:?}"
        );
        self.check_end()
    }

    /// Checks that the server closes the connection.
    pub fn check_end(&mut self) -> Result<()> {
        while self.read()?.is_ok() {}
        Ok(())
    }

    /// Checks that the connection goes on: what was sent before has been read.
    pub fn check_alive(&mut self) -> Result<()> {
        let payload = *b"a probe.";
        self.send(&[Frame::ping(payload)])?;
        self.wait_for("a ping was answered", |frame| {
            frame.kind == kind::PING && frame.has(flag::ACK) && frame.payload == payload
        })?;
        Ok(())
    }

    fn read(&mut self) -> Result<Result<Frame, Ending>> {
        let header = match self.raw.read_exact(HEADER)? {
            Ok(header) => header,
            Err(ending) => return Ok(Err(ending)),
        };
        let (mut frame, length) = Frame::decode_header(&header)?;
        frame.payload = match self.raw.read_exact(length)? {
            Ok(payload) => payload,
            Err(ending) => return Ok(Err(ending)),
        };
        if frame.kind == kind::HEADERS {
            ensure!(frame.has(flag::END_HEADERS), "a header block in pieces");
            let decoded = self.hpack.decode(&frame.payload);
            let fields = decoded.map_err(|error| anyhow!("a header block: {error:?}"))?;
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (text(name), text(value)));
            let blocks = self.blocks.entry(frame.stream).or_default();
            blocks.push_back(fields.collect());
        }
        Ok(Ok(frame))
    }
}
