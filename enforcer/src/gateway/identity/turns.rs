//! Whose question is put next.
//!
//! ```text
//!   tokens that nobody vouched for --> at most 256 wait --> 32 at a time --+
//!                                                                          +--> the endpoint
//!   tokens that were active ----------> each waits -------> 32 at a time --+
//! ```
//!
//! Anybody can invent tokens. They take each other's turns, and nobody else's.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Questions of a kind that an endpoint has to answer at a time: invented tokens cost the issuer no
/// more.
pub(super) const AT_A_TIME: usize = 32;
/// Questions about strangers that wait for their turn. Of the others there are no more than tokens
/// that were active, and sessions.
const MOST_WAITING: usize = 256;

/// What is known of a token that is to be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// Nothing good. It may be invented.
    Stranger,
    /// Its issuer called it active before.
    Known,
}

/// It is nobody's turn for too long, or too many wait.
#[derive(Debug)]
pub(super) struct Busy;

/// Turns at one endpoint.
#[derive(Debug)]
pub(super) struct Turns {
    strangers: Semaphore,
    /// Strangers that wait, and those whose turn it is.
    places: Semaphore,
    known: Semaphore,
}

/// It is the question's turn as long as this is held.
pub(super) struct Turn<'a> {
    _place: Option<SemaphorePermit<'a>>,
    _turn: SemaphorePermit<'a>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            strangers: Semaphore::new(AT_A_TIME),
            places: Semaphore::new(AT_A_TIME + MOST_WAITING),
            known: Semaphore::new(AT_A_TIME),
        }
    }

    /// Waits for a turn, not longer than `patience`.
    pub(super) async fn wait(
        &self,
        acquaintance: Acquaintance,
        patience: Duration,
    ) -> Result<Turn<'_>, Busy> {
        let (place, turns) = match acquaintance {
            Acquaintance::Known => (None, &self.known),
            Acquaintance::Stranger => {
                let place = self.places.try_acquire().map_err(|_| Busy)?;
                (Some(place), &self.strangers)
            }
        };
        match timeout(patience, turns.acquire()).await {
            Ok(Ok(turn)) => Ok(Turn {
                _place: place,
                _turn: turn,
            }),
            _ => Err(Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[tokio::test]
    async fn strangers_wait_a_while_for_each_other_and_not_too_many_of_them() {
        use Acquaintance::{Known, Stranger};
        let (turns, patience) = (Turns::new(), Duration::from_millis(50));
        let mut held = Vec::new();
        for _ in 0..AT_A_TIME {
            held.push(turns.wait(Stranger, patience).await.ok().unwrap());
        }
        assert!(turns.wait(Stranger, patience).await.is_err());
        // Nobody who is known waits for that.
        assert!(turns.wait(Known, patience).await.is_ok());

        let long = Duration::from_secs(60);
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| Box::pin(turns.wait(Stranger, long)))
            .collect();
        for one in &mut waiting {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        let refused = pin!(turns.wait(Stranger, long)).poll(&mut context);
        assert!(matches!(refused, Poll::Ready(Err(Busy))));
        held.pop();
        assert!(waiting.swap_remove(0).await.is_ok());
    }
}
