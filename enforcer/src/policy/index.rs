//! Which policies may match a request, without looking at all of them.
//!
//! Each policy with a `match` is filed under one of its conditions, the rarest kind that it has:
//! a claim, the subject, the issuer, a network. A request looks up what it has of each.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Match, Request, claims::ClaimValue};

/// A policy's place in its set.
pub(super) type Place = usize;

#[derive(Debug, Default)]
pub(super) struct MatchIndex {
    claims: HashMap<String, ClaimIndex>,
    subjects: HashMap<String, Vec<Place>>,
    issuers: HashMap<String, Vec<Place>>,
    networks: HashMap<IpNet, Vec<Place>>,
    /// The lengths of prefixes that `networks` has, of IPv4 and of IPv6.
    prefixes: [BTreeSet<u8>; 2],
}

#[derive(Debug, Default)]
struct ClaimIndex {
    texts: HashMap<String, Vec<Place>>,
    others: HashMap<ClaimValue, Vec<Place>>,
}

impl MatchIndex {
    pub(super) fn add(&mut self, place: Place, condition: &Match) {
        if let Some((name, values)) = condition.claims.iter().next() {
            let index = self.claims.entry(name.to_owned()).or_default();
            for value in values {
                match value {
                    ClaimValue::Text(text) => index.texts.entry(text.clone()).or_default(),
                    other => index.others.entry(other.clone()).or_default(),
                }
                .push(place);
            }
        } else if !condition.subjects.is_empty() {
            for subject in &condition.subjects {
                self.subjects
                    .entry(subject.clone())
                    .or_default()
                    .push(place);
            }
        } else if !condition.issuers.is_empty() {
            for issuer in &condition.issuers {
                self.issuers.entry(issuer.clone()).or_default().push(place);
            }
        } else {
            for network in &condition.networks {
                self.prefixes[family(network.addr())].insert(network.prefix_len());
                self.networks.entry(*network).or_default().push(place);
            }
        }
    }

    /// All policies that match, and some that may not. One may be there more than once.
    pub(super) fn candidates(&self, request: &Request<'_>) -> Vec<Place> {
        let mut found = Vec::new();
        for (name, index) in &self.claims {
            for text in request.claims.members(name) {
                found.extend(index.texts.get(text).into_iter().flatten());
            }
            let others = index.others.iter();
            let held = others.filter(|(value, _)| request.claims.holds(name, value));
            found.extend(held.flat_map(|(_, places)| places));
        }
        let principal = request.principal;
        found.extend(self.subjects.get(&principal.subject).into_iter().flatten());
        found.extend(self.issuers.get(&principal.issuer).into_iter().flatten());
        for length in &self.prefixes[family(request.client)] {
            let network = IpNet::new(request.client, *length).map(|network| network.trunc());
            let places = network.ok().and_then(|network| self.networks.get(&network));
            found.extend(places.into_iter().flatten());
        }
        found
    }
}

const fn family(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 1,
    }
}
