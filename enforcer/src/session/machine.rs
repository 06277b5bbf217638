//! The life of a session: pure, `now` is an argument.
//!
//! ```text
//!            open                 limit - warn_before   limit - farewell      limit
//!   credential --> Alive ----------------> Warned ----------------> Leaving --------> over
//!                   ^  ^                      |                        |
//!                   |  +------ touch, renew --+------------------------+
//!                   +-- join: stricter limits, never a later end; relimited: other policies
//! ```
//!
//! The limit is the earlier of the deadline and the idle limit. Nothing leaves `over`: the caller
//! forgets the machine and remembers its keys as ended.

use std::{net::IpAddr, time::Duration};

use crate::{
    clock::{BootInstant, Now, WallInstant},
    policy::{ActivityKind, Applied, Limits, Mode, Terms},
};

use super::{
    CertificateId, Credential, EndReason, KeyThumbprint, Principal, SessionId, SessionKey,
};

/// More than the time between the readings of two clocks, even if the process is preempted there.
const CLOCK_READING_GAP: Duration = Duration::from_millis(10);

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing to say.
    Alive,
    /// Announced as expiring.
    Warned,
    /// The farewell has been said.
    Leaving,
}

/// When a session ends, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// When.
    pub at: BootInstant,
    /// Why.
    pub reason: EndReason,
}

/// What is to be done with a session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this instant.
    Wait(BootInstant),
    /// Announce that it is expiring.
    Warn(Limit),
    /// Say farewell.
    Farewell(Limit),
    /// Record that it has met a limit which is only observed; said once.
    Observe(Limit),
    /// It is over.
    End(Limit),
}

/// A change was refused; the session is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Under the limits the session would be over already.
    #[error("the session is older than the limits allow")]
    TooOld,
    /// The credential has expired.
    #[error("the credential has expired")]
    Expired,
    /// It is outside the hours of one of the policies.
    #[error("it is outside the hours")]
    OutsideHours,
    /// The credential does not belong to the session.
    #[error("the credential belongs to another session")]
    Stranger,
}

/// A key that leads to the session, and how long its ending must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub key: SessionKey,
    /// How long a credential with it may be shown: the latest `exp`, if that is known.
    pub until: WallInstant,
}

/// The key behind the latest of a session's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The key that signed it.
    pub key: KeyThumbprint,
    /// When the credential was accepted here.
    pub accepted_at: BootInstant,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The id.
    pub id: SessionId,
    /// Who.
    pub principal: Principal,
    /// The client that the tokens were issued to.
    pub authorized_party: Option<String>,
    /// Only credentials with the same `sid` renew it.
    pub names_session: bool,
    /// All keys that lead here.
    pub keys: Vec<KeyUse>,
    /// When it started.
    pub started_at: WallInstant,
    /// Latest end of its credentials: of each the earlier of its `exp` and the `notAfter` of the
    /// certificate that it was shown with.
    pub token_expires_at: WallInstant,
    /// The key that signed the credential with that `exp`, if its issuer can withdraw it.
    pub voucher: Option<Voucher>,
    /// The certificates that this credential stands on: the client's, and its authorities'.
    pub certificates: Vec<CertificateId>,
    /// The policies' limits that are in force.
    pub limits: Limits,
    /// Limits of its policies that are only observed, beside enforced ones.
    pub observed: Option<Limits>,
    /// The policies that apply.
    pub policies: Vec<String>,
    /// Where its first connection came from; unknown of a session that an earlier version stored.
    pub first_address: Option<IpAddr>,
    deadline: Limit,
    /// When the hours end that it was opened or joined within.
    hours_end: Option<HoursEnd>,
    /// Latest `exp` of its credentials, translated once.
    token_end: BootInstant,
    /// Start plus `max_session`, translated once: no renewal moves the end past it.
    latest_end: BootInstant,
    last_activity: BootInstant,
    phase: Phase,
    /// What is only observed has been met and told.
    observed_met: bool,
}

/// The end of hours, translated once: no step of the wall clock moves it to a later instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HoursEnd {
    wall: WallInstant,
    boot: BootInstant,
}

/// Where limits put the end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// The limits in force.
    pub limits: Limits,
    observed: Option<Limits>,
    deadline: Limit,
    hours_end: Option<HoursEnd>,
    latest_end: BootInstant,
    last_activity: BootInstant,
    observed_met: bool,
}

impl Course {
    /// When the session would end, as things stand. See [`Session::limit`].
    pub fn limit(&self, payload: Option<BootInstant>) -> Limit {
        let idle_at = idle_at(&self.limits, self.last_activity, payload);
        earlier_of(self.deadline, idle_at)
    }
}

impl HoursEnd {
    fn new(wall: WallInstant, now: Now) -> Self {
        Self {
            wall,
            boot: now.boot_at(wall),
        }
    }

    fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) if b.boot < a.boot => Some(b),
            (a, b) => a.or(b),
        }
    }
}

impl Session {
    /// Opens a session.
    pub fn open(
        id: SessionId,
        credential: &Credential,
        terms: &Terms<'_>,
        first_address: Option<IpAddr>,
        now: Now,
    ) -> Result<Self, Refused> {
        if terms.are_outside_hours(now.wall) {
            return Err(Refused::OutsideHours);
        }
        let session = Self::resume(id, credential, terms, first_address, now);
        if credential.good_until() <= now.wall {
            return Err(Refused::Expired);
        }
        if session.deadline.at <= now.boot && session.limits.mode == Mode::Enforce {
            return Err(Refused::TooOld);
        }
        Ok(session)
    }

    /// A session that was opened before, even if it is over by now.
    pub fn resume(
        id: SessionId,
        credential: &Credential,
        terms: &Terms<'_>,
        first_address: Option<IpAddr>,
        now: Now,
    ) -> Self {
        let Applied { limits, observed } = terms.applied.clone();
        let started_at = credential
            .authenticated_at
            .map_or(now.wall, |at| at.min(now.wall));
        let latest_end = now.boot_at(started_at.saturating_add(limits.max_session));
        let hours_end = terms.hours_end_at.map(|at| HoursEnd::new(at, now));
        let token_end = now.boot_at(credential.good_until());
        Self {
            id,
            principal: credential.principal.clone(),
            authorized_party: credential.authorized_party.clone(),
            names_session: credential.names_session,
            keys: vec![KeyUse {
                key: credential.key,
                until: credential.shown_until(),
            }],
            started_at,
            token_expires_at: credential.good_until(),
            voucher: voucher(credential, now),
            certificates: credential.certificates().to_vec(),
            limits,
            observed,
            policies: terms.policies.to_vec(),
            first_address,
            deadline: deadline(token_end, latest_end, hours_end),
            token_end,
            hours_end,
            latest_end,
            last_activity: now.boot,
            phase: Phase::Alive,
            observed_met: false,
        }
    }

    /// Takes a session up again after a restart, with the deadline and activity that were in
    /// force.
    pub fn restore(mut self, deadline: BootInstant, last_activity: BootInstant) -> Self {
        self.deadline.at = self.deadline.at.min(deadline);
        self.last_activity = last_activity;
        self
    }

    /// The end of the session whatever it does.
    pub fn deadline(&self) -> Limit {
        self.deadline
    }

    /// When `limit` is met by the wall clock. A deadline that comes from wall-clock instants is
    /// shown as they say it: two clocks can't be read at once, and translated there and back it
    /// would be a little different each time.
    pub fn wall_limit(&self, limit: BootInstant, now: Now) -> WallInstant {
        let shown = now.wall_at(limit);
        let session_ends_at = self.started_at.saturating_add(self.limits.max_session);
        let claimed = self.token_expires_at.min(session_ends_at);
        let claimed = self.hours_end_at().map_or(claimed, |at| claimed.min(at));
        let apart = shown
            .saturating_duration_since(claimed)
            .max(claimed.saturating_duration_since(shown));
        if limit == self.deadline.at && apart < CLOCK_READING_GAP {
            claimed
        } else {
            shown
        }
    }

    /// When the hours end that bound it.
    pub fn hours_end_at(&self) -> Option<WallInstant> {
        self.hours_end.map(|end| end.wall)
    }

    /// The last activity that the warden knows of.
    pub fn last_activity(&self) -> BootInstant {
        self.last_activity
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When it ends as things stand. `payload` is the client's last payload as the kernel saw it;
    /// it counts if the limits say so.
    pub fn limit(&self, payload: Option<BootInstant>) -> Limit {
        earlier_of(self.deadline, self.idle_at(payload))
    }

    /// Whether what the kernel sees of the client's payload moves a limit of the session.
    pub fn counts_payload(&self) -> bool {
        self.limits.count_payload() || self.observed.as_ref().is_some_and(Limits::count_payload)
    }

    /// When it ends if nothing more is heard of the client; `None` without an idle timeout.
    pub fn idle_at(&self, payload: Option<BootInstant>) -> Option<BootInstant> {
        idle_at(&self.limits, self.last_activity, payload)
    }

    /// When it meets what is only observed, while that has not been told.
    fn observed_limit(&self, payload: Option<BootInstant>) -> Option<Limit> {
        let observed = self.observed.as_ref().filter(|_| !self.observed_met)?;
        let end = Limit {
            at: self.moved_end(observed.max_session),
            reason: EndReason::Deadline,
        };
        let idle_at = idle_at(observed, self.last_activity, payload);
        Some(earlier_of(end, idle_at))
    }

    /// What is to be done now; moves the phase accordingly.
    pub fn advance(&mut self, now: BootInstant, payload: Option<BootInstant>) -> Step {
        let limit = self.limit(payload);
        let farewell_at = limit
            .at
            .saturating_sub(self.lead(limit, self.limits.farewell));
        let warn_at = limit
            .at
            .saturating_sub(self.lead(limit, self.limits.warn_before));
        let observed = self.observed_limit(payload);
        if let Some(met) = observed.filter(|observed| now >= observed.at) {
            self.observed_met = true;
            return Step::Observe(met);
        }
        let wait = |until: BootInstant| {
            Step::Wait(observed.map_or(until, |observed| until.min(observed.at)))
        };
        if now >= limit.at {
            return Step::End(limit);
        }
        if now >= farewell_at {
            if self.phase == Phase::Leaving {
                return wait(limit.at);
            }
            self.phase = Phase::Leaving;
            return Step::Farewell(limit);
        }
        if now >= warn_at {
            if self.phase == Phase::Warned {
                return wait(farewell_at);
            }
            self.phase = Phase::Warned;
            return Step::Warn(limit);
        }
        self.phase = Phase::Alive;
        wait(warn_at.min(farewell_at))
    }

    /// The client did something.
    pub fn touch(&mut self, at: BootInstant) {
        self.last_activity = self.last_activity.max(at);
    }

    /// Puts the session under more policies.
    pub fn join(&mut self, terms: &Terms<'_>, now: Now) -> Result<(), Refused> {
        if self.is_under(&terms.policies) {
            return Ok(());
        }
        if terms.are_outside_hours(now.wall) {
            return Err(Refused::OutsideHours);
        }
        let joining = terms.hours_end_at.map(|at| HoursEnd::new(at, now));
        let both = self.applied().and(&terms.applied);
        // Limits that were only observed until now bind nothing.
        let joined = if self.limits.mode == both.limits.mode {
            let hours_end = HoursEnd::earlier(self.hours_end, joining);
            let joined = self.under(&both, hours_end, now);
            Course {
                deadline: self.earlier(joined.deadline),
                ..joined
            }
        } else {
            self.under(&both, joining, now)
        };
        if now.boot >= joined.limit(None).at && joined.limits.mode == Mode::Enforce {
            return Err(Refused::TooOld);
        }
        self.follow(joined);
        for policy in terms.policies.iter() {
            if !self.policies.contains(policy) {
                self.policies.push(policy.clone());
            }
        }
        Ok(())
    }

    /// Whether all these policies apply to it already.
    pub fn is_under(&self, policies: &[String]) -> bool {
        policies.iter().all(|policy| self.policies.contains(policy))
    }

    /// Takes a newer credential: the deadline moves with its `exp`, never past the start plus
    /// `max_session`. An older credential of the same key changes nothing.
    pub fn renew(&mut self, credential: &Credential, now: Now) -> Result<(), Refused> {
        if !self.accepts(credential) {
            return Err(Refused::Stranger);
        }
        if credential.good_until() <= now.wall {
            return Err(Refused::Expired);
        }
        match self
            .keys
            .iter_mut()
            .find(|known| known.key == credential.key)
        {
            Some(known) => known.until = known.until.max(credential.shown_until()),
            None => self.keys.push(KeyUse {
                key: credential.key,
                until: credential.shown_until(),
            }),
        }
        let good_until = credential.good_until();
        if good_until > self.token_expires_at {
            self.token_expires_at = good_until;
            self.certificates = credential.certificates().to_vec();
            self.voucher = voucher(credential, now);
            self.token_end = now.boot_at(good_until);
            self.deadline = deadline(self.token_end, self.latest_end, self.hours_end);
        }
        Ok(())
    }

    /// The keys that open no session any more once it has ended for this reason. A credential that
    /// ran out is good again if its issuer, or a newer certificate beside it, says so.
    pub fn keys_ended(&self, reason: EndReason) -> Vec<KeyUse> {
        let keys = self.keys.iter().filter(|known| reason.outlasts(&known.key));
        let remembered = |known: &KeyUse| KeyUse {
            until: match reason {
                EndReason::Token => known.until.min(self.token_expires_at),
                _ => known.until,
            },
            ..*known
        };
        keys.map(remembered).collect()
    }

    /// Whether the credential may renew the session: the same key or, where no `sid` names the
    /// session, the same issuer, subject and authorized party.
    pub fn accepts(&self, credential: &Credential) -> bool {
        self.keys.iter().any(|known| known.key == credential.key)
            || !self.names_session
                && !credential.names_session
                && self.principal == credential.principal
                && self.authorized_party == credential.authorized_party
    }

    /// Whether the session still stands when `keys` are all that its issuer had at `as_of`. Of a
    /// credential that was accepted later they say nothing.
    pub fn stands_by(&self, keys: &[KeyThumbprint], as_of: BootInstant) -> bool {
        self.voucher
            .is_none_or(|voucher| voucher.accepted_at > as_of || keys.contains(&voucher.key))
    }

    /// Whether a connection from this address may belong to it.
    pub fn takes_address(&self, address: IpAddr) -> bool {
        match (self.limits.bind_network, self.first_address) {
            (Some(binding), Some(first)) => binding.network(first).contains(&address),
            _ => true,
        }
    }

    /// What its policies mean for it.
    pub fn applied(&self) -> Applied {
        Applied {
            limits: self.limits.clone(),
            observed: self.observed.clone(),
        }
    }

    /// Where other limits would put its end, as a changed configuration has them, be that later. A
    /// wall clock that was set back is not made up for.
    pub fn relimited(&self, terms: &Terms<'_>, now: Now) -> Course {
        let hours_end = if terms.hours_end_at == self.hours_end_at() {
            self.hours_end
        } else {
            terms.hours_end_at.map(|at| HoursEnd::new(at, now))
        };
        self.under(&terms.applied, hours_end, now)
    }

    /// Puts the session under other limits.
    pub fn relimit(&mut self, course: Course) {
        self.follow(course);
        self.phase = Phase::Alive;
    }

    fn under(&self, applied: &Applied, hours_end: Option<HoursEnd>, now: Now) -> Course {
        let Applied { limits, observed } = applied.clone();
        let latest_end = if limits.max_session == self.limits.max_session {
            self.latest_end
        } else {
            let claimed = now.boot_at(self.started_at.saturating_add(limits.max_session));
            self.moved_end(limits.max_session).min(claimed)
        };
        Course {
            deadline: deadline(self.token_end, latest_end, hours_end),
            hours_end,
            latest_end,
            last_activity: self.last_activity,
            observed_met: self.observed_met && observed == self.observed,
            limits,
            observed,
        }
    }

    fn follow(&mut self, course: Course) {
        Course {
            limits: self.limits,
            observed: self.observed,
            deadline: self.deadline,
            hours_end: self.hours_end,
            latest_end: self.latest_end,
            observed_met: self.observed_met,
            last_activity: _,
        } = course;
    }

    /// The latest end, were this `max_session`.
    fn moved_end(&self, max_session: Duration) -> BootInstant {
        let present = self.limits.max_session;
        if max_session >= present {
            self.latest_end.saturating_add(max_session - present)
        } else {
            self.latest_end.saturating_sub(present - max_session)
        }
    }

    /// The wall clock was set: limits that come from it move, but only to an earlier instant.
    /// `hours_end_at` is when the hours of its policies end by the clock as it is now.
    pub fn wall_clock_stepped(&mut self, hours_end_at: Option<WallInstant>, now: Now) {
        let end = now.boot_at(self.started_at.saturating_add(self.limits.max_session));
        self.latest_end = self.latest_end.min(end);
        let hours_end = hours_end_at.map(|at| HoursEnd::new(at, now));
        self.hours_end = HoursEnd::earlier(self.hours_end, hours_end);
        self.token_end = self.token_end.min(now.boot_at(self.token_expires_at));
        let moved = deadline(self.token_end, self.latest_end, self.hours_end);
        self.deadline = self.earlier(moved);
    }

    fn earlier(&self, deadline: Limit) -> Limit {
        if deadline.at < self.deadline.at {
            deadline
        } else {
            self.deadline
        }
    }

    /// How long before the limit something is said: for idle limits at most half the timeout, or
    /// every pause would start with a warning.
    fn lead(&self, limit: Limit, lead: Duration) -> Duration {
        match (limit.reason, self.limits.idle_timeout) {
            (EndReason::Idle, Some(idle_timeout)) => lead.min(idle_timeout / 2),
            _ => lead,
        }
    }
}

fn voucher(credential: &Credential, now: Now) -> Option<Voucher> {
    credential.signing_key.map(|key| Voucher {
        key,
        accepted_at: now.boot,
    })
}

/// When it ends for want of activity; `None` without an idle timeout.
fn idle_at(
    limits: &Limits,
    last_activity: BootInstant,
    payload: Option<BootInstant>,
) -> Option<BootInstant> {
    let idle_timeout = limits.idle_timeout?;
    let payload = payload.filter(|_| limits.activity == ActivityKind::Payload);
    let base = payload.map_or(last_activity, |payload| payload.max(last_activity));
    Some(base.saturating_add(idle_timeout))
}

fn earlier_of(deadline: Limit, idle_at: Option<BootInstant>) -> Limit {
    match idle_at {
        Some(at) if at < deadline.at => Limit {
            at,
            reason: EndReason::Idle,
        },
        _ => deadline,
    }
}

/// The earliest of the end of the token, the latest end of the session and the end of hours.
fn deadline(token_end: BootInstant, latest_end: BootInstant, hours_end: Option<HoursEnd>) -> Limit {
    let mut deadline = Limit {
        at: latest_end,
        reason: EndReason::Deadline,
    };
    if let Some(HoursEnd { boot, .. }) = hours_end.filter(|end| end.boot < deadline.at) {
        deadline = Limit {
            at: boot,
            reason: EndReason::Hours,
        };
    }
    if token_end < deadline.at {
        deadline = Limit {
            at: token_end,
            reason: EndReason::Token,
        };
    }
    deadline
}

#[cfg(test)]
mod tests;
