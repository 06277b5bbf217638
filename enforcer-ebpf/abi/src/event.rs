//! Records of the ring buffer `EVENTS`.

use core::mem::{offset_of, size_of};

use crate::layout::{Connection, codes};

codes! {
    /// What happened.
    EventKind {
        /// A handshake finished.
        ConnectionOpened = 1,
        /// A socket closed; the connection's counters are final.
        ConnectionClosed = 2,
        /// A packet met the limit of its session for the first time; `reason` says which limit.
        SessionExpired = 3,
        /// The first packet of a connection was dropped; `reason` says why.
        FirstDrop = 4,
    }
}

/// One record. It carries the connection whole, so that a reader needs no map to make sense of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub at_ns: u64,
    /// The limit that was met, for [`EventKind::SessionExpired`]; `at_ns - limit_ns` is how late
    /// the packet was.
    pub limit_ns: u64,
    /// The socket's cookie.
    pub cookie: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// A [`Reason`](crate::Reason), or 0.
    pub reason: u32,
    /// The connection as it was then.
    pub connection: Connection,
}

const _: () = {
    assert!(size_of::<Event>() == 136);
    assert!(offset_of!(Event, connection) == 32);
};
