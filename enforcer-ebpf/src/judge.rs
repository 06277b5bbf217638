//! Asks for the verdict on a segment and carries it out.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock},
    programs::SkBuffContext,
};
use enforcer_abi::{
    Action, Activity, Control, Direction, EventKind, Limit, Packet, Reason, Role, Socket, Standing,
    verdict,
};

use crate::{
    events,
    maps::{ACTIVITY, BINDINGS, CONNECTIONS, CONTROL, SESSIONS, count},
    segment::{self, Segment},
    socket,
};

const TCP_LISTEN: u32 = 10;

/// Whether the packet goes on.
#[inline(always)]
pub(crate) fn passes(ctx: &SkBuffContext, direction: Direction) -> bool {
    let segment = segment::parse(ctx, direction);
    let packet = match segment {
        Segment::Tcp(packet) => packet,
        // Fail closed: judged as payload.
        Segment::Other | Segment::Unreadable => Packet {
            direction,
            payload: true,
            reset: false,
        },
    };
    let sealed = matches!(segment, Segment::Other);
    // Read before the session is looked up; `verdict` says why.
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    let control = CONTROL.get(0).copied().unwrap_or_default();
    let sk = full_socket(ctx.skb.skb);
    if sk.is_null() {
        if sealed {
            return true;
        }
        return judge_untracked(now_ns, packet, Standing::Untracked, &control);
    }
    match socket::storage(sk) {
        Some(storage) => judge_tracked(ctx, now_ns, packet, storage, &control),
        None if sealed => true,
        None => {
            // SAFETY: `sk` is a full socket and not null.
            let listens = unsafe { (*sk).state } == TCP_LISTEN;
            let standing = if listens {
                Standing::Listener
            } else {
                Standing::Untracked
            };
            judge_untracked(now_ns, packet, standing, &control)
        }
    }
}

#[inline(always)]
fn judge_untracked(now_ns: u64, packet: Packet, standing: Standing, control: &Control) -> bool {
    let verdict = verdict(
        now_ns,
        packet,
        standing,
        control.mode,
        control.pre_authentication_timeout_ns,
    );
    match verdict.action {
        Action::Pass => true,
        Action::Observe(_) => {
            count(|stats| &mut stats.observed);
            true
        }
        Action::Drop(_) | Action::Hold => {
            count(|stats| &mut stats.dropped_untracked);
            false
        }
    }
}

#[inline(always)]
fn judge_tracked(
    ctx: &SkBuffContext,
    now_ns: u64,
    packet: Packet,
    storage: &mut Socket,
    control: &Control,
) -> bool {
    if storage.session_id == 0 {
        latch_binding(ctx, storage);
    }
    let activity_entry = match storage.session_id {
        0 => None,
        id => ACTIVITY.get_ptr_mut(id),
    };
    let activity = match activity_entry {
        // SAFETY: non-null map value; torn reads are impossible for aligned words.
        Some(entry) => unsafe { *entry },
        None => Activity::default(),
    };
    let judge = |standing| {
        verdict(
            now_ns,
            packet,
            standing,
            control.mode,
            control.pre_authentication_timeout_ns,
        )
    };
    // One call an arm: merged into one, the verifier sees fields that the arm never set.
    let verdict = if storage.session_id != 0 {
        // SAFETY: copied before anything can free the entry's memory, which waits for RCU.
        let session = unsafe { SESSIONS.get(storage.session_id) }
            .copied()
            .unwrap_or_default();
        judge(Standing::Bound {
            client: storage.role == Role::Client.code(),
            session,
            activity,
        })
    } else if storage.role == Role::Pooled.code() {
        judge(Standing::Pooled)
    } else {
        judge(Standing::Unbound {
            opened_at_ns: storage.opened_at_ns,
        })
    };

    if let Some(limit) = verdict.latch {
        let observed = matches!(verdict.action, Action::Observe(_));
        latch_expiry(ctx, now_ns, storage, activity_entry, limit, observed);
    }
    if verdict.client_activity
        && let Some(entry) = activity_entry
    {
        // SAFETY: non-null map value, written by eBPF only.
        unsafe { (*entry).last_client_payload_at_ns = now_ns };
    }
    match verdict.action {
        Action::Pass => {
            if packet.payload {
                storage.last_payload_at_ns = now_ns;
            }
            true
        }
        Action::Observe(_) => {
            count(|stats| &mut stats.observed);
            if packet.payload {
                storage.last_payload_at_ns = now_ns;
            }
            true
        }
        Action::Hold => {
            count(|stats| &mut stats.held_before_limit);
            false
        }
        Action::Drop(reason) => {
            dropped(ctx, now_ns, storage, activity_entry, reason);
            false
        }
    }
}

/// Takes over the first binding found for the socket; it stays for the socket's life.
#[inline(always)]
fn latch_binding(ctx: &SkBuffContext, storage: &mut Socket) {
    let cookie = cookie(ctx);
    // SAFETY: copied at once, before anything can free the entry's memory.
    let Some(binding) = (unsafe { BINDINGS.get(cookie) }) else {
        return;
    };
    let binding = *binding;
    storage.session_id = binding.session_id;
    storage.role = binding.role;
    if let Some(entry) = CONNECTIONS.get_ptr_mut(cookie) {
        // SAFETY: non-null map value, written by eBPF only.
        unsafe {
            (*entry).session_id = binding.session_id;
            (*entry).role = binding.role;
        }
    }
}

/// Records that the session has expired: from here on no later limit brings it back, unless the
/// limit was only observed.
#[inline(always)]
fn latch_expiry(
    ctx: &SkBuffContext,
    now_ns: u64,
    storage: &Socket,
    activity: Option<*mut Activity>,
    limit: Limit,
    observed: bool,
) {
    match activity {
        // SAFETY: non-null map value, written by eBPF only.
        Some(entry) if observed => unsafe { (*entry).observed_at_ns = now_ns },
        // SAFETY: likewise.
        Some(entry) => unsafe { (*entry).expired_at_ns = now_ns },
        // Without the entry nothing can be latched, but time passes one way only: each later
        // packet meets the limit anew.
        None => return,
    }
    report(
        ctx,
        EventKind::SessionExpired,
        limit.reason,
        now_ns,
        limit.at_ns,
        storage,
    );
}

#[inline(always)]
fn dropped(
    ctx: &SkBuffContext,
    now_ns: u64,
    storage: &mut Socket,
    activity: Option<*mut Activity>,
    reason: Reason,
) {
    count(|stats| match reason {
        Reason::Deadline => &mut stats.dropped_deadline,
        Reason::Idle => &mut stats.dropped_idle,
        Reason::Revoked => &mut stats.dropped_revoked,
        Reason::UnknownSession => &mut stats.dropped_unknown_session,
        Reason::PreAuthentication => &mut stats.dropped_pre_authentication,
        Reason::Untracked => &mut stats.dropped_untracked,
    });
    storage.dropped_packets += 1;
    if storage.dropped_packets != 1 {
        return;
    }
    if let Some(entry) = activity {
        // SAFETY: non-null map value, written by eBPF only.
        unsafe {
            if (*entry).first_drop_at_ns == 0 {
                (*entry).first_drop_at_ns = now_ns;
            }
        }
    }
    report(ctx, EventKind::FirstDrop, reason, now_ns, 0, storage);
}

/// Brings the connection's entry up to date and tells the warden.
#[inline(always)]
fn report(
    ctx: &SkBuffContext,
    kind: EventKind,
    reason: Reason,
    now_ns: u64,
    limit_ns: u64,
    storage: &Socket,
) {
    let cookie = cookie(ctx);
    let Some(entry) = CONNECTIONS.get_ptr_mut(cookie) else {
        return;
    };
    // SAFETY: non-null map value, written by eBPF only.
    let entry = unsafe { &mut *entry };
    entry.last_payload_at_ns = storage.last_payload_at_ns;
    entry.dropped_packets = storage.dropped_packets;
    events::emit(kind, reason.code(), now_ns, limit_ns, cookie, entry);
}

#[inline(always)]
fn cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) }
}

#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: a read of the program's context, and a helper that takes non-null sockets.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            sk
        } else {
            bpf_sk_fullsock(sk)
        }
    }
}
