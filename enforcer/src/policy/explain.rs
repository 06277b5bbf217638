//! The decision about a request, with what it comes from.

use super::{Denied, Match, Mismatch, Permit, Policy, PolicySet, Request};

/// Why a policy applies, or doesn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// It applies: the route names it.
    Route,
    /// It applies: this holds.
    Matches(Match),
    /// It doesn't: the route names others, and this does not hold.
    Mismatch(Mismatch),
    /// It doesn't: the route names others, and it has no `match`.
    NotNamed,
}

/// What becomes of a policy.
#[derive(Clone, Debug)]
pub struct PolicyOutcome<'a> {
    /// Its name.
    pub name: &'a str,
    /// The policy.
    pub policy: &'a Policy,
    /// Why it applies, or doesn't.
    pub because: Because,
}

impl PolicyOutcome<'_> {
    /// It applies.
    pub const fn applies(&self) -> bool {
        matches!(self.because, Because::Route | Because::Matches(_))
    }
}

/// A decision and what it comes from.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    /// Every policy, in the order of the names.
    pub policies: Vec<PolicyOutcome<'a>>,
    /// What [`PolicySet::decide`] says.
    pub decision: Result<Permit, Denied>,
}

impl PolicySet {
    /// The decision about a request, by looking at every policy.
    pub fn explain(&self, request: &Request<'_>) -> Explanation<'_> {
        let route = self.attached(request);
        let named = |place| route.is_some_and(|route| route.policies.contains(&place));
        let outcomes = self.policies.iter().enumerate();
        let policies: Vec<_> = outcomes
            .map(|(place, (name, policy))| PolicyOutcome {
                name,
                policy,
                because: match &policy.matches {
                    _ if named(place) => Because::Route,
                    None => Because::NotNamed,
                    Some(condition) => match condition.check(request) {
                        Ok(()) => Because::Matches(condition.clone()),
                        Err(mismatch) => Because::Mismatch(mismatch),
                    },
                },
            })
            .collect();
        let applying: Vec<_> = (0..policies.len())
            .filter(|place| policies[*place].applies())
            .collect();
        let decision = self.judge(request, &applying);
        Explanation { policies, decision }
    }
}
