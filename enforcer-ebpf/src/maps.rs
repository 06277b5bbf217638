//! The maps. Their sizes here are defaults: the daemon sets them from its configuration.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use enforcer_abi::{Activity, Binding, Connection, Control, Event, Session, Socket, Stats};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static SESSIONS: HashMap<u64, Session, 65536, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static BINDINGS: HashMap<u64, Binding, 131072, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static CONNECTIONS: HashMap<u64, Connection, 131072, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static ACTIVITY: HashMap<u64, Activity, 65536, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static SOCKET: SkStorage<Socket> = SkStorage::new();

#[btf_map]
pub(crate) static STATS: PerCpuArray<Stats, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static CONTROL: Array<Control, 1> = Array::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, 4194304> = RingBuf::new();

/// Counts on this CPU.
#[inline(always)]
pub(crate) fn count(field: impl FnOnce(&mut Stats) -> &mut u64) {
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: a per-CPU slot, and a program isn't interrupted by another of the same hook.
        let counter = field(unsafe { &mut *stats });
        *counter += 1;
    }
}
