//! How often a client may ask and not wait for the answer.

use std::sync::atomic::{AtomicU32, Ordering};

const MAX_GIVEN_UP: u32 = 100;

/// How much giving up a connection has left. Each request that is answered makes one good that was
/// given up before.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    given_up: AtomicU32,
    lost: tokio::sync::Notify,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Unanswered<'a> {
    patience: Option<&'a Patience>,
}

impl Patience {
    /// The client wants an answer.
    pub(crate) fn begin(&self) -> Unanswered<'_> {
        Unanswered {
            patience: Some(self),
        }
    }

    /// Waits until there is none left.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    fn give_up(&self) {
        if self.given_up.fetch_add(1, Ordering::Relaxed) == MAX_GIVEN_UP {
            self.lost.notify_one();
        }
    }

    fn make_good(&self) {
        let less = |given_up: u32| given_up.checked_sub(1);
        // At zero there is nothing to make good.
        let _ = self
            .given_up
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

impl Unanswered<'_> {
    /// It is answered.
    pub(crate) fn answered(mut self) {
        if let Some(patience) = self.patience.take() {
            patience.make_good();
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(patience) = self.patience {
            patience.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_only_gives_up_loses_patience() {
        let patience = Patience::default();
        for _ in 0..MAX_GIVEN_UP * 2 {
            drop(patience.begin());
            patience.begin().answered();
        }
        for _ in 0..MAX_GIVEN_UP {
            drop(patience.begin());
        }
        let waiting = tokio::time::timeout(std::time::Duration::ZERO, patience.lost());
        assert!(waiting.await.is_err());
        drop(patience.begin());
        patience.lost().await;
    }
}
