//! Live sessions under a changed configuration: told beforehand, or done. In slices, so that cuts
//! and requests go on between them, however many sessions there are.

use super::{
    admin::{AffectedSession, Effect, Impact},
    book::Live,
    core::{Core, kernel_session, payload_instant},
    reload::weigh::{Change, Moved, Regime, Why, enforced, weigh},
};
use crate::{
    channel::{SessionView, ToGateway},
    clock::Now,
    session::{EndReason, SessionId},
};

/// Sessions that are weighed or changed at once: well below a millisecond.
const SLICE: usize = 128;
/// Sessions that are listed one by one.
const LISTED: usize = 10_000;
/// A message to the gateways has room for these, ..
const SESSIONS_A_MESSAGE: usize = 64;
/// .. unless the names of their policies take more than this.
const NAMES_A_MESSAGE: usize = 32 * 1024;

/// A walk over all live sessions. Those that are opened meanwhile are under the new configuration
/// already, or weigh nothing.
#[derive(Debug)]
pub struct Walk {
    ids: std::vec::IntoIter<SessionId>,
    impact: Impact,
    list: Option<Vec<AffectedSession>>,
    omitted: usize,
}

impl Walk {
    /// What was found so far.
    pub fn impact(&self) -> Impact {
        self.impact
    }

    /// The sessions that it found affected, and how many are not among them.
    pub fn into_list(self) -> (Vec<AffectedSession>, usize) {
        (self.list.unwrap_or_default(), self.omitted)
    }

    fn slice(&mut self) -> Vec<SessionId> {
        self.ids.by_ref().take(SLICE).collect()
    }

    fn is_done(&self) -> bool {
        self.ids.len() == 0
    }
}

impl Core {
    /// Starts a walk: over nothing, if no session can be `concerned`. With `listed`, it notes each
    /// session that is affected.
    pub fn walk(&self, concerned: bool, listed: bool) -> Walk {
        let ids = if concerned {
            self.book.ids()
        } else {
            Vec::new()
        };
        Walk {
            impact: Impact {
                sessions: self.book.len(),
                ..Impact::default()
            },
            ids: ids.into_iter(),
            list: (concerned && listed).then(Vec::new),
            omitted: 0,
        }
    }

    /// Finds out what `regime` would do to the next sessions. True when that was the last slice.
    pub fn weigh_slice(&self, walk: &mut Walk, regime: &Regime, now: Now) -> bool {
        for id in walk.slice() {
            let Some(live) = self.book.get(id) else {
                continue;
            };
            let payload = payload_instant(&self.activity(id));
            let change = weigh(&live.session, regime, payload, now);
            let Some(effect) = walk.impact.count(&change) else {
                continue;
            };
            let Some(list) = &mut walk.list else {
                continue;
            };
            if list.len() < LISTED {
                list.push(self.affected(live, effect, &change, now));
            } else {
                walk.omitted += 1;
            }
        }
        walk.is_done()
    }

    fn affected(&self, live: &Live, effect: Effect, change: &Change, now: Now) -> AffectedSession {
        let session = &live.session;
        let payload = payload_instant(&self.activity(session.id));
        let ends_at = |session| enforced(session, payload).map(|limit| now.wall_at(limit.at));
        AffectedSession {
            id: session.id,
            issuer: session.principal.issuer.clone(),
            subject: session.principal.subject.clone(),
            policies: session.policies.clone(),
            connections: live.legs.len(),
            effect,
            reason: match change {
                Change::Cut(why) => Some(why.as_str().to_owned()),
                Change::Unchanged | Change::Relimited { .. } => None,
            },
            ends_at: ends_at(session),
            would_end_at: match change {
                Change::Cut(_) => Some(now.wall),
                Change::Relimited { session, .. } => ends_at(session),
                Change::Unchanged => ends_at(session),
            },
        }
    }

    /// Puts the next sessions under `regime`: in the map first, then with the gateways. Those that
    /// it leaves no time end now. True when that was the last slice.
    pub fn relimit_slice(&mut self, walk: &mut Walk, regime: &Regime, now: Now) -> bool {
        let mut cut: Vec<(SessionId, Why)> = Vec::new();
        let mut news = News::default();
        for id in walk.slice() {
            let Some(live) = self.book.get(id) else {
                continue;
            };
            let payload = payload_instant(&self.activity(id));
            let change = weigh(&live.session, regime, payload, now);
            walk.impact.count(&change);
            match change {
                Change::Unchanged => {}
                Change::Cut(why) => cut.push((id, why)),
                Change::Relimited { session, .. } => {
                    let before = kernel_session(&live.session, 0);
                    let saved = session.deadline() != live.session.deadline();
                    if let Some(live) = self.book.get_mut(id) {
                        live.session = *session;
                        live.observed = false;
                    }
                    if let Err(reason) = self.publish_over(id, before) {
                        self.end(id, reason, now);
                        continue;
                    }
                    self.reschedule(id, now);
                    if saved {
                        self.save(id, now);
                    }
                    if let Some(live) = self.book.get(id) {
                        news.push(self.view(live));
                    }
                    if news.is_full() {
                        self.gateways.broadcast(news.take());
                    }
                }
            }
        }
        if !news.sessions.is_empty() {
            self.gateways.broadcast(news.take());
        }
        for why in [Why::Issuer, Why::Policies, Why::Old, Why::Idle, Why::Hours] {
            let of = cut.iter().filter(|(_, other)| *other == why);
            let ids: Vec<_> = of.map(|(id, _)| *id).collect();
            if !ids.is_empty() {
                self.end_all(&ids, EndReason::Policy, Some(why.as_str()), now);
            }
        }
        walk.is_done()
    }
}

impl Impact {
    /// Counts a session; `None` if nothing happens to it.
    fn count(&mut self, change: &Change) -> Option<Effect> {
        let (counter, effect) = match change {
            Change::Unchanged => return None,
            Change::Cut(_) => (&mut self.cut, Effect::Cut),
            Change::Relimited { moved, .. } => match moved {
                Moved::Earlier => (&mut self.shortened, Effect::Shortened),
                Moved::Later => (&mut self.lengthened, Effect::Lengthened),
                Moved::Not => (&mut self.changed, Effect::Changed),
            },
        };
        *counter += 1;
        Some(effect)
    }
}

/// What gateways are to hear, as long as it fits a message.
#[derive(Default)]
struct News {
    sessions: Vec<SessionView>,
    names: usize,
}

impl News {
    fn push(&mut self, view: SessionView) {
        self.names += view.policies.iter().map(String::len).sum::<usize>();
        self.sessions.push(view);
    }

    fn is_full(&self) -> bool {
        self.sessions.len() >= SESSIONS_A_MESSAGE || self.names >= NAMES_A_MESSAGE
    }

    fn take(&mut self) -> ToGateway {
        self.names = 0;
        ToGateway::Relimited {
            sessions: std::mem::take(&mut self.sessions),
        }
    }
}
