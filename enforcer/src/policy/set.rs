//! All policies of a configuration, and what they say of a request.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Claims, Denied, Mode, Policy, Requirements,
    index::{MatchIndex, Place},
    requirements::{Asked, check},
};
use crate::{
    clock::WallInstant,
    config::{Route, TunnelRoute},
    session::Principal,
};

/// A request, or a connection of a TCP listener, as policies look at it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it is for.
    pub purpose: Purpose,
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

/// What a request is for: a place in the configuration, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A route's upstream.
    Route(usize),
    /// The target of a tunnel.
    Tunnel(usize),
    /// The daemon's own answer.
    Endpoint,
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
    routes: Vec<Attached>,
    tunnels: Vec<Attached>,
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
    pub fn new(
        policies: &BTreeMap<String, Policy>,
        routes: &[Route],
        tunnels: &[TunnelRoute],
    ) -> Self {
        let routes = routes.iter().map(|it| (&it.policies[..], &it.require));
        let tunnels = tunnels.iter().map(|it| (&it.policies[..], &it.require));
        Self::of(policies, routes, tunnels)
    }

    /// Policies, and for each route and tunnel the names of its policies and what it asks for
    /// itself.
    fn of<'a>(
        policies: &BTreeMap<String, Policy>,
        routes: impl IntoIterator<Item = (&'a [String], &'a Requirements)>,
        tunnels: impl IntoIterator<Item = (&'a [String], &'a Requirements)>,
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
        let attached = |(names, require): (&[String], &Requirements)| Attached {
            policies: names.iter().filter_map(place).collect(),
            require: require.clone(),
        };
        Self {
            routes: routes.into_iter().map(attached).collect(),
            tunnels: tunnels.into_iter().map(attached).collect(),
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
        if let Some(route) = self.attached(request) {
            applying.extend(&route.policies);
            applying.sort_unstable();
            applying.dedup();
        }
        applying
    }

    /// What the request's route or tunnel says.
    pub(super) fn attached(&self, request: &Request<'_>) -> Option<&Attached> {
        match request.purpose {
            Purpose::Route(place) => self.routes.get(place),
            Purpose::Tunnel(place) => self.tunnels.get(place),
            Purpose::Endpoint => None,
        }
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
        let of_route = self.attached(request).map(|route| Asked {
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
