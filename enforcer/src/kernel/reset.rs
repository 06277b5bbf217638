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

/// How a batch went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetOutcome {
    /// Sockets that were reset.
    pub reset: usize,
    /// Sockets that had closed already.
    pub gone: usize,
    /// Sockets that could not be reset.
    pub failed: usize,
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
        match self.reset_batch(&[(u64::MAX - 1, &nowhere)])? {
            ResetOutcome { gone: 1, .. } => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// Resets sockets in the given order. The cookie makes sure that a later socket on the same
    /// addresses is never hit.
    pub fn reset<'a>(
        &mut self,
        sockets: impl IntoIterator<Item = (u64, &'a Connection)>,
    ) -> io::Result<ResetOutcome> {
        let sockets: Vec<_> = sockets.into_iter().collect();
        let mut total = ResetOutcome::default();
        for batch in sockets.chunks(BATCH) {
            let outcome = self.reset_batch(batch)?;
            total.reset += outcome.reset;
            total.gone += outcome.gone;
            total.failed += outcome.failed;
        }
        Ok(total)
    }

    fn reset_batch(&mut self, batch: &[(u64, &Connection)]) -> io::Result<ResetOutcome> {
        let mut message = Vec::with_capacity(batch.len() * 72);
        for (cookie, connection) in batch {
            self.sequence = self.sequence.wrapping_add(1);
            append(&mut message, &request(*cookie, connection), self.sequence);
        }
        self.socket.send(&message, 0)?;
        let mut outcome = ResetOutcome::default();
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
                if let NetlinkPayload::Error(error) = answer.payload {
                    answers += 1;
                    match error.code.map_or(0, |code| -code.get()) {
                        0 => outcome.reset += 1,
                        ENOENT => outcome.gone += 1,
                        _ => outcome.failed += 1,
                    }
                }
                rest = &rest[length..];
            }
        }
        Ok(outcome)
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
