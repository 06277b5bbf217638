//! What the policies that apply to a session make of it together.

use std::{borrow::Cow, collections::BTreeMap};

use super::{Applied, Mode, Policy};
use crate::clock::WallInstant;

/// The terms of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// Names of the policies.
    pub policies: Cow<'a, [String]>,
    /// The strictest value of each limit: in force, and only observed.
    pub applied: Applied,
    /// When the first of their hours end; where it is outside of some, not after `now`. Hours of
    /// policies that are only observed beside enforced ones bind nothing.
    pub hours_end_at: Option<WallInstant>,
}

impl<'a> Terms<'a> {
    /// Those of policies by their names, at `now`; `None` if there is none or one is unknown.
    pub fn of(
        names: &'a [String],
        policies: &BTreeMap<String, Policy>,
        now: WallInstant,
    ) -> Option<Self> {
        let known = names.iter().all(|name| policies.contains_key(name));
        known.then(|| Self::of_known(names, policies, now))?
    }

    /// The same for a session that lives already. A policy that is no longer configured leaves the
    /// others, and stays noted in case it comes back; `None` if none is left.
    pub fn of_known(
        names: &'a [String],
        policies: &BTreeMap<String, Policy>,
        now: WallInstant,
    ) -> Option<Self> {
        let known = || names.iter().filter_map(|name| policies.get(name));
        let applied = Applied::of(known().map(|policy| &policy.limits))?;
        let mode = applied.limits.mode;
        let in_force = known().filter(|policy| policy.limits.mode == mode);
        let ends = in_force.filter_map(|policy| {
            let until = policy.hours.as_ref()?.open_until(now);
            match (until, mode) {
                (None, Mode::Observe) => None,
                (until, _) => Some(until.unwrap_or(now)),
            }
        });
        Some(Self {
            policies: names.into(),
            hours_end_at: ends.min(),
            applied,
        })
    }

    /// It is outside the hours of one of the policies.
    pub fn are_outside_hours(&self, now: WallInstant) -> bool {
        self.hours_end_at.is_some_and(|end| end <= now)
    }
}
