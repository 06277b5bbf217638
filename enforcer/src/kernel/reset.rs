//! Ends sockets with `SOCK_DESTROY` (sock_diag(7)): the kernel sends the RST and wakes the owner
//! with ECONNABORTED.

use std::io;

use enforcer_abi::Connection;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, Parseable,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::maps::Endpoints;

const SOCK_DESTROY: u16 = 21;
/// Requests in one netlink message: their acknowledgements fit the receive buffer.
const BATCH: usize = 256;
const ENOENT: i32 = 2;

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetOutcome {
    /// It was reset.
    Reset,
    /// It had closed already.
    Gone,
    /// It could not be reset (errno), or the kernel gave no answer (0).
    Failed(i32),
}

/// A sock_diag socket.
#[derive(Debug)]
pub struct Resetter {
    socket: Socket,
    sequence: u32,
}

impl Resetter {
    /// Opens the netlink socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_rx_buf_sz(4_i32 << 20)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Whether the kernel knows `SOCK_DESTROY`: asks for a socket that can't exist.
    pub fn probe(&mut self) -> io::Result<()> {
        let nowhere = Connection {
            family: u32::from(AF_INET),
            ..Connection::default()
        };
        match *self.reset(&[(u64::MAX - 1, nowhere)]) {
            [ResetOutcome::Gone] => Ok(()),
            [ResetOutcome::Failed(errno)] if errno != 0 => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// Resets sockets in the given order, and says what became of each. The cookie makes sure that
    /// a later socket on the same addresses is never hit.
    pub fn reset(&mut self, sockets: &[(u64, Connection)]) -> Vec<ResetOutcome> {
        let mut outcomes = vec![ResetOutcome::Failed(0); sockets.len()];
        for (batch, outcomes) in sockets.chunks(BATCH).zip(outcomes.chunks_mut(BATCH)) {
            if let Err(error) = self.reset_batch(batch, outcomes) {
                tracing::error!("sock_diag does not answer: {error}");
            }
        }
        outcomes
    }

    fn reset_batch(
        &mut self,
        batch: &[(u64, Connection)],
        outcomes: &mut [ResetOutcome],
    ) -> io::Result<()> {
        let first = self.sequence;
        let mut message = Vec::with_capacity(batch.len() * 72);
        for (cookie, connection) in batch {
            append(&mut message, &request(*cookie, connection), self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.socket.send(&message, 0)?;
        let mut answers = 0;
        while answers < batch.len() {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while let Ok(buffer) = NetlinkBuffer::new_checked(&rest) {
                let length = (buffer.length() as usize)
                    .next_multiple_of(4)
                    .min(rest.len());
                let answer =
                    NetlinkMessage::<SockDiagMessage>::parse(&buffer).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                    })?;
                let place = answer.header.sequence_number.wrapping_sub(first) as usize;
                if let NetlinkPayload::Error(error) = answer.payload
                    // An answer to an earlier batch that broke off has no place in this one.
                    && let Some(outcome) = outcomes.get_mut(place)
                {
                    answers += 1;
                    *outcome = match error.code.map_or(0, |code| -code.get()) {
                        0 => ResetOutcome::Reset,
                        ENOENT => ResetOutcome::Gone,
                        errno => ResetOutcome::Failed(errno),
                    };
                }
                rest = &rest[length..];
            }
        }
        Ok(())
    }
}

fn request(cookie: u64, connection: &Connection) -> InetRequest {
    let ends = Endpoints::of(connection);
    let ipv6 = connection.family == u32::from(AF_INET6);
    let address = |address: std::net::SocketAddr| {
        if ipv6 {
            address.ip()
        } else {
            address.ip().to_canonical()
        }
    };
    InetRequest {
        family: if ipv6 { AF_INET6 } else { AF_INET },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: ends.local.port(),
            destination_port: ends.remote.port(),
            source_address: address(ends.local),
            destination_address: address(ends.remote),
            interface_id: 0,
            cookie: cookie.to_ne_bytes(),
        },
    }
}

fn append(message: &mut Vec<u8>, request: &InetRequest, sequence: u32) {
    const HEADER: usize = 16;
    let length = HEADER + request.buffer_len();
    let mut header = NetlinkHeader::default();
    header.length = length as u32;
    header.message_type = SOCK_DESTROY;
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    header.sequence_number = sequence;
    let start = message.len();
    message.resize(start + length, 0);
    header.emit(&mut message[start..start + HEADER]);
    request.emit(&mut message[start + HEADER..]);
}
