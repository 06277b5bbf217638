//! Framing: one postcard message a packet, with file descriptors where the message says so.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio_seqpacket::{
    UnixSeqpacket,
    ancillary::{AncillaryMessageReader, AncillaryMessageWriter, OwnedAncillaryMessage},
};

/// Longest message.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Room for the control message of as many descriptors as the kernel lets through in one packet
/// (`SCM_MAX_FD`, 253).
const ANCILLARY_SPACE: usize = 2048;

/// One end of a channel.
#[derive(Debug)]
pub struct Transport {
    socket: UnixSeqpacket,
}

impl Transport {
    /// A transport over a connected `SOCK_SEQPACKET` socket, which becomes non-blocking. Needs a
    /// tokio runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket: UnixSeqpacket::try_from(socket)?,
        })
    }

    /// Sends one message.
    pub async fn send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.socket.send(&encode(message)?).await.map(drop)
    }

    /// Sends one message with file descriptors, which stay the caller's.
    pub async fn send_with_fds<M: Serialize>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = encode(message)?;
        let mut space = [0; ANCILLARY_SPACE];
        let mut ancillary = AncillaryMessageWriter::new(&mut space);
        ancillary.add_fds(fds.iter())?;
        self.socket
            .send_with_ancillary(&bytes, &mut ancillary)
            .await
            .map(drop)
    }

    /// Receives one message and the descriptors that came along; `None` when the peer is gone.
    /// What is not a message is an [`io::ErrorKind::InvalidData`] error.
    pub async fn recv<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut packet = vec![0; MAX_MESSAGE];
        let mut space = [0; ANCILLARY_SPACE];
        let (info, ancillary) = self
            .socket
            .recv_with_ancillary(&mut packet, &mut space)
            .await?;
        let fds = descriptors(ancillary);
        if info.bytes_read() == 0 {
            return Ok(None);
        }
        if info.truncated() || info.ancillary_truncated() {
            return Err(invalid("a packet that is too long for a message"));
        }
        decode(&packet[..info.bytes_read()]).map(|message| Some((message, fds)))
    }

    /// Effective user of the process at the other end, as it was when the socket was connected.
    pub fn peer_uid(&self) -> io::Result<u32> {
        self.socket.peer_cred().map(|credentials| credentials.uid())
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Receives one message in a process that has no runtime yet, and hands the socket back.
pub fn receive_blocking<M: DeserializeOwned>(
    socket: OwnedFd,
) -> io::Result<Option<(M, Vec<OwnedFd>, OwnedFd)>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let transport = Transport::new(socket)?;
        let received = transport.recv().await?;
        Ok(received.map(|(message, fds)| (message, fds, OwnedFd::from(transport.socket))))
    })
}

/// Sends one message from a process that has no runtime.
pub fn send_blocking<M: Serialize>(socket: impl AsFd, message: &M) -> io::Result<()> {
    let bytes = encode(message)?;
    rustix::net::send(socket, &bytes, rustix::net::SendFlags::NOSIGNAL)?;
    Ok(())
}

fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).map_err(invalid)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(invalid("the message is too long for a packet"));
    }
    Ok(bytes)
}

pub(crate) fn decode<M: DeserializeOwned>(packet: &[u8]) -> io::Result<M> {
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(invalid("bytes after the message")),
        Err(error) => Err(invalid(error)),
    }
}

fn descriptors(ancillary: AncillaryMessageReader<'_>) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    for message in ancillary.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(received) = message {
            fds.extend(received);
        }
    }
    fds
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::channel::{ToGateway, ToWarden};

    fn pair() -> (Transport, UnixSeqpacket) {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        (Transport::new(a.into()).unwrap(), b)
    }

    #[tokio::test]
    async fn messages_and_descriptors_arrive() {
        let (a, b) = pair();
        let b = Transport::new(b.into()).unwrap();
        a.send(&ToWarden::Ready).await.unwrap();
        let (message, fds) = b.recv::<ToWarden>().await.unwrap().unwrap();
        assert_eq!((message, fds.len()), (ToWarden::Ready, 0));

        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"text").unwrap();
        let names = ToWarden::Listeners {
            names: vec!["public".to_owned()],
        };
        a.send_with_fds(&names, &[file.as_fd()]).await.unwrap();
        let (message, mut fds) = b.recv::<ToWarden>().await.unwrap().unwrap();
        assert_eq!(message, names);
        let mut received = std::fs::File::from(fds.remove(0));
        io::Seek::rewind(&mut received).unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }

    #[tokio::test]
    async fn the_end_is_not_an_error_and_garbage_is() {
        let (a, b) = pair();
        b.send(&[0xff; 9]).await.unwrap();
        let error = a.recv::<ToWarden>().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(b);
        assert!(a.recv::<ToWarden>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_longer_than_a_packet_is_refused() {
        let (a, _b) = pair();
        let names = ToWarden::Listeners {
            names: vec!["x".repeat(MAX_MESSAGE)],
        };
        assert!(a.send(&names).await.is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<ToWarden>(&packet);
            let _ = decode::<ToGateway>(&packet);
        }
    }
}
