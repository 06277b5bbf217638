//! What a session's client does, reported to the warden at most once in a while.
//!
//! ```text
//!          note: send now                interval over, nothing new
//!   Quiet ---------------> Holding -----------------------------------> Quiet
//!                            |  ^
//!          note: remember it |  | interval over: send the latest
//!                            v  |
//!                          Holding
//! ```

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{channel::ToWarden, clock::BootInstant, gateway::link::Link, session::SessionId};

const INTERVAL: Duration = Duration::from_secs(1);

/// Activity of one session.
#[derive(Debug)]
pub(crate) struct Activity {
    session: SessionId,
    interval: Duration,
    pending: Mutex<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Quiet,
    Holding(Option<BootInstant>),
}

impl Activity {
    /// `idle_timeout` shortens the interval where a second would be a good part of it.
    pub(crate) fn new(session: SessionId, idle_timeout: Option<Duration>) -> Self {
        Self {
            session,
            interval: idle_timeout.map_or(INTERVAL, |timeout| INTERVAL.min(timeout / 4)),
            pending: Mutex::new(Pending::Quiet),
        }
    }

    /// The client did something.
    pub(crate) fn note(self: &Arc<Self>, link: &Arc<Link>, now: BootInstant) {
        if self.is_first(now) {
            self.send(link, now);
            let (activity, link) = (Arc::clone(self), Arc::clone(link));
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(activity.interval).await;
                    match activity.take() {
                        Some(latest) => activity.send(&link, latest),
                        None => return,
                    }
                }
            });
        }
    }

    fn send(&self, link: &Link, at: BootInstant) {
        link.tell(ToWarden::Touch {
            session: self.session,
            at,
        });
    }

    fn is_first(&self, now: BootInstant) -> bool {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *pending == Pending::Quiet;
        *pending = Pending::Holding((!first).then_some(now));
        first
    }

    fn take(&self) -> Option<BootInstant> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match *pending {
            Pending::Holding(Some(latest)) => {
                *pending = Pending::Holding(None);
                Some(latest)
            }
            Pending::Holding(None) | Pending::Quiet => {
                *pending = Pending::Quiet;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::sessions::tests::at;

    #[test]
    fn the_first_is_sent_and_the_latest_is_kept() {
        let activity = Activity::new(SessionId::from_u64(1).unwrap(), None);
        assert!(activity.is_first(at(1)));
        assert!(!activity.is_first(at(2)));
        assert!(!activity.is_first(at(3)));
        assert_eq!(activity.take(), Some(at(3)));
        assert_eq!(activity.take(), None);
        assert!(activity.is_first(at(4)));
    }
}
