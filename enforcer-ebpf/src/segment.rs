//! What a packet is: TCP or not, with payload or not.

use aya_ebpf::programs::SkBuffContext;
use enforcer_abi::{Direction, Packet};

const IPPROTO_IPIP: u8 = 4;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_IPV6: u8 = 41;
const MAX_EXTENSION_HEADERS: usize = 6;
/// How deep a packet may be within others. A route that encapsulates (SRv6) does so before the
/// programs run.
const MAX_DEPTH: usize = 2;
const RST: u8 = 0x04;

/// What the headers say.
pub(crate) enum Segment {
    /// Not TCP; or what is in it is sealed (IPsec).
    Other,
    /// A TCP segment.
    Tcp(Packet),
    /// Headers that can't be read.
    Unreadable,
}

/// Reads the headers of a packet that starts at its network header.
#[inline(always)]
pub(crate) fn parse(ctx: &SkBuffContext, direction: Direction) -> Segment {
    let mut offset = 0;
    for _ in 0..=MAX_DEPTH {
        let Some((protocol, within)) = transport(ctx, offset) else {
            return Segment::Unreadable;
        };
        offset = within;
        match protocol {
            IPPROTO_TCP => return tcp(ctx, direction, offset),
            IPPROTO_IPIP | IPPROTO_IPV6 => {}
            _ => return Segment::Other,
        }
    }
    Segment::Unreadable
}

#[inline(always)]
fn tcp(ctx: &SkBuffContext, direction: Direction, offset: usize) -> Segment {
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

/// What the IP header at `start` is followed by, and where.
#[inline(always)]
fn transport(ctx: &SkBuffContext, start: usize) -> Option<(u8, usize)> {
    let first = ctx.load::<u8>(start).ok()?;
    match first >> 4 {
        4 => {
            let length = usize::from(first & 0x0f) * 4;
            Some((ctx.load::<u8>(start + 9).ok()?, start + length))
        }
        6 => ipv6_transport(ctx, start),
        _ => None,
    }
}

#[inline(always)]
fn ipv6_transport(ctx: &SkBuffContext, start: usize) -> Option<(u8, usize)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;

    let mut next = ctx.load::<u8>(start + 6).ok()?;
    let mut offset = start + 40;
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
