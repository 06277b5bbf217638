//! Live sessions under a changed configuration: told beforehand, or done. In slices, so that cuts
//! and requests go on between them, however many sessions there are.

use super::{
    admin::{AffectedSession, Effect, Impact},
    book::Live,
    core::Core,
    publishing::kernel_session,
    reload::weigh::{Change, Moved, Regime, Why, in_force, weigh},
};
use crate::{
    channel::{SessionLimits, ToGateway},
    clock::Now,
    policy::Mode,
    session::{Course, EndReason, Session, SessionId},
};

/// Sessions that are weighed or changed at once: below a millisecond, and their new limits fit
/// one message to the gateways.
const SLICE: usize = 128;
/// Sessions that are listed one by one.
const LISTED: usize = 10_000;

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
        let counts_payload = regime.counts_payload();
        for id in walk.slice() {
            let Some(live) = self.book.get(id) else {
                continue;
            };
            let change = self.weigh(live, regime, counts_payload, now);
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

    fn weigh(&self, live: &Live, regime: &Regime, counts_payload: bool, now: Now) -> Change {
        let session = &live.session;
        let matters = counts_payload || session.counts_payload();
        let payload = matters.then(|| self.last_payload(session.id)).flatten();
        weigh(session, regime, payload, now)
    }

    fn affected(&self, live: &Live, effect: Effect, change: &Change, now: Now) -> AffectedSession {
        let session = &live.session;
        let payload = self.last_payload(session.id);
        let at = |mode, limit| in_force(mode, limit).map(|limit| now.wall_at(limit.at));
        let ends_at = at(session.limits.mode, session.limit(payload));
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
            ends_at,
            would_end_at: match change {
                Change::Cut(_) => Some(now.wall),
                Change::Relimited { course, .. } => at(course.limits.mode, course.limit(payload)),
                Change::Unchanged => ends_at,
            },
        }
    }

    /// Puts the next sessions under `regime`: in the map first, then with the gateways. Those that
    /// it leaves no time end now. True when that was the last slice.
    pub fn relimit_slice(&mut self, walk: &mut Walk, regime: &Regime, now: Now) -> bool {
        let counts_payload = regime.counts_payload();
        let mut cut: Vec<(SessionId, Why)> = Vec::new();
        let mut relimited = Vec::with_capacity(SLICE);
        for id in walk.slice() {
            let Some(live) = self.book.get(id) else {
                continue;
            };
            let change = self.weigh(live, regime, counts_payload, now);
            walk.impact.count(&change);
            match change {
                Change::Unchanged => {}
                Change::Cut(why) => cut.push((id, why)),
                Change::Relimited { course, .. } => {
                    relimited.extend(self.relimit(id, *course, now))
                }
            }
        }
        let ids: Vec<_> = relimited.iter().map(|limits| limits.id).collect();
        if !relimited.is_empty() {
            let sessions = relimited;
            self.gateways.broadcast(ToGateway::Relimited { sessions });
        }
        // What is to be said of a session under its new limits comes after them.
        let over = ids.into_iter().filter_map(|id| self.advance(id, now));
        let over: Vec<_> = over.collect();
        self.cut(over, now);
        for why in [Why::Issuer, Why::Policies, Why::Old, Why::Idle, Why::Hours] {
            let of = cut.iter().filter(|(_, other)| *other == why);
            let ids: Vec<_> = of.map(|(id, _)| *id).collect();
            if !ids.is_empty() {
                self.end_all(&ids, EndReason::Policy, Some(why.as_str()), now);
            }
        }
        walk.is_done()
    }

    /// Puts a session under its new limits, or ends it if they came too late.
    fn relimit(&mut self, id: SessionId, course: Course, now: Now) -> Option<SessionLimits> {
        let live = self.book.get_mut(id)?;
        let published = kernel_session(&live.session, 0);
        let (deadline, hours_end_at) = (live.session.deadline(), live.session.hours_end_at());
        live.session.relimit(course);
        live.observed = false;
        let limits = limits(&live.session);
        // An earlier deadline follows from the configuration, also after a reboot.
        let later = live.session.deadline().at > deadline.at;
        let kept = !later && live.session.hours_end_at() == hours_end_at;
        if let Err(reason) = self.publish_over(id, &published, deadline.reason) {
            self.end(id, reason, now);
            return None;
        }
        if !kept {
            self.save_bounds(id, now);
        }
        Some(limits)
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

fn limits(session: &Session) -> SessionLimits {
    SessionLimits {
        id: session.id,
        deadline: session.deadline().at,
        idle_timeout: session.limits.idle_timeout,
        warn_before: session.limits.warn_before,
        enforced: session.limits.mode == Mode::Enforce,
    }
}
