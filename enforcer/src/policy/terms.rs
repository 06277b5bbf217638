//! What the policies that apply to a session make of it together.

use std::collections::BTreeMap;

use super::{Limits, Mode, Policy};
use crate::clock::WallInstant;

/// The terms of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Names of the policies.
    pub policies: Vec<String>,
    /// The strictest value of each limit.
    pub limits: Limits,
    /// When the first of their hours end; where it is outside of some, not after `now`.
    pub hours_end_at: Option<WallInstant>,
}

impl Terms {
    /// Those of policies by their names, at `now`; `None` if there is none or one is unknown.
    pub fn of(
        names: &[String],
        policies: &BTreeMap<String, Policy>,
        now: WallInstant,
    ) -> Option<Self> {
        let mut limits: Option<Limits> = None;
        let mut hours_end_at: Option<WallInstant> = None;
        for name in names {
            let policy = policies.get(name)?;
            limits = Some(match limits {
                Some(limits) => limits.strictest(&policy.limits),
                None => policy.limits.clone(),
            });
            let Some(hours) = &policy.hours else {
                continue;
            };
            let end = match hours.open_until(now) {
                None if policy.limits.mode == Mode::Observe => continue,
                until => until.unwrap_or(now),
            };
            hours_end_at = Some(hours_end_at.map_or(end, |at| at.min(end)));
        }
        Some(Self {
            policies: names.to_vec(),
            limits: limits?,
            hours_end_at,
        })
    }

    /// It is outside the hours of one of the policies.
    pub fn are_outside_hours(&self, now: WallInstant) -> bool {
        self.hours_end_at.is_some_and(|end| end <= now)
    }
}
