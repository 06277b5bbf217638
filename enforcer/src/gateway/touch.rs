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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{channel::ToWarden, clock::BootInstant, gateway::link::Link, session::SessionId};

const INTERVAL: Duration = Duration::from_secs(1);

fn interval(idle_timeout: Option<Duration>) -> Duration {
    idle_timeout.map_or(INTERVAL, |timeout| INTERVAL.min(timeout / 4))
}

/// Activity of one session.
#[derive(Debug)]
pub(crate) struct Activity {
    session: SessionId,
    noted: Mutex<Noted>,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    interval: Duration,
    latest: Option<BootInstant>,
    /// An interval is running, ..
    holding: bool,
    /// .. in which there was activity.
    unsent: bool,
}

impl Activity {
    /// `idle_timeout` shortens the interval where a second would be a good part of it.
    pub(crate) fn new(session: SessionId, idle_timeout: Option<Duration>) -> Self {
        Self {
            session,
            noted: Mutex::new(Noted {
                interval: interval(idle_timeout),
                latest: None,
                holding: false,
                unsent: false,
            }),
        }
    }

    /// The idle timeout is another from now on.
    pub(crate) fn set_interval(&self, idle_timeout: Option<Duration>) {
        self.noted().interval = interval(idle_timeout);
    }

    /// The client did something.
    pub(crate) fn note(self: &Arc<Self>, link: &Arc<Link>, now: BootInstant) {
        if self.is_first(now) {
            link.tell(self.touch(now));
            let (activity, link) = (Arc::clone(self), Arc::clone(link));
            tokio::spawn(async move {
                loop {
                    let interval = activity.noted().interval;
                    tokio::time::sleep(interval).await;
                    match activity.take() {
                        Some(latest) => link.tell(activity.touch(latest)),
                        None => return,
                    }
                }
            });
        }
    }

    /// The latest activity.
    pub(crate) fn latest(&self) -> Option<ToWarden> {
        self.noted().latest.map(|latest| self.touch(latest))
    }

    fn touch(&self, at: BootInstant) -> ToWarden {
        ToWarden::Touch {
            session: self.session,
            at,
        }
    }

    fn is_first(&self, now: BootInstant) -> bool {
        let mut noted = self.noted();
        let first = !noted.holding;
        *noted = Noted {
            latest: Some(now),
            holding: true,
            unsent: !first,
            ..*noted
        };
        first
    }

    fn take(&self) -> Option<BootInstant> {
        let mut noted = self.noted();
        noted.holding = noted.unsent;
        let unsent = std::mem::take(&mut noted.unsent);
        noted.latest.filter(|_| unsent)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
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
