//! All policies of a configuration, and what they say of a request.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Claims, Denied, Mode, Policy, Requirements,
    index::{MatchIndex, Place},
    requirements::{Asked, check},
};
use crate::{clock::WallInstant, config::Route, session::Principal};

/// A request, or a connection of a TCP listener, as policies look at it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its route's place in the configuration; `None` for the daemon's own endpoints.
    pub route: Option<usize>,
    /// Who makes it.
    pub principal: &'a Principal,
    /// What the issuer says of them.
    pub claims: &'a Claims,
    /// `auth_time`.
    pub authenticated_at: Option<WallInstant>,
    /// Where it comes from: as a proxy announced it, if there is one.
    pub client: IpAddr,
    /// When.
    pub now: WallInstant,
}

/// A request may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The policies that apply to its session from now on.
    pub policies: Vec<String>,
    /// What a policy that only observes would have said.
    pub observed: Option<Denied>,
}

/// The policies and the routes that name them.
#[derive(Debug)]
pub struct PolicySet {
    pub(super) policies: Vec<(String, Policy)>,
    pub(super) routes: Vec<Attached>,
    index: MatchIndex,
}

/// What a route says of policies.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) policies: Vec<Place>,
    pub(super) require: Requirements,
}

impl PolicySet {
    /// Those of a configuration.
    pub fn new(policies: &BTreeMap<String, Policy>, routes: &[Route]) -> Self {
        let routes = routes
            .iter()
            .map(|route| (&route.policies[..], &route.require));
        Self::of(policies, routes)
    }

    /// Policies, and for each route the names of its policies and what it asks for itself.
    fn of<'a>(
        policies: &BTreeMap<String, Policy>,
        routes: impl IntoIterator<Item = (&'a [String], &'a Requirements)>,
    ) -> Self {
        let policies: Vec<_> = policies
            .iter()
            .map(|(name, policy)| (name.clone(), policy.clone()))
            .collect();
        let mut index = MatchIndex::default();
        for (place, (_, policy)) in policies.iter().enumerate() {
            if let Some(condition) = &policy.matches {
                index.add(place, condition);
            }
        }
        let place = |name: &String| policies.binary_search_by(|(held, _)| held.cmp(name)).ok();
        let routes = routes.into_iter().map(|(names, require)| Attached {
            policies: names.iter().filter_map(place).collect(),
            require: require.clone(),
        });
        Self {
            routes: routes.collect(),
            policies,
            index,
        }
    }

    /// Whether a request may go on, and the policies that apply.
    ///
    /// # Errors
    /// What is asked of it and not met.
    pub fn decide(&self, request: &Request<'_>) -> Result<Permit, Denied> {
        let applying = self.applying(request);
        self.judge(request, &applying)
    }

    /// Names of the policies that apply, whatever they ask for.
    pub fn names(&self, request: &Request<'_>) -> Vec<String> {
        let applying = self.applying(request).into_iter();
        applying
            .map(|place| self.policies[place].0.clone())
            .collect()
    }

    /// The policies that apply, in the order of their names.
    fn applying(&self, request: &Request<'_>) -> Vec<Place> {
        let mut applying = self.index.candidates(request);
        applying.sort_unstable();
        applying.dedup();
        applying.retain(|place| {
            let condition = self.policies[*place].1.matches.as_ref();
            condition.is_some_and(|condition| condition.check(request).is_ok())
        });
        if let Some(route) = self.route(request) {
            applying.extend(&route.policies);
            applying.sort_unstable();
            applying.dedup();
        }
        applying
    }

    pub(super) fn route(&self, request: &Request<'_>) -> Option<&Attached> {
        self.routes.get(request.route?)
    }

    pub(super) fn judge(
        &self,
        request: &Request<'_>,
        applying: &[Place],
    ) -> Result<Permit, Denied> {
        let of_mode = |mode| {
            let policies = applying.iter().map(|place| &self.policies[*place]);
            policies
                .filter(move |(_, policy)| policy.limits.mode == mode)
                .map(|(name, policy)| Asked {
                    policy: Some(name),
                    requirements: &policy.require,
                    hours: policy.hours.as_ref(),
                })
        };
        let of_route = self.route(request).map(|route| Asked {
            policy: None,
            requirements: &route.require,
            hours: None,
        });
        let enforced: Vec<_> = of_route.into_iter().chain(of_mode(Mode::Enforce)).collect();
        check(&enforced, request)?;
        let observed: Vec<_> = of_mode(Mode::Observe).collect();
        let names = applying.iter().map(|place| self.policies[*place].0.clone());
        Ok(Permit {
            policies: names.collect(),
            observed: check(&observed, request).err(),
        })
    }
}

#[cfg(test)]
mod tests;
