//! Sessions in the map, and whether a change to one came in time.

use enforcer_abi as abi;

use super::core::Core;
use crate::{
    clock::{self, BootInstant},
    policy::{ActivityKind, Mode},
    session::{EndReason, Session, SessionId},
};

impl Core {
    /// Writes a session's limits to the map after they changed, and makes sure that the change
    /// came in time.
    ///
    /// The programs read the clock before they look the session up. So if the write was finished
    /// before the old limit, every packet that is judged at or after the old limit sees the new
    /// one. If it wasn't, or a packet has latched the expiry, the session is over: one or the
    /// other, never half. `deadline` is why the old deadline was to end it.
    pub(super) fn publish_limits(
        &mut self,
        id: SessionId,
        deadline: EndReason,
    ) -> Result<(), EndReason> {
        let published = self.maps.session(id.as_u64()).unwrap_or_default();
        let written_at = self.write_limits(id)?;
        self.came_in_time(id, &published, deadline, written_at)
    }

    /// The same for very many sessions: what is in the map is known, and it is looked at again only
    /// where a packet can have met the old limit. Before the earliest instant that this can have,
    /// none has: payload only moves the idle limit to a later one.
    pub(super) fn publish_over(
        &mut self,
        id: SessionId,
        published: &abi::Session,
        deadline: EndReason,
    ) -> Result<(), EndReason> {
        let written_at = self.write_limits(id)?;
        let earliest = abi::session_limit(published, &abi::Activity::default());
        if written_at.as_nanos() < earliest.at_ns {
            return Ok(());
        }
        self.came_in_time(id, published, deadline, written_at)
    }

    fn write_limits(&mut self, id: SessionId) -> Result<BootInstant, EndReason> {
        let live = self.book.get(id).ok_or(EndReason::Unknown)?;
        if live.dismissal.is_some() {
            return Ok(clock::boot_now());
        }
        let value = kernel_session(&live.session, self.policy_id(&live.session));
        match self.maps.set_session(id.as_u64(), value) {
            Ok(()) => Ok(clock::boot_now()),
            Err(_) => Err(EndReason::Unknown),
        }
    }

    fn came_in_time(
        &self,
        id: SessionId,
        published: &abi::Session,
        deadline: EndReason,
        written_at: BootInstant,
    ) -> Result<(), EndReason> {
        let activity = self.activity(id);
        let old_limit = abi::session_limit(published, &activity);
        let observed = published.mode == abi::Mode::Observe.code();
        let late = written_at.as_nanos() >= old_limit.at_ns && !observed;
        if !late && activity.expired_at_ns == 0 {
            return Ok(());
        }
        Err(end_reason(old_limit.reason, deadline))
    }

    pub(super) fn policy_id(&self, session: &Session) -> u32 {
        let strictest = session
            .policies
            .iter()
            .filter_map(|name| Some((self.policies.get(name)?.limits.max_session, name)))
            .min();
        let place =
            strictest.and_then(|(_, name)| self.policies.keys().position(|key| key == name));
        place.map_or(0, |place| place as u32 + 1)
    }
}

/// Why a session ended, from the kernel's reason and what its deadline stood for.
fn end_reason(reason: abi::Reason, deadline: EndReason) -> EndReason {
    match reason {
        abi::Reason::Idle => EndReason::Idle,
        abi::Reason::Deadline => deadline,
        abi::Reason::Revoked => EndReason::Revoked,
        abi::Reason::UnknownSession | abi::Reason::PreAuthentication | abi::Reason::Untracked => {
            EndReason::Unknown
        }
    }
}

/// A session as the map holds it.
pub(super) fn kernel_session(session: &Session, policy_id: u32) -> abi::Session {
    abi::Session {
        deadline_ns: session.deadline().at.as_nanos(),
        idle_timeout_ns: session.limits.idle_timeout.map_or(0, |timeout| {
            u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
        }),
        idle_base_ns: session.last_activity().as_nanos(),
        policy_id,
        mode: match session.limits.mode {
            Mode::Enforce => abi::Mode::Enforce,
            Mode::Observe => abi::Mode::Observe,
        }
        .code(),
        activity: match session.limits.activity {
            ActivityKind::Application => abi::ActivityKind::Application,
            ActivityKind::Payload => abi::ActivityKind::Payload,
        }
        .code(),
        state: abi::SessionState::Active.code(),
    }
}
