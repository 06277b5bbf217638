//! Listings of all live sessions, a slice at a time: cuts go between.

use std::collections::VecDeque;

use super::{
    admin::{Reply, SessionInfo},
    core::Core,
};
use crate::{clock::Now, session::SessionId};

/// Sessions in one slice: some tenths of a millisecond.
const SLICE: usize = 256;

/// Those that are being made.
#[derive(Debug, Default)]
pub(super) struct Listings(VecDeque<Listing>);

#[derive(Debug)]
struct Listing {
    left: Vec<SessionId>,
    listed: Vec<SessionInfo>,
    reply: Reply<Vec<SessionInfo>>,
}

impl Listings {
    fn take_first(&mut self) -> Option<Listing> {
        self.0.pop_front()
    }
}

impl Core {
    /// Begins a listing of the sessions that live now.
    pub(super) fn begin_listing(&mut self, reply: Reply<Vec<SessionInfo>>) {
        let left = self.book.ids();
        self.listings.0.push_back(Listing {
            listed: Vec::with_capacity(left.len()),
            left,
            reply,
        });
    }

    /// Something is left to be listed.
    pub(super) fn is_listing(&self) -> bool {
        !self.listings.0.is_empty()
    }

    /// Lists some more. Sessions that have ended since the listing began are left out.
    pub(super) fn list_on(&mut self, now: Now) {
        let Some(mut listing) = self.listings.take_first() else {
            return;
        };
        let rest = listing.left.len().saturating_sub(SLICE);
        for id in listing.left.split_off(rest) {
            let live = self.book.get(id);
            listing.listed.extend(live.map(|live| self.info(live, now)));
        }
        if listing.left.is_empty() {
            // Who asked may have left.
            let _ = listing.reply.send(listing.listed);
        } else if !listing.reply.is_closed() {
            self.listings.0.push_back(listing);
        }
    }
}
