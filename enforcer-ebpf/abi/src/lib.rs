//! What the kernel's side and the daemon agree on: map layouts, events and the verdict.
//!
//! Everything here is `no_std`, made of integers with explicit padding, and compiled into both
//! sides. A change of any layout or constant is a change of [`ABI_VERSION`].
//!
//! Instants are nanoseconds of `CLOCK_BOOTTIME` and end in `_at_ns`, `_deadline_ns` or `_base_ns`;
//! durations end in `_timeout_ns`. Zero is "never" for an instant and "none" for a duration.
#![no_std]

mod event;
mod layout;
#[cfg(feature = "user")]
mod pod;
mod verdict;

pub use event::{Event, EventKind};
pub use layout::{
    Activity, ActivityKind, Binding, Connection, Control, Mode, Role, Session, SessionState,
    Socket, Stats,
};
pub use verdict::{
    Action, Direction, EGRESS_GUARD_NS, Limit, Packet, Reason, Standing, Verdict, session_limit,
    verdict,
};

/// Version of every layout in this crate, written to `CONTROL` by the daemon and compared on
/// start: pins of another version are never adopted.
pub const ABI_VERSION: u32 = 2;

/// Names of the pinned maps, as bpftool shows them.
pub mod map_name {
    /// session id -> [`Session`](crate::Session)
    pub const SESSIONS: &str = "SESSIONS";
    /// socket cookie -> [`Binding`](crate::Binding)
    pub const BINDINGS: &str = "BINDINGS";
    /// socket -> [`Socket`](crate::Socket)
    pub const SOCKET: &str = "SOCKET";
    /// socket cookie -> [`Connection`](crate::Connection)
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// session id -> [`Activity`](crate::Activity)
    pub const ACTIVITY: &str = "ACTIVITY";
    /// per-CPU [`Stats`](crate::Stats)
    pub const STATS: &str = "STATS";
    /// one [`Control`](crate::Control)
    pub const CONTROL: &str = "CONTROL";
    /// ring buffer of [`Event`](crate::Event)
    pub const EVENTS: &str = "EVENTS";
}
