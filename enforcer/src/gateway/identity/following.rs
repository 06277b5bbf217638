//! Sessions by the word of an introspection endpoint: asked about again while they live, and ended
//! when the word is taken back.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tracing::debug;

use super::{
    answers::{Answer, Attested},
    introspector::Introspector,
    question::Unanswered,
    turns::Acquaintance,
};
use crate::{
    authn::TokenDigest,
    channel::{EndCause, ToWarden},
    clock::boot_now,
    gateway::{link::Link, sessions::SessionHandle},
    session::SessionId,
};

/// That an issuer was asked about a token, and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    introspector: Arc<Introspector>,
    answer: Arc<Answer>,
}

/// A session that is followed: the answer about its latest token.
#[derive(Debug)]
pub(super) struct Followed(watch::Sender<Arc<Answer>>);

impl Asked {
    pub(super) fn new(introspector: &Arc<Introspector>, answer: &Arc<Answer>) -> Self {
        Self {
            introspector: Arc::clone(introspector),
            answer: Arc::clone(answer),
        }
    }

    /// Whether the issuer's tokens are good for nothing unless they are bound to a certificate.
    pub(super) fn binds_certificates(&self) -> bool {
        self.introspector.rules.certificate_bound
    }

    /// The token has opened or renewed this session, or is used in it.
    pub(crate) fn follow(&self, link: &Arc<Link>, session: &SessionHandle) {
        let mut followed = self.introspector.followed();
        if let Some(Followed(latest)) = followed.get(&session.id()) {
            latest.send_if_modified(|latest| {
                let newer = self.answer.expires_later(latest);
                if newer {
                    *latest = Arc::clone(&self.answer);
                }
                newer
            });
            return;
        }
        let (sender, latest) = watch::channel(Arc::clone(&self.answer));
        followed.insert(session.id(), Followed(sender));
        let introspector = Arc::clone(&self.introspector);
        tokio::spawn(introspector.watch_over(Arc::clone(link), session.clone(), latest));
    }
}

impl Asked {
    /// The session's token is still active. If it ends later than was said before, so does the
    /// session.
    async fn confirm(&self, link: &Arc<Link>, session: &SessionHandle, last: &Answer) {
        let Ok(Attested { active, .. }) = &self.answer.said else {
            return;
        };
        if self.answer.expires_later(last) {
            let renewed = link.renew(session.id(), active.credential()).await;
            if let Err(refusal) = renewed {
                debug!(session = %session.id(), "not renewed: {refusal}");
            }
            self.follow(link, session);
        }
    }
}

impl Introspector {
    fn followed(&self) -> MutexGuard<'_, HashMap<SessionId, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks about a session's token again and again until the session is over.
    async fn watch_over(
        self: Arc<Self>,
        link: Arc<Link>,
        session: SessionHandle,
        mut latest: watch::Receiver<Arc<Answer>>,
    ) {
        loop {
            tokio::select! {
                _ = session.ended() => break,
                () = tokio::time::sleep(self.until_recheck(session.id())) => {}
            }
            let last = Arc::clone(&latest.borrow_and_update());
            // Only answers about active tokens are followed.
            let Ok(Attested { token, digest, .. }) = &last.said else {
                break;
            };
            let cause = match self.ask(*digest, token, Acquaintance::Known).await {
                Ok(answer) if last.is_confirmed_by(&answer) => {
                    Asked::new(&self, &answer)
                        .confirm(&link, &session, &last)
                        .await;
                    continue;
                }
                // Another token may have taken its place meanwhile.
                Ok(_) if latest.has_changed().unwrap_or(false) => continue,
                Ok(_) => EndCause::TokenInactive,
                Err(error) if self.stands(digest, &last, &error) => continue,
                Err(_) => EndCause::TokenUnconfirmed,
            };
            let session = session.id();
            link.tell(ToWarden::End { session, cause });
        }
        self.followed().remove(&session.id());
    }

    /// There is no answer: whether a session may go on by the last word about its token. As long as
    /// the endpoint answers others it may: that a question's turn doesn't come is nobody's word.
    fn stands(&self, digest: &TokenDigest, last: &Arc<Answer>, error: &Unanswered) -> bool {
        let now = boot_now();
        if matches!(error, Unanswered::Busy) && self.outage.silence(now).is_none() {
            return true;
        }
        let newest = self.known(digest).unwrap_or_else(|| Arc::clone(last));
        let ttl = self.rules.active_ttl.max(self.rules.recheck_interval) + self.rules.stale_ttl;
        let age = now.saturating_duration_since(newest.asked_at);
        last.is_confirmed_by(&newest) && age < ttl
    }

    /// The interval, a little shorter for each session by its id: those that were opened together
    /// are not all asked about together.
    fn until_recheck(&self, session: SessionId) -> Duration {
        let interval = self.rules.recheck_interval;
        let part = u32::try_from(session.as_u64() % 256).unwrap_or_default();
        interval - interval / 4 * part / 256
    }
}
