//! What a packet is: TCP or not, with payload or not.

use aya_ebpf::programs::SkBuffContext;
use enforcer_abi::{Direction, Packet};

const IPPROTO_TCP: u8 = 6;
const MAX_EXTENSION_HEADERS: usize = 6;
const RST: u8 = 0x04;

/// What the headers say.
pub(crate) enum Segment {
    /// Not TCP.
    Other,
    /// A TCP segment.
    Tcp(Packet),
    /// Headers that can't be read.
    Unreadable,
}

/// Reads the headers of a packet that starts at its network header.
#[inline(always)]
pub(crate) fn parse(ctx: &SkBuffContext, direction: Direction) -> Segment {
    let Some((protocol, offset)) = transport(ctx) else {
        return Segment::Unreadable;
    };
    if protocol != IPPROTO_TCP {
        return Segment::Other;
    }
    let Ok([data_offset, flags]) = ctx.load::<[u8; 2]>(offset + 12) else {
        return Segment::Unreadable;
    };
    // The length of the buffer, not of the IP header: that is 0 in packets beyond 64 KiB.
    let headers = offset as u32 + u32::from(data_offset >> 4) * 4;
    Segment::Tcp(Packet {
        direction,
        payload: ctx.len() > headers,
        reset: flags & RST != 0,
    })
}

/// Protocol and offset of the transport header.
#[inline(always)]
fn transport(ctx: &SkBuffContext) -> Option<(u8, usize)> {
    let first = ctx.load::<u8>(0).ok()?;
    match first >> 4 {
        4 => Some((ctx.load::<u8>(9).ok()?, usize::from(first & 0x0f) * 4)),
        6 => ipv6_transport(ctx),
        _ => None,
    }
}

#[inline(always)]
fn ipv6_transport(ctx: &SkBuffContext) -> Option<(u8, usize)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;

    let mut next = ctx.load::<u8>(6).ok()?;
    let mut offset = 40usize;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
            return Some((next, offset));
        }
        let [following, length] = ctx.load::<[u8; 2]>(offset).ok()?;
        next = following;
        offset += (usize::from(length) + 1) * 8;
    }
    None
}
