//! The keys that one issuer publishes: fetched ahead of their end, and when a token names one that
//! nobody knows.
//!
//! ```text
//!              at 4/5 of the time that the keys are for,
//!              or wanted, but not within a second of the last
//!   waiting ------------------------------------------------> fetching
//!      ^   the keys are published, the warden hears of them      |
//!      +---------------------------------------------------------+
//!          or not: again after 1 s, 2 s, .. 30 s
//! ```
//!
//! There is one round at a time, whoever wants one: a flood of tokens with invented key ids asks the
//! issuer once a second. While rounds fail the keys serve on until their end, which each success
//! moves; from then on nobody is let in by them. A set without keys is no failure: the issuer takes
//! them all back.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::fetch::{self, Published};
use crate::{
    authn::Authenticator,
    channel::ToWarden,
    clock::{BootInstant, boot_now},
    config::{JwtIssuer, PublishedKeys},
    gateway::{link::Link, outbound::Outbound},
    session::KeyThumbprint,
};

/// Shortest time between the beginnings of two rounds.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Longest time between a round that failed and the next.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How short an answer's `max-age` may make the time between rounds.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);
/// How long a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the keys of one issuer.
#[derive(Debug)]
pub(super) struct Keeper {
    rules: JwtIssuer,
    settings: PublishedKeys,
    outbound: Outbound,
    authenticator: Arc<Authenticator>,
    rounds: watch::Sender<Rounds>,
    wanted: Notify,
}

/// How far the rounds have come.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    /// Number of the last that has begun.
    begun: u64,
    /// Number of the last that has ended.
    ended: u64,
    /// That one brought keys.
    answered: bool,
}

impl Keeper {
    pub(super) fn new(
        rules: &JwtIssuer,
        settings: &PublishedKeys,
        outbound: Outbound,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        Self {
            rules: rules.clone(),
            settings: settings.clone(),
            outbound,
            authenticator,
            rounds: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }

    /// The last round brought keys.
    pub(super) fn is_answered(&self) -> bool {
        self.rounds.borrow().answered
    }

    /// Waits until `attempt` comes to something with newer keys, at most until the end of a round
    /// that begins from now on.
    pub(super) async fn with_newer_keys<T>(
        &self,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut rounds = self.rounds.subscribe();
        let enough = rounds.borrow_and_update().begun + 1;
        self.wanted.notify_one();
        let waiting = async {
            loop {
                rounds.changed().await.ok()?;
                let ended = rounds.borrow_and_update().ended;
                let outcome = attempt();
                if outcome.is_some() || ended >= enough {
                    return outcome;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.ok().flatten()
    }

    /// Keeps the keys for as long as the process lives.
    pub(super) async fn run(self: Arc<Self>, link: Arc<Link>) {
        let mut failures = 0;
        let mut told = Vec::new();
        let mut scheduled = true;
        loop {
            let begun_at = boot_now();
            self.rounds.send_modify(|rounds| rounds.begun += 1);
            let published = fetch::fetch(&self.rules, &self.settings, &self.outbound).await;
            let answered = published.is_ok();
            let next_in = match published {
                Ok(published) => {
                    if std::mem::take(&mut failures) > 0 {
                        info!(
                            issuer = self.rules.issuer,
                            "the issuer's keys are there again"
                        );
                    }
                    if published.keys.is_empty() {
                        warn!(
                            issuer = self.rules.issuer,
                            "the issuer publishes no key: all that it signed is worth nothing"
                        );
                    }
                    let interval = self.interval(&published);
                    let keys = self.publish(published, begun_at, interval);
                    if scheduled || keys != told {
                        link.tell(ToWarden::IssuerKeys {
                            issuer: self.rules.issuer.clone(),
                            keys: keys.clone(),
                            as_of: begun_at,
                        });
                        told = keys;
                    }
                    interval * 4 / 5
                }
                Err(error) => {
                    warn!(issuer = self.rules.issuer, "the issuer's keys: {error}");
                    let retry = ROUND_PAUSE * 2_u32.saturating_pow(failures);
                    failures = (failures + 1).min(10);
                    retry.min(LONGEST_RETRY)
                }
            };
            self.rounds.send_modify(|rounds| {
                rounds.ended = rounds.begun;
                rounds.answered = answered;
            });
            scheduled = self.next_round(begun_at, next_in).await;
        }
    }

    /// Waits for the next round. True: it was time for it anyway.
    async fn next_round(&self, begun_at: BootInstant, next_in: Duration) -> bool {
        let since = |at: BootInstant| boot_now().saturating_duration_since(at);
        tokio::select! {
            () = tokio::time::sleep(next_in.saturating_sub(since(begun_at))) => true,
            () = self.wanted.notified() => {
                tokio::time::sleep(ROUND_PAUSE.saturating_sub(since(begun_at))).await;
                false
            }
        }
    }

    /// For how long keys are good, as their answer says and the configuration bounds.
    fn interval(&self, published: &Published) -> Duration {
        let longest = self.settings.refresh_interval;
        let shortest = SHORTEST_INTERVAL.min(longest);
        let max_age = published.max_age.unwrap_or(longest);
        max_age.clamp(shortest, longest)
    }

    fn publish(
        &self,
        published: Published,
        begun_at: BootInstant,
        interval: Duration,
    ) -> Vec<KeyThumbprint> {
        let thumbprints = published.keys.thumbprints();
        let end = begun_at
            .saturating_add(interval)
            .saturating_add(self.settings.stale_ttl);
        let issuer = &self.rules.issuer;
        self.authenticator.publish(issuer, published.keys, end);
        thumbprints
    }
}
