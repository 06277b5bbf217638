//! Whom a policy is for, besides the requests on routes that name it.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::{
    Request,
    claims::{ClaimConditions, alternatives},
};

/// `match` of a policy: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The issuer is one of these.
    pub issuers: Vec<String>,
    /// The subject is one of these.
    pub subjects: Vec<String>,
    /// The client is in one of these networks.
    pub networks: Vec<IpNet>,
    /// Claims and their values.
    pub claims: ClaimConditions,
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another issuer.
    Issuer(String),
    /// Another subject.
    Subject(String),
    /// From elsewhere.
    Network(IpAddr),
    /// A claim that is missing or says something else.
    Claim {
        /// Its name.
        name: String,
        /// What would do.
        wanted: String,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer(issuer) => write!(f, "the issuer is `{issuer}`"),
            Self::Subject(subject) => write!(f, "the subject is `{subject}`"),
            Self::Network(client) => write!(f, "the client is {client}"),
            Self::Claim { name, wanted } => write!(f, "the claim `{name}` is not {wanted}"),
        }
    }
}

impl Match {
    /// Whether everything holds, or what doesn't.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Mismatch> {
        let given = |list: &[String], held: &String| list.is_empty() || list.contains(held);
        let principal = request.principal;
        if !given(&self.issuers, &principal.issuer) {
            return Err(Mismatch::Issuer(principal.issuer.clone()));
        }
        if !given(&self.subjects, &principal.subject) {
            return Err(Mismatch::Subject(principal.subject.clone()));
        }
        let networks = &self.networks;
        if !networks.is_empty() && !networks.iter().any(|it| it.contains(&request.client)) {
            return Err(Mismatch::Network(request.client));
        }
        match self.claims.unmet(request.claims) {
            None => Ok(()),
            Some((name, values)) => Err(Mismatch::Claim {
                name: name.to_owned(),
                wanted: alternatives(values),
            }),
        }
    }
}

/// `groups is contractors, issuer is ..`
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |list: &[String]| {
            let quoted: Vec<_> = list.iter().map(|text| format!("`{text}`")).collect();
            quoted.join(" or ")
        };
        let mut parts = Vec::new();
        if !self.issuers.is_empty() {
            parts.push(format!("issuer is {}", quoted(&self.issuers)));
        }
        if !self.subjects.is_empty() {
            parts.push(format!("subject is {}", quoted(&self.subjects)));
        }
        if !self.networks.is_empty() {
            let networks: Vec<_> = self.networks.iter().map(IpNet::to_string).collect();
            parts.push(format!("client is in {}", networks.join(" or ")));
        }
        for (name, values) in self.claims.iter() {
            parts.push(format!("`{name}` is {}", alternatives(values)));
        }
        f.write_str(&parts.join(", "))
    }
}
