//! Looks after the session of a connection, as long as there are tunnels on it.
//!
//! ```text
//!             a quarter of the time left, at most a minute
//!   waiting ------------------------------------------------> the token is read again
//!     ^  ^  ^                                                    |              |
//!     |  |  |  a while                                           | the same     | a newer one
//!     |  |  +------------------------ warned <-------------------+              |
//!     |  +---------------------------------- renewed <--------------------------+
//!     |
//!     +---- told of by the gateway: warning, renewed, ended
//! ```
//!
//! To renew, the session is looked at with the newer token, on the connection that is bound to it:
//! that counts as no activity, so a client that nobody uses runs into the idle limit as it should.
//! Only if the connection takes no more requests is it the `renew` endpoint, on another one.

use std::{sync::Arc, time::Duration};

use http::Method;
use tokio::time::sleep;

use super::{
    client::Client,
    events::{Event, Events},
    failure::Failure,
    gateway::{Line, Verdict, read},
    say::time,
    token::Token,
};
use crate::clock::{BootInstant, boot_now};

const SESSION: &str = "/.well-known/enforcer/session";
const RENEW: &str = "/.well-known/enforcer/session/renew";

/// Longest before the end that a renewal is tried.
const LONGEST_LEAD: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// Timers don't run while the machine sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Follows the session until the connection closes, then finds out why it did.
pub(super) async fn keep(client: Arc<Client>, line: Arc<Line>) {
    let ended = tokio::select! {
        () = line.closed() => None,
        ended = follow(&client, &line) => {
            // New tunnels need a new session; the cut, and no earlier end, closes this one.
            client.leave(&line).await;
            line.closed().await;
            Some(ended)
        }
    };
    client.leave(&line).await;
    let verdict = match ended {
        Some(reason) => Verdict::SessionOver(reason),
        None if line.tunnels() == 0 => Verdict::Lost,
        None => find_out(&client, &line).await,
    };
    match &verdict {
        Verdict::SessionOver(reason) => client.voice.warn(format!("the session is over: {reason}")),
        Verdict::Lost if line.tunnels() > 0 => {
            client.voice.warn("the connection to the gateway was lost");
        }
        Verdict::Lost => {}
    }
    line.judge(verdict);
}

/// Why the connection closed: the gateway knows whether the session is over.
async fn find_out(client: &Client, line: &Line) -> Verdict {
    let token = line.token();
    let asked = async {
        let other = client.gateway.connect(token.clone()).await?;
        other.ask(Method::GET, SESSION, &token).await.map(drop)
    };
    judge(asked.await, line.is_expired(boot_now()))
}

/// What the gateway's answer says about the session; without one, the time that it had.
fn judge(answer: Result<(), Failure>, expired: bool) -> Verdict {
    match answer {
        Err(Failure::Refused(refused)) => {
            let ended = refused.message.strip_prefix("the session has ended (");
            let reason = ended.and_then(|rest| rest.strip_suffix(')'));
            Verdict::SessionOver(reason.unwrap_or(&refused.message).to_owned())
        }
        // So it is where a certificate has expired: there is no TLS any more to hear it by.
        Err(_) if expired => Verdict::SessionOver("its time was up".to_owned()),
        Ok(()) | Err(_) => Verdict::Lost,
    }
}

/// Renews, and tells what the gateway tells, until the session says goodbye: then, why.
async fn follow(client: &Client, line: &Arc<Line>) -> String {
    let mut events = Events::of(line).await;
    let mut expires_at = line.expires_at();
    let mut renewal = Renewal::default();
    let mut renewed_at = None;
    loop {
        let ends_at = *expires_at.borrow_and_update();
        let wait = ends_at.map_or(LONGEST_SLEEP, |at| renewal.wait(at, boot_now()));
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Warning { reason, expires_in }) => client.voice.warn(format!(
                    "the session ends in {} ({reason})", time(expires_in)
                )),
                Some(Event::Renewed { expires_in }) => {
                    // Its own renewals it has told itself.
                    let own = renewed_at.take().is_some_and(|at| is_recent(at, boot_now()));
                    if !own {
                        let text = format!("the session goes on for {}", time(expires_in));
                        client.voice.tell(text);
                    }
                    line.learn(expires_in);
                }
                Some(Event::Ended { reason }) => return reason,
                // The gateway takes no more requests here, and no goodbye will come.
                None => {
                    events = Events::none();
                    client.leave(line).await;
                }
            },
            Ok(()) = expires_at.changed() => renewal = Renewal::default(),
            () = sleep(wait.min(LONGEST_SLEEP)) => if wait <= LONGEST_SLEEP
                && let Some(ends_at) = ends_at
                && line.tunnels() > 0
            {
                renewal.tried_at = Some(boot_now());
                if renew(client, line, ends_at, &mut renewal).await {
                    renewed_at = Some(boot_now());
                }
            },
        }
    }
}

/// What came of renewing the session as it is now.
#[derive(Debug, Default)]
struct Renewal {
    tried_at: Option<BootInstant>,
    /// It has been said that there is no newer token.
    warned: bool,
}

impl Renewal {
    /// How long to wait for the next try, if the session ends at `ends_at`.
    fn wait(&self, ends_at: BootInstant, now: BootInstant) -> Duration {
        let left = ends_at.saturating_duration_since(now);
        match self.tried_at {
            None => left - (left / 4).min(LONGEST_LEAD),
            Some(tried_at) => {
                let pause = (left / 4).max(SHORTEST_PAUSE);
                pause.saturating_sub(now.saturating_duration_since(tried_at))
            }
        }
    }
}

/// The gateway tells of a renewal at once.
fn is_recent(renewed_at: BootInstant, now: BootInstant) -> bool {
    now.saturating_duration_since(renewed_at) < Duration::from_secs(5)
}

/// True: the session lasts longer now.
async fn renew(
    client: &Client,
    line: &Arc<Line>,
    ends_at: BootInstant,
    renewal: &mut Renewal,
) -> bool {
    let left = |now| time(ends_at.saturating_duration_since(now).as_secs());
    let token = match client.tokens.read().await {
        Ok(token) => token,
        Err(error) => {
            let text = format!("the session ends in {}: {error}", left(boot_now()));
            client.voice.warn(text);
            return false;
        }
    };
    if token == line.token() {
        if !renewal.warned {
            renewal.warned = true;
            let why = client.tokens.unchanged();
            let text = format!("the session ends in {}: {why}", left(boot_now()));
            client.voice.warn(text);
        }
        return false;
    }
    match present(client, line, &token).await {
        Ok(expires_in) => {
            line.adopt(token);
            let later = boot_now().saturating_add(Duration::from_secs(expires_in + 1));
            if later <= ends_at.saturating_add(Duration::from_secs(1)) {
                let text = format!(
                    "the session ends in {} for good: it cannot be renewed any further",
                    time(expires_in)
                );
                client.voice.warn(text);
                return false;
            }
            let text = format!("renewed, for {}", time(expires_in));
            client.voice.tell(text);
            line.learn(expires_in);
            true
        }
        Err(error) => {
            let text = format!("cannot renew the session: {error}");
            client.voice.warn(text);
            false
        }
    }
}

/// Shows the gateway a newer token; how long the session has, in seconds.
async fn present(client: &Client, line: &Arc<Line>, token: &Token) -> Result<u64, Failure> {
    let answer = match line.ask(Method::GET, SESSION, token).await {
        Err(Failure::Broken(_)) => {
            let other = client.gateway.connect(token.clone()).await?;
            other.ask(Method::POST, RENEW, token).await?
        }
        answer => answer?,
    };
    let body = read(answer.into_body()).await?;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let expires_in = body["expires_in_seconds"].as_u64();
    expires_in.ok_or_else(|| Failure::Local(std::io::ErrorKind::InvalidData.into()))
}

#[cfg(test)]
mod tests {
    use super::{super::failure::Refused, *};

    #[test]
    fn a_connection_that_broke_off_is_judged_by_the_answer_or_the_time() {
        let refused = |message: &str| {
            let body = format!("{{\"code\":\"c\",\"message\":\"{message}\"}}");
            let refused = Refused::new(http::StatusCode::UNAUTHORIZED, body.as_bytes());
            Err(Failure::Refused(refused))
        };
        let broken = || Err(Failure::Local(std::io::ErrorKind::ConnectionReset.into()));
        let over = |reason: &str| Verdict::SessionOver(reason.to_owned());
        assert_eq!(
            judge(refused("the session has ended (idle)"), false),
            over("idle")
        );
        assert_eq!(judge(refused("no session"), true), over("no session"));
        assert_eq!(judge(broken(), true), over("its time was up"));
        assert_eq!(judge(broken(), false), Verdict::Lost);
        assert_eq!(judge(Ok(()), true), Verdict::Lost);
    }

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_renewal_is_tried_in_the_last_quarter_and_again() {
        let mut renewal = Renewal::default();
        let wait = |renewal: &Renewal, now| renewal.wait(at(1000), at(now)).as_secs();
        assert_eq!(wait(&renewal, 0), 940);
        assert_eq!(wait(&renewal, 900), 75);
        renewal.tried_at = Some(at(960));
        assert_eq!(wait(&renewal, 960), 10);
        assert_eq!(wait(&renewal, 968), 0);
        renewal.tried_at = Some(at(1000));
        assert_eq!(renewal.wait(at(1000), at(1000)), SHORTEST_PAUSE);
    }
}
