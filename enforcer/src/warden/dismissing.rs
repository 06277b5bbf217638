//! Sessions that somebody ends, before any limit: they have a moment to say goodbye in their
//! protocols' words.
//!
//! The end itself waits for nothing: the map has it at once, the store as soon as the disk does,
//! and no key of the session opens or renews anything from now on.

use std::time::Duration;

use enforcer_abi as abi;
use tokio::sync::mpsc;

use super::core::{Core, Due};
use crate::{
    channel::ToGateway,
    clock::Now,
    session::{EndReason, Limit, SessionId},
};

/// The moment, if the policies' `farewell` is not shorter.
const MOMENT: Duration = Duration::from_millis(250);

/// The end of a session that has been dismissed. Nothing moves it.
#[derive(Clone, Debug)]
pub struct Dismissal {
    /// When, and why.
    pub limit: Limit,
    /// For the audit log.
    pub detail: Option<String>,
    /// Closes with the session.
    _waited_for: mpsc::Sender<()>,
}

/// Sessions that were dismissed together.
pub struct Dismissed {
    /// How many connections they have.
    pub connections: usize,
    lasting: mpsc::Receiver<()>,
}

impl Dismissed {
    /// Waits until they are over.
    pub async fn over(mut self) {
        while self.lasting.recv().await.is_some() {}
    }
}

impl Core {
    /// Ends sessions, with a goodbye where they have connections.
    pub(super) fn dismiss(
        &mut self,
        ids: &[SessionId],
        reason: EndReason,
        detail: Option<&str>,
        now: Now,
    ) -> Dismissed {
        let (waited_for, lasting) = mpsc::channel(1);
        let mut dismissed = Dismissed {
            connections: 0,
            lasting,
        };
        let mut silent = Vec::new();
        for id in ids {
            let Some(live) = self.book.get_mut(*id) else {
                continue;
            };
            dismissed.connections += live.legs.len();
            let moment = match reason {
                // Its answer is to get out.
                EndReason::Logout => MOMENT,
                _ => MOMENT.min(live.session.limits.farewell),
            };
            if live.legs.is_empty() || moment.is_zero() {
                silent.push(*id);
                continue;
            }
            let at = now.boot.saturating_add(moment);
            let limit = Limit { at, reason };
            live.dismissal = Some(Dismissal {
                limit,
                detail: detail.map(str::to_owned),
                _waited_for: waited_for.clone(),
            });
            let keys = live.session.keys_ended(reason);
            self.store.end(*id, keys, reason, now.wall);
            // The kernel lets nothing pass from the limit on, whatever becomes of the warden.
            self.tighten_in_map(*id, |entry| abi::Session {
                deadline_ns: entry.deadline_ns.min(limit.at.as_nanos()),
                mode: abi::Mode::Enforce.code(),
                ..entry
            });
            self.queue.set(Due::Session(*id), limit.at);
            self.gateways.broadcast(ToGateway::Farewell {
                session: *id,
                reason,
                limit: limit.at,
            });
        }
        self.end_all(&silent, reason, detail, now);
        dismissed
    }
}
