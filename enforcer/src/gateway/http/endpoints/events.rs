//! What happens to a session, as server-sent events.
//!
//! ```text
//!          warned: `warning`           farewell: `ending`            end: `ended`
//!   calm -------------------> expiring -------------------> leaving -------------> closed
//!     ^                         |                             |                      ^
//!     +-- later limits: `renewed` ----------------------------+                      |
//!     +------------------------- farewell that nothing can avert: `ended` -----------+
//! ```
//!
//! `ended` is final. A session that is ending idle, or with its token, may still be saved after the
//! farewell: that is `ending`. If it is not, the cut ends the stream, and nothing more can be said.
//! Any other end of a stream without `ended` is to be answered by asking again: another gateway
//! has taken over.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::{
    clock::{BootInstant, boot_now},
    gateway::{
        link::Orders,
        sessions::{Phase, SessionHandle, SessionState},
    },
    session::EndReason,
};

/// How often a stream says that it is still there, with a comment.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE: &str = ":\n\n";

/// Begins to tell what happens to a session, starting with a warning that is in force.
pub(super) fn stream(
    session: SessionHandle,
    orders: watch::Receiver<Orders>,
) -> mpsc::Receiver<Bytes> {
    let (sender, events) = mpsc::channel(1);
    tokio::spawn(tell(session, orders, sender));
    events
}

async fn tell(
    session: SessionHandle,
    mut orders: watch::Receiver<Orders>,
    events: mpsc::Sender<Bytes>,
) {
    let mut states = session.states();
    let mut told = SessionState::new(session.state().view);
    loop {
        let state = states.borrow_and_update().clone();
        let event = Event::between(&told, &state);
        told = state;
        if let Some(event) = event {
            let text = event.text(boot_now());
            if events.send(text.into()).await.is_err() || matches!(event, Event::Ended(_)) {
                return;
            }
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(KEEP_ALIVE_INTERVAL) => {
                if events.send(KEEP_ALIVE.into()).await.is_err() {
                    return;
                }
            }
            () = Orders::drained(&mut orders) => return,
            () = events.closed() => return,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It will end, as things stand.
    Warning {
        reason: EndReason,
        limit: BootInstant,
    },
    /// It goes on until the deadline, if its client does.
    Renewed {
        deadline: BootInstant,
    },
    /// It is about to end, unless its client does something about it at once.
    Ending {
        reason: EndReason,
        limit: BootInstant,
    },
    Ended(EndReason),
}

impl Event {
    /// What has happened from one state to a later one.
    fn between(before: &SessionState, after: &SessionState) -> Option<Self> {
        match after.phase {
            Phase::Ended(reason) => Some(Self::Ended(reason)),
            Phase::Farewell { reason, limit } => match reason {
                EndReason::Idle | EndReason::Token => {
                    (before.phase != after.phase).then_some(Self::Ending { reason, limit })
                }
                _ => Some(Self::Ended(reason)),
            },
            Phase::Warned { reason, limit } => {
                (before.phase != after.phase).then_some(Self::Warning { reason, limit })
            }
            Phase::Alive => {
                let deadline = after.view.deadline;
                let better = deadline > before.view.deadline || before.phase != Phase::Alive;
                better.then_some(Self::Renewed { deadline })
            }
        }
    }

    fn text(self, now: BootInstant) -> String {
        let left = |limit: BootInstant| limit.saturating_duration_since(now).as_secs();
        let announced = |reason: EndReason, limit| json!({ "reason": reason.as_str(), "expires_in_seconds": left(limit) });
        let (name, data) = match self {
            Self::Warning { reason, limit } => ("warning", announced(reason, limit)),
            Self::Ending { reason, limit } => ("ending", announced(reason, limit)),
            Self::Renewed { deadline } => {
                ("renewed", json!({ "expires_in_seconds": left(deadline) }))
            }
            Self::Ended(reason) => ("ended", json!({ "reason": reason.as_str() })),
        };
        format!("event: {name}\ndata: {data}\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::sessions::tests::{at, view};

    fn state(deadline: u64, phase: Phase) -> SessionState {
        SessionState {
            phase,
            ..SessionState::new(view(deadline))
        }
    }

    #[test]
    fn each_change_has_its_event() {
        let (reason, limit) = (EndReason::Idle, at(60));
        let alive = state(100, Phase::Alive);
        let warned = state(100, Phase::Warned { reason, limit });
        let renewed = state(200, Phase::Alive);
        let stricter = state(50, Phase::Alive);
        let leaving = state(100, Phase::Farewell { reason, limit });
        let ending = Event::Ending { reason, limit };
        let deadline = EndReason::Deadline;
        let unavoidable = Phase::Farewell {
            reason: deadline,
            limit,
        };
        let unavoidable = state(100, unavoidable);
        let over = state(100, Phase::Ended(reason));
        let warning = Event::Warning { reason, limit };
        let renewal = |deadline| Event::Renewed {
            deadline: at(deadline),
        };
        for (before, after, event) in [
            (&alive, &alive, None),
            (&alive, &warned, Some(warning)),
            (&warned, &warned, None),
            (&warned, &alive, Some(renewal(100))),
            (&alive, &renewed, Some(renewal(200))),
            (&alive, &stricter, None),
            (&alive, &leaving, Some(ending)),
            (&leaving, &leaving, None),
            (&leaving, &alive, Some(renewal(100))),
            (&leaving, &over, Some(Event::Ended(reason))),
            (&alive, &unavoidable, Some(Event::Ended(deadline))),
        ] {
            assert_eq!(Event::between(before, after), event, "{after:?}");
        }
    }

    #[test]
    fn events_say_what_is_left() {
        let warning = Event::Warning {
            reason: EndReason::Idle,
            limit: at(60),
        };
        assert_eq!(
            warning.text(at(18)),
            "event: warning\ndata: {\"expires_in_seconds\":42,\"reason\":\"idle\"}\n\n"
        );
        assert_eq!(
            Event::Ended(EndReason::Idle).text(at(18)),
            "event: ended\ndata: {\"reason\":\"idle\"}\n\n"
        );
    }
}
