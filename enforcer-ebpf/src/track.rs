//! The life of TCP sockets: opened, closed.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock,
    },
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
    programs::SockOpsContext,
};
use aya_log_ebpf::warn;
use enforcer_abi::{Connection, EventKind, Role, Socket};

use crate::{
    events,
    maps::{BINDINGS, CONNECTIONS, count},
    socket,
};

const AF_INET: u32 = 2;
const V4_MAPPED: u32 = 0xffff_u32.to_be();

#[inline(always)]
pub(crate) fn on_event(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => opened(ctx, Role::Client),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => opened(ctx, Role::Pooled),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => closed(ctx),
        _ => {}
    }
}

/// A handshake has finished. A socket that gets no storage stays untracked: its payload is dropped.
#[inline(always)]
fn opened(ctx: &SockOpsContext, role: Role) {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    let cookie = cookie(ctx);
    let (local_address, remote_address) = addresses(ctx);
    let connection = Connection {
        opened_at_ns: now_ns,
        local_address,
        remote_address,
        local_port: ctx.local_port(),
        remote_port: u32::from_be(ctx.remote_port()),
        family: ctx.family(),
        role: role.code(),
        ..Connection::default()
    };
    let sk = sk(ctx);
    if !sk.is_null() && socket::storage(sk).is_some() {
        // Seen already by the programs of the daemon before, while they are being replaced.
        return;
    }
    let initial = Socket {
        opened_at_ns: now_ns,
        role: role.code(),
        ..Socket::default()
    };
    if sk.is_null() || socket::create_storage(sk, initial).is_none() {
        count(|stats| &mut stats.storage_failures);
        warn!(
            ctx,
            "no storage for socket {}: its payload is dropped", cookie
        );
    }
    if ctx
        .set_cb_flags(ctx.cb_flags() as i32 | BPF_SOCK_OPS_STATE_CB_FLAG as i32)
        .is_err()
    {
        warn!(ctx, "the end of socket {} will not be seen", cookie);
    }
    if CONNECTIONS
        .insert(cookie, connection, u64::from(BPF_NOEXIST))
        .is_err()
    {
        // It can't be bound, so the pre-authentication limit ends it.
        count(|stats| &mut stats.connections_full);
    }
    count(|stats| &mut stats.connections_opened);
    events::emit(
        EventKind::ConnectionOpened,
        0,
        now_ns,
        0,
        cookie,
        &connection,
    );
}

/// A socket has closed. Its entry goes when the event has been delivered; otherwise it stays,
/// with the time of its end, for the warden to collect.
#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let cookie = cookie(ctx);
    let _ = BINDINGS.remove(cookie);
    let Some(entry) = CONNECTIONS.get_ptr_mut(cookie) else {
        return;
    };
    // SAFETY: non-null map value; the warden only reads entries, and this socket closes once.
    let entry = unsafe { &mut *entry };
    // SAFETY: a helper without arguments.
    entry.closed_at_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: reads of the program's context.
    unsafe {
        entry.bytes_received = (*ctx.ops).bytes_received;
        entry.bytes_acknowledged = (*ctx.ops).bytes_acked;
    }
    let sk = sk(ctx);
    if !sk.is_null()
        && let Some(storage) = socket::storage(sk)
    {
        entry.last_payload_at_ns = storage.last_payload_at_ns;
        entry.dropped_packets = storage.dropped_packets;
    }
    count(|stats| &mut stats.connections_closed);
    let at_ns = entry.closed_at_ns;
    if events::emit(EventKind::ConnectionClosed, 0, at_ns, 0, cookie, entry) {
        let _ = CONNECTIONS.remove(cookie);
    }
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn sk(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: a read of the program's context.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}

/// The addresses of both ends, IPv4 as v4-mapped: (local, remote).
///
/// Every word is read, whatever the family, and each on its own: the verifier takes context reads
/// at constant offsets only, and the compiler merges those of two branches into one.
#[inline(always)]
fn addresses(ctx: &SockOpsContext) -> ([u32; 4], [u32; 4]) {
    macro_rules! word {
        ($($field:tt)+) => {
            // SAFETY: a read of the program's context.
            unsafe { (&raw const (*ctx.ops).$($field)+).read_volatile() }
        };
    }
    let local = word!(local_ip4);
    let remote = word!(remote_ip4);
    let local6 = [
        word!(local_ip6[0]),
        word!(local_ip6[1]),
        word!(local_ip6[2]),
        word!(local_ip6[3]),
    ];
    let remote6 = [
        word!(remote_ip6[0]),
        word!(remote_ip6[1]),
        word!(remote_ip6[2]),
        word!(remote_ip6[3]),
    ];
    if ctx.family() == AF_INET {
        ([0, 0, V4_MAPPED, local], [0, 0, V4_MAPPED, remote])
    } else {
        (local6, remote6)
    }
}
