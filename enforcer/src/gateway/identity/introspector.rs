//! Asking an issuer about its tokens (RFC 7662), and remembering what it said.
//!
//! ```text
//!   answer ---- active_ttl, inactive_ttl ----> old ---- stale_ttl ----> worthless
//!     ^    believed                             |    believed while nobody answers
//!     +-----------------------------------------+
//!                 asked again, once for all who want to know
//! ```

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tracing::warn;

use super::{
    IdentityError, Recognized,
    answers::{Answer, Answers, Attested},
    following::{Asked, Followed},
    question::{self, Credentials, Unanswered},
};
use crate::{
    authn::{LONGEST_TOKEN, TokenDigest, TokenError},
    clock::{BootInstant, Now, boot_now},
    config::Introspection,
    gateway::{outbound::Outbound, rejection::Rejection, upstream::tls::NativeRoots},
    session::SessionId,
};

/// Questions that an endpoint has to answer at a time: invented tokens cost the issuer no more.
const MOST_QUESTIONS: usize = 32;
/// After a failure, how long old answers are believed without asking again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// One endpoint.
#[derive(Debug)]
pub(super) struct Introspector {
    pub(super) rules: Introspection,
    outbound: Outbound,
    credentials: Credentials,
    answers: Answers,
    /// Questions that wait for an answer, by the token that they are about.
    questions: Mutex<Questions>,
    slots: Semaphore,
    failed_at: AtomicU64,
    /// Sessions by its word.
    pub(super) followed: Mutex<HashMap<SessionId, Followed>>,
}

type Outcome = Result<Arc<Answer>, Arc<Unanswered>>;
type Questions = HashMap<TokenDigest, watch::Receiver<Option<Outcome>>>;

impl Introspector {
    pub(super) fn load(
        rules: &Introspection,
        roots: &mut NativeRoots,
    ) -> Result<Self, IdentityError> {
        let issuer = || rules.issuer.clone();
        Ok(Self {
            outbound: Outbound::load(&rules.outbound, roots)
                .map_err(|error| IdentityError::Outbound(issuer(), error))?,
            credentials: Credentials::load(rules)
                .map_err(|error| IdentityError::ClientSecret(issuer(), error))?,
            rules: rules.clone(),
            answers: Answers::new(),
            questions: Mutex::default(),
            slots: Semaphore::new(MOST_QUESTIONS),
            failed_at: AtomicU64::new(0),
            followed: Mutex::default(),
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.rules.issuer
    }

    pub(super) fn token_prefix(&self) -> &str {
        &self.rules.token_prefix
    }

    /// Who the token speaks for.
    pub(super) async fn identify(
        self: &Arc<Self>,
        token: &str,
        now: Now,
    ) -> Result<Recognized, Rejection> {
        check_syntax(token)?;
        let digest = TokenDigest::of(token);
        let known = self.answers.get(&digest);
        if let Some(answer) = &known
            && (self.is_fresh(answer, now.boot) || self.is_spared(answer, now.boot))
        {
            return self.recognize(answer, now);
        }
        match (self.ask(digest, token).await, known) {
            (Ok(answer), _) => self.recognize(&answer, Now::read()),
            (Err(_), Some(old)) if self.is_believed(&old, boot_now()) => {
                self.recognize(&old, Now::read())
            }
            (Err(_), _) => Err(Rejection::IntrospectionUnavailable(
                self.rules.issuer.clone(),
            )),
        }
    }

    fn recognize(
        self: &Arc<Self>,
        answer: &Arc<Answer>,
        now: Now,
    ) -> Result<Recognized, Rejection> {
        let attested = answer.said.as_ref().map_err(TokenError::clone)?;
        Ok(Recognized {
            identified: attested.active.identify(now.wall)?.clone(),
            asked: Some(Asked::new(self, answer)),
        })
    }

    /// An answer counts as long as its time to live.
    fn is_fresh(&self, answer: &Answer, now: BootInstant) -> bool {
        let ttl = match answer.said {
            Ok(_) => self.rules.active_ttl,
            Err(_) => self.rules.inactive_ttl,
        };
        now.saturating_duration_since(answer.asked_at) < ttl
    }

    /// While nobody answers, an active one counts a while longer.
    fn is_believed(&self, answer: &Answer, now: BootInstant) -> bool {
        let ttl = self.rules.active_ttl + self.rules.stale_ttl;
        answer.said.is_ok() && now.saturating_duration_since(answer.asked_at) < ttl
    }

    /// Nobody answered a moment ago, and there is an answer that will do.
    fn is_spared(&self, answer: &Answer, now: BootInstant) -> bool {
        let failed_at = BootInstant::from_nanos(self.failed_at.load(Ordering::Relaxed));
        failed_at.as_nanos() != 0
            && now.saturating_duration_since(failed_at) < FAILURE_PAUSE
            && self.is_believed(answer, now)
    }

    /// The last answer about a token.
    pub(super) fn known(&self, digest: &TokenDigest) -> Option<Arc<Answer>> {
        self.answers.get(digest)
    }

    /// Asks about a token, once for all who want to know at this moment. The question goes on if
    /// the one who asked it first is gone.
    pub(super) async fn ask(self: &Arc<Self>, digest: TokenDigest, token: &str) -> Outcome {
        let mut outcome = {
            let mut questions = self.questions();
            match questions.get(&digest) {
                Some(outcome) => outcome.clone(),
                None => {
                    let (sender, outcome) = watch::channel(None);
                    questions.insert(digest, outcome.clone());
                    let (this, token) = (Arc::clone(self), Arc::from(token));
                    tokio::spawn(async move {
                        let outcome = this.put(digest, token).await;
                        this.questions().remove(&digest);
                        sender.send_replace(Some(outcome));
                    });
                    outcome
                }
            }
        };
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task is gone: the process ends.
            _ => Err(Arc::new(Unanswered::Busy)),
        }
    }

    /// Puts the question when it is its turn, and remembers the answer.
    async fn put(&self, digest: TokenDigest, token: Arc<str>) -> Outcome {
        let Ok(Ok(_slot)) = timeout(self.rules.outbound.timeout, self.slots.acquire()).await else {
            return Err(Arc::new(Unanswered::Busy));
        };
        let asked_at = boot_now();
        let said = question::put(&self.rules, &self.outbound, &self.credentials, &token).await;
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                self.failed_at.store(asked_at.as_nanos(), Ordering::Relaxed);
                let issuer = &self.rules.issuer;
                warn!(issuer, "a token cannot be asked about: {error}");
                return Err(Arc::new(error));
            }
        };
        // A token is one principal's for life.
        let known = self.answers.get(&digest);
        let said = said.and_then(|active| match known {
            Some(known) if known.speaks_for_another(&active) => Err(TokenError::PrincipalChanged),
            _ => Ok(Attested {
                token,
                digest,
                active,
            }),
        });
        let answer = Arc::new(Answer { said, asked_at });
        self.answers.remember(digest, &answer);
        Ok(answer)
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only what can stand in a header is asked about (RFC 6750, section 2.1).
fn check_syntax(token: &str) -> Result<(), TokenError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.len() > LONGEST_TOKEN {
        return Err(TokenError::TooLong {
            length: token.len(),
        });
    }
    if token.is_empty() || !token.bytes().all(fits) {
        return Err(TokenError::Malformed("it has characters that no token has"));
    }
    Ok(())
}
