//! Values of the maps. They read well in `bpftool map dump`: named integers, no packed blobs.

use core::mem::{offset_of, size_of};

/// Declares the integer codes of a field as an enum that both sides can convert.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant = $code,)+
        }

        impl $name {
            /// The integer stored in the map.
            #[inline(always)]
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The meaning of a stored integer; `None` for one that no version writes.
            #[inline(always)]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use codes;

codes! {
    /// Whether a limit is enforced or only recorded.
    Mode {
        /// Packets of an ended session are dropped.
        Enforce = 1,
        /// Packets pass; what would have been dropped is counted.
        Observe = 2,
    }
}

codes! {
    /// Who decides what counts as activity.
    ActivityKind {
        /// The gateway, by moving `idle_base_ns`.
        Application = 1,
        /// The kernel: TCP payload from the client.
        Payload = 2,
    }
}

codes! {
    /// State of a `SESSIONS` entry.
    SessionState {
        /// Alive until its limit.
        Active = 1,
        /// Ended before its limit; its packets are dropped from now on.
        Revoked = 2,
    }
}

codes! {
    /// What a socket is to its session.
    Role {
        /// Accepted from a client.
        Client = 1,
        /// Connected to an upstream for one session alone.
        Upstream = 2,
        /// Connected to an upstream and shared by sessions; bound to none.
        Pooled = 3,
    }
}

/// Value of `SESSIONS`; the key is the session id. Written by the warden only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// End of the session whatever it does; never "none": 0 is long ago.
    pub deadline_ns: u64,
    /// Longest time without activity; 0 for none.
    pub idle_timeout_ns: u64,
    /// Last activity that the warden knows of.
    pub idle_base_ns: u64,
    /// Strictest policy, by its place among the policies in the order of their names, from 1 (for
    /// people reading dumps).
    pub policy_id: u32,
    /// A [`Mode`].
    pub mode: u32,
    /// An [`ActivityKind`].
    pub activity: u32,
    /// A [`SessionState`].
    pub state: u32,
}

/// Value of `BINDINGS`; the key is the socket's cookie. Written by the warden, removed by
/// sock_ops when the socket closes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The session that the socket belongs to from now on.
    pub session_id: u64,
    /// A [`Role`].
    pub role: u32,
    /// Always zero.
    pub padding: u32,
}

/// Value of `SOCKET`, the storage of each tracked socket. Private to eBPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// Latched session; 0 until bound. Never changes once set.
    pub session_id: u64,
    /// When the handshake finished.
    pub opened_at_ns: u64,
    /// Last payload that passed, in either direction.
    pub last_payload_at_ns: u64,
    /// Packets dropped so far.
    pub dropped_packets: u64,
    /// A [`Role`].
    pub role: u32,
    /// Always zero.
    pub padding: u32,
}

/// Value of `CONNECTIONS`; the key is the socket's cookie. Written by eBPF at open, latch, expiry
/// and close, not per packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Session; 0 until bound.
    pub session_id: u64,
    /// When the handshake finished.
    pub opened_at_ns: u64,
    /// When the socket closed; 0 while it is open.
    pub closed_at_ns: u64,
    /// Last payload that passed, in either direction, when this entry was last written.
    pub last_payload_at_ns: u64,
    /// Payload received over the connection's life, written at close.
    pub bytes_received: u64,
    /// Payload that the peer acknowledged over the connection's life, written at close.
    pub bytes_acknowledged: u64,
    /// Packets dropped, when this entry was last written.
    pub dropped_packets: u64,
    /// Local address as IPv6 words in network byte order; IPv4 is v4-mapped.
    pub local_address: [u32; 4],
    /// Remote address, likewise.
    pub remote_address: [u32; 4],
    /// Local port, host byte order.
    pub local_port: u32,
    /// Remote port, host byte order.
    pub remote_port: u32,
    /// Address family of the socket (`AF_INET` or `AF_INET6`), whatever its addresses look like.
    pub family: u32,
    /// A [`Role`].
    pub role: u32,
}

/// Value of `ACTIVITY`; the key is the session id. The entry is made by the warden with the
/// session and then written by eBPF only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Last TCP payload from the client.
    pub last_client_payload_at_ns: u64,
    /// Latch: when a packet first met an enforced limit of the session; 0 before. Never cleared.
    pub expired_at_ns: u64,
    /// When a packet first met a limit that was only observed; 0 before. Latches nothing.
    pub observed_at_ns: u64,
    /// First packet dropped because of the session's end.
    pub first_drop_at_ns: u64,
}

/// The one value of `STATS`, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets dropped because the deadline had passed.
    pub dropped_deadline: u64,
    /// Packets dropped because the idle limit had passed.
    pub dropped_idle: u64,
    /// Packets dropped because the session was revoked.
    pub dropped_revoked: u64,
    /// Packets dropped because the session's entry is gone.
    pub dropped_unknown_session: u64,
    /// Packets dropped because nobody authenticated within the limit.
    pub dropped_pre_authentication: u64,
    /// Packets with payload dropped on sockets without storage.
    pub dropped_untracked: u64,
    /// Outgoing payload held back in the guard band before a limit.
    pub held_before_limit: u64,
    /// Packets that observe mode let pass.
    pub observed: u64,
    /// Events that found the ring buffer full.
    pub events_lost: u64,
    /// Sockets whose storage could not be made.
    pub storage_failures: u64,
    /// Sockets that found `CONNECTIONS` full.
    pub connections_full: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Connections closed.
    pub connections_closed: u64,
}

/// The one value of `CONTROL`. Written by the warden only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the daemon that wrote it.
    pub abi_version: u32,
    /// A [`Mode`] for what belongs to no session; sessions carry their own.
    pub mode: u32,
    /// How long an accepted connection may stay unbound.
    pub pre_authentication_timeout_ns: u64,
}

const _: () = {
    assert!(size_of::<Session>() == 40);
    assert!(offset_of!(Session, policy_id) == 24);
    assert!(size_of::<Binding>() == 16);
    assert!(size_of::<Socket>() == 40);
    assert!(size_of::<Connection>() == 104);
    assert!(offset_of!(Connection, local_address) == 56);
    assert!(offset_of!(Connection, local_port) == 88);
    assert!(size_of::<Activity>() == 32);
    assert!(size_of::<Stats>() == 104);
    assert!(size_of::<Control>() == 16);
};
