//! Whole messages, one after the other: how a connection starts. Once it flows, they are
//! [relayed](super::relay) without being held.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    packet::{Header, Packet, PacketFault},
    scanner::Violation,
};

/// Longest message while a connection starts, as PostgreSQL has it for tokens.
const LONGEST: usize = 65_535;
const HEADER: usize = 5;

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Messages<S> {
    stream: S,
    /// Read, and not taken yet.
    buffer: BytesMut,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub(super) struct Message {
    whole: Bytes,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Length(#[from] Violation),
}

impl Message {
    /// Its type.
    pub(super) fn kind(&self) -> u8 {
        self.whole.first().copied().unwrap_or(0)
    }

    pub(super) fn body(&self) -> &[u8] {
        self.whole.get(HEADER..).unwrap_or_default()
    }

    /// The message with its type and length.
    pub(super) fn whole(&self) -> &Bytes {
        &self.whole
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Messages<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, and what was read from it ahead.
    pub(super) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.buffer)
    }

    /// The packet that it starts with. `None`: there is none.
    pub(super) async fn packet(&mut self) -> io::Result<Option<Result<Packet, PacketFault>>> {
        read_packet(&mut self.stream).await
    }

    /// The next message. `None`: the other side has closed.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, MessageError> {
        loop {
            if let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() {
                let [_, length @ ..] = *header;
                let length = u32::from_be_bytes(length);
                let whole = usize::try_from(length).ok().map(|length| length + 1);
                let whole = whole.filter(|whole| (HEADER..=LONGEST).contains(whole));
                let whole = whole.ok_or(Violation(length))?;
                if self.buffer.len() >= whole {
                    let whole = self.buffer.split_to(whole).freeze();
                    return Ok(Some(Message { whole }));
                }
                self.buffer.reserve(whole - self.buffer.len());
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.has_remaining() {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                } else {
                    Ok(None)
                };
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Nothing more will be sent.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// Reads a packet and not a byte more: what follows may be TLS. `None`: there is none.
pub(super) async fn read_packet(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Result<Packet, PacketFault>>> {
    let mut header = [0; 8];
    let mut known = 0;
    while known < header.len() {
        match stream.read(&mut header[known..]).await? {
            0 if known == 0 => return Ok(None),
            0 => return Ok(Some(Err(PacketFault::Incomplete))),
            length => known += length,
        }
    }
    let header = match Header::parse(header) {
        Ok(header) => header,
        Err(fault) => return Ok(Some(Err(fault))),
    };
    let mut rest = vec![0; header.rest];
    match stream.read_exact(&mut rest).await {
        Ok(_) => Ok(Some(header.packet(&rest))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Some(Err(PacketFault::Incomplete)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_read_whole_and_one_that_is_too_long_is_not() {
        let (mut theirs, ours) = tokio::io::duplex(16);
        let mut messages = Messages::new(ours);
        let writing = async {
            theirs.write_all(b"p\0\0\0\x06abX\0\0\0\x04").await.unwrap();
            theirs.write_all(b"D\0\x01\0\0").await.unwrap();
        };
        let reading = async {
            let password = messages.next().await.unwrap().unwrap();
            assert_eq!((password.kind(), password.body()), (b'p', &b"ab"[..]));
            let terminate = messages.next().await.unwrap().unwrap();
            assert_eq!(&terminate.whole()[..], b"X\0\0\0\x04");
            let error = messages.next().await.unwrap_err();
            assert!(matches!(error, MessageError::Length(Violation(0x1_0000))));
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn an_end_within_a_message_is_an_error() {
        let mut messages = Messages::new(tokio_test_stream(b"Q\0\0\0\x09ab"));
        assert!(matches!(messages.next().await, Err(MessageError::Io(_))));
        let mut messages = Messages::new(tokio_test_stream(b""));
        assert!(messages.next().await.unwrap().is_none());
    }

    fn tokio_test_stream(bytes: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        tokio::io::join(io::Cursor::new(bytes.to_vec()), tokio::io::sink())
    }

    #[tokio::test]
    async fn a_packet_is_read_and_not_a_byte_more() {
        let mut stream = &b"\0\0\0\x08\x04\xd2\x16\x2f\x16"[..];
        let packet = read_packet(&mut stream).await.unwrap();
        assert_eq!(packet, Some(Ok(Packet::SslRequest)));
        assert_eq!(stream, b"\x16");
        for (bytes, packet) in [
            (&b""[..], None),
            (b"\0\0", Some(Err(PacketFault::Incomplete))),
            (b"\0\0\0\x09\0\x03\0\0", Some(Err(PacketFault::Incomplete))),
        ] {
            assert_eq!(read_packet(&mut &*bytes).await.unwrap(), packet);
        }
    }
}
