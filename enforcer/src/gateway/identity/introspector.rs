//! Asking an issuer about its tokens (RFC 7662), and remembering what it said.
//!
//! ```text
//!   answer ---- active_ttl, inactive_ttl ----> old ---- stale_ttl ----> worthless
//!     ^    believed                             |    believed while nobody answers
//!     +-----------------------------------------+
//!                 asked again, once for all who want to know
//! ```
//!
//! That nobody answers is learnt from questions about tokens that were active before, and from
//! nothing that an invented token can bring about. Who has an old answer then doesn't wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tracing::warn;

use super::{
    IdentityError, Recognized,
    answers::{Answer, Answers, Attested},
    following::{Asked, Followed},
    outage::{Outage, Silence},
    question::{self, Credentials, Unanswered},
    turns::{Acquaintance, Turns},
};
use crate::{
    authn::{LONGEST_TOKEN, TokenDigest, TokenError},
    clock::{BootInstant, Now, boot_now},
    config::Introspection,
    gateway::{outbound::Outbound, rejection::Rejection, upstream::tls::NativeRoots},
    session::SessionId,
};

/// One endpoint.
#[derive(Debug)]
pub(super) struct Introspector {
    pub(super) rules: Introspection,
    outbound: Outbound,
    credentials: Credentials,
    pub(super) answers: Answers,
    /// Questions that wait for an answer, by the token that they are about.
    questions: Mutex<Questions>,
    pub(super) turns: Turns,
    pub(super) outage: Outage,
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
            turns: Turns::new(),
            outage: Outage::new(rules.outbound.timeout),
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
        if let Some(answer) = &known {
            if self.is_fresh(answer, now.boot) {
                return self.recognize(answer, now);
            }
            if self.is_believed(answer, now.boot)
                && let Some(silence) = self.outage.silence(now.boot)
            {
                if silence == Silence::Due {
                    drop(self.question(digest, token, Acquaintance::Known));
                }
                return self.recognize(answer, now);
            }
        }
        let acquaintance = match &known {
            Some(answer) if answer.said.is_ok() => Acquaintance::Known,
            _ => Acquaintance::Stranger,
        };
        match (self.ask(digest, token, acquaintance).await, known) {
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

    /// The last answer about a token.
    pub(super) fn known(&self, digest: &TokenDigest) -> Option<Arc<Answer>> {
        self.answers.get(digest)
    }

    /// Asks about a token, once for all who want to know at this moment.
    pub(super) async fn ask(
        self: &Arc<Self>,
        digest: TokenDigest,
        token: &str,
        acquaintance: Acquaintance,
    ) -> Outcome {
        let mut outcome = self.question(digest, token, acquaintance);
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task is gone: the process ends.
            _ => Err(Arc::new(Unanswered::Busy)),
        }
    }

    /// The question about a token: the one that waits for an answer already, or a new one. It goes
    /// on if nobody waits for it.
    fn question(
        self: &Arc<Self>,
        digest: TokenDigest,
        token: &str,
        acquaintance: Acquaintance,
    ) -> watch::Receiver<Option<Outcome>> {
        let mut questions = self.questions();
        if let Some(outcome) = questions.get(&digest) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        questions.insert(digest, outcome.clone());
        let (this, token) = (Arc::clone(self), Arc::from(token));
        tokio::spawn(async move {
            let outcome = this.put(digest, token, acquaintance).await;
            this.questions().remove(&digest);
            sender.send_replace(Some(outcome));
        });
        outcome
    }

    /// Puts the question when it is its turn, and remembers the answer.
    async fn put(
        &self,
        digest: TokenDigest,
        token: Arc<str>,
        acquaintance: Acquaintance,
    ) -> Outcome {
        let patience = self.rules.outbound.timeout;
        let Ok(_turn) = self.turns.wait(acquaintance, patience).await else {
            return Err(Arc::new(Unanswered::Busy));
        };
        let asked_at = boot_now();
        let said = question::put(&self.rules, &self.outbound, &self.credentials, &token).await;
        if acquaintance == Acquaintance::Known {
            match &said {
                Ok(_) => self.outage.ends(),
                Err(error) if error.is_outage() => self.outage.begins(boot_now()),
                Err(_) => {}
            }
        }
        let said = match said {
            Ok(said) => said,
            Err(error) => {
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
