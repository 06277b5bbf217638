//! What the policies of a session mean for it together.

use super::{Limits, Mode};

/// The strictest value of each limit, apart for what is enforced and for what is only observed: a
/// policy in observe mode never tightens what is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// In force: of the policies in enforce mode, or, if there is none, of all of them, observed.
    pub limits: Limits,
    /// Of the policies in observe mode beside enforced ones: recorded when met, nothing more.
    pub observed: Option<Limits>,
}

impl Applied {
    /// One policy alone.
    pub fn alone(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            observed: None,
        }
    }

    /// More policies.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let observed = strictest(self.observing(), other.observing());
        match strictest(self.enforced(), other.enforced()) {
            Some(limits) => Self { limits, observed },
            // Observed alone, on either side.
            None => Self::alone(&self.limits.strictest(&other.limits)),
        }
    }

    /// Several policies; `None` if there is none.
    pub fn of<'a>(policies: impl IntoIterator<Item = &'a Limits>) -> Option<Self> {
        let alone = policies.into_iter().map(Self::alone);
        alone.reduce(|applied, policy| applied.and(&policy))
    }

    fn enforced(&self) -> Option<&Limits> {
        (self.limits.mode == Mode::Enforce).then_some(&self.limits)
    }

    fn observing(&self) -> Option<&Limits> {
        match self.limits.mode {
            Mode::Enforce => self.observed.as_ref(),
            Mode::Observe => Some(&self.limits),
        }
    }
}

fn strictest(a: Option<&Limits>, b: Option<&Limits>) -> Option<Limits> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.strictest(b)),
        (a, b) => a.or(b).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::plain;

    fn limits() -> impl Strategy<Value = Limits> {
        let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Observe)];
        (1_u64..100, proptest::option::of(1_u64..100), mode).prop_map(|(max, idle, mode)| Limits {
            max_session: Duration::from_secs(max),
            idle_timeout: idle.map(Duration::from_secs),
            mode,
            ..plain()
        })
    }

    proptest! {
        #[test]
        fn observed_policies_tighten_nothing_that_is_enforced(
            policies in proptest::collection::vec(limits(), 1..6),
        ) {
            let applied = Applied::of(&policies).unwrap();
            let of = |mode| policies.iter().filter(move |limits| limits.mode == mode);
            let (enforced, observed) = (Applied::of(of(Mode::Enforce)), Applied::of(of(Mode::Observe)));
            match (enforced, observed) {
                (Some(enforced), observed) => {
                    prop_assert_eq!(&applied.limits, &enforced.limits);
                    prop_assert_eq!(applied.observed, observed.map(|observed| observed.limits));
                }
                (None, observed) => prop_assert_eq!(Some(applied), observed),
            }
        }

        #[test]
        fn the_order_of_policies_does_not_matter(
            policies in proptest::collection::vec(limits(), 1..6),
        ) {
            let reversed = Applied::of(policies.iter().rev());
            prop_assert_eq!(Applied::of(&policies), reversed);
        }
    }
}
