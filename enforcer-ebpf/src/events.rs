//! Records for the warden.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use enforcer_abi::{Connection, Event, EventKind};

use crate::maps::{EVENTS, count};

/// Writes a record; false (and counted) when the ring buffer is full.
#[inline(always)]
pub(crate) fn emit(
    kind: EventKind,
    reason: u32,
    at_ns: u64,
    limit_ns: u64,
    cookie: u64,
    connection: &Connection,
) -> bool {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(|stats| &mut stats.events_lost);
        return false;
    };
    entry.write(Event {
        at_ns,
        limit_ns,
        cookie,
        kind: kind.code(),
        reason,
        connection: *connection,
    });
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    true
}
