//! enforcer's programs on the socket path.
//!
//! - `track` (sock_ops) gives each TCP socket of the daemon's cgroup its storage and its entry in
//!   `CONNECTIONS`, and reports its end;
//! - `ingress` and `egress` (cgroup_skb) ask [`enforcer_abi::verdict`] about every segment.
//!
//! An error never lets payload pass: each arm that meets one names its verdict.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "eBPF helpers and map values are raw pointers")]
#![allow(
    missing_docs,
    reason = "the programs' attributes make undocumented functions of them"
)]

mod events;
mod judge;
mod maps;
mod segment;
mod socket;
mod track;

use aya_ebpf::{
    macros::{cgroup_skb, sock_ops},
    programs::{SkBuffContext, SockOpsContext},
};
use enforcer_abi::Direction;

const PASS: i32 = 1;
const DROP: i32 = 0;

/// Judges what arrives at a socket of the cgroup.
#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    if judge::passes(&ctx, Direction::Ingress) {
        PASS
    } else {
        DROP
    }
}

/// Judges what leaves a socket of the cgroup.
#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    if judge::passes(&ctx, Direction::Egress) {
        PASS
    } else {
        DROP
    }
}

/// Follows the life of TCP sockets.
#[sock_ops]
pub fn track(ctx: SockOpsContext) -> u32 {
    track::on_event(&ctx);
    1
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
