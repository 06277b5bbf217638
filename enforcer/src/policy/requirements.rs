//! What is asked of a request beyond a valid credential, and what is said when it is not met.
//!
//! Each requirement is one of a route or of a policy. All of them must be met; what the client
//! can't change is looked at first, so that nobody is sent to log in again in vain.

use std::{fmt, net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{
    Request,
    claims::{ClaimConditions, alternatives},
    hours::Hours,
};

/// `require` of a route or a policy. Empty lists ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The client is in one of these networks.
    pub networks: Vec<IpNet>,
    /// Claims and their values.
    pub claims: ClaimConditions,
    /// All of these were granted.
    pub scopes: Vec<String>,
    /// `acr` is one of these.
    pub acr: Vec<String>,
    /// One of these is in `amr`.
    pub amr: Vec<String>,
    /// Longest time since `auth_time`.
    pub max_age: Option<Duration>,
}

impl Requirements {
    /// The first key that only a token can meet.
    pub fn needs_token(&self) -> Option<&'static str> {
        let asked = [
            ("acr", !self.acr.is_empty()),
            ("amr", !self.amr.is_empty()),
            ("max_age", self.max_age.is_some()),
            ("scopes", !self.scopes.is_empty()),
            ("claims", !self.claims.is_empty()),
        ];
        let first = asked.into_iter().find(|(_, asked)| *asked);
        first.map(|(key, _)| key)
    }
}

/// Where a requirement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the request's route.
    Route,
    /// In a policy that applies.
    Policy(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("the route"),
            Self::Policy(name) => write!(f, "the policy `{name}`"),
        }
    }
}

/// A request is not allowed, whoever makes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It comes from elsewhere.
    #[error("{by} does not allow requests from {client}")]
    Network {
        /// Who says so.
        by: Source,
        /// Where it comes from.
        client: IpAddr,
    },
    /// It comes at the wrong time.
    #[error("outside the hours of {by}: {hours}")]
    Hours {
        /// Who says so.
        by: Source,
        /// When it would be allowed.
        hours: String,
    },
    /// A claim is missing or says something else.
    #[error("{by} asks for the claim `{claim}` with {wanted}")]
    Claim {
        /// Who says so.
        by: Source,
        /// Its name.
        claim: String,
        /// The values that would do.
        wanted: String,
    },
    /// Not all that is needed was granted to the client.
    #[error("{by} asks for the scope `{missing}`")]
    Scope {
        /// Who says so.
        by: Source,
        /// The first that is missing.
        missing: String,
        /// All that the request needs.
        scopes: Vec<String>,
    },
    /// The user has to authenticate better, or again (RFC 9470).
    #[error("{by} asks for {wanted}")]
    Authentication {
        /// Who says so.
        by: Source,
        /// What would do, in words.
        wanted: String,
        /// The values of `acr` that would do.
        acr_values: Vec<String>,
        /// Longest time since the user authenticated.
        max_age: Option<Duration>,
    },
}

impl Denied {
    /// The stable code, as in answers and in the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Network { .. } => "network_not_allowed",
            Self::Hours { .. } => "outside_hours",
            Self::Claim { .. } => "claim_not_allowed",
            Self::Scope { .. } => "insufficient_scope",
            Self::Authentication { .. } => "insufficient_user_authentication",
        }
    }
}

/// What one source asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `None` for the route, else the policy's name.
    pub(super) policy: Option<&'a str>,
    pub(super) requirements: &'a Requirements,
    pub(super) hours: Option<&'a Hours>,
}

impl Asked<'_> {
    fn source(&self) -> Source {
        match self.policy {
            None => Source::Route,
            Some(name) => Source::Policy(name.to_owned()),
        }
    }
}

/// Whether the request meets all that is asked.
pub(super) fn check(asked: &[Asked<'_>], request: &Request<'_>) -> Result<(), Denied> {
    check_place(asked, request)?;
    check_claims(asked, request)?;
    check_scopes(asked, request)?;
    check_authentication(asked, request)
}

fn check_place(asked: &[Asked<'_>], request: &Request<'_>) -> Result<(), Denied> {
    for asked in asked {
        let networks = &asked.requirements.networks;
        if !networks.is_empty() && !networks.iter().any(|it| it.contains(&request.client)) {
            return Err(Denied::Network {
                by: asked.source(),
                client: request.client,
            });
        }
    }
    for asked in asked {
        if let Some(hours) = asked.hours.filter(|hours| !hours.are_open(request.now)) {
            return Err(Denied::Hours {
                by: asked.source(),
                hours: hours.to_string(),
            });
        }
    }
    Ok(())
}

fn check_claims(asked: &[Asked<'_>], request: &Request<'_>) -> Result<(), Denied> {
    for asked in asked {
        if let Some((claim, values)) = asked.requirements.claims.unmet(request.claims) {
            return Err(Denied::Claim {
                by: asked.source(),
                claim: claim.to_owned(),
                wanted: alternatives(values),
            });
        }
    }
    Ok(())
}

fn check_scopes(asked: &[Asked<'_>], request: &Request<'_>) -> Result<(), Denied> {
    for by in asked {
        let mut scopes = by.requirements.scopes.iter();
        let missing = scopes.find(|scope| !request.claims.scopes().any(|it| it == scope.as_str()));
        if let Some(missing) = missing {
            let mut scopes: Vec<_> = asked
                .iter()
                .flat_map(|asked| asked.requirements.scopes.iter().cloned())
                .collect();
            scopes.sort_unstable();
            scopes.dedup();
            return Err(Denied::Scope {
                by: by.source(),
                missing: missing.clone(),
                scopes,
            });
        }
    }
    Ok(())
}

fn check_authentication(asked: &[Asked<'_>], request: &Request<'_>) -> Result<(), Denied> {
    for by in asked {
        let Some(wanted) = unmet_authentication(by.requirements, request) else {
            continue;
        };
        let all = || asked.iter().map(|asked| asked.requirements);
        return Err(Denied::Authentication {
            by: by.source(),
            wanted,
            acr_values: common_acr(all()),
            max_age: all().filter_map(|requirements| requirements.max_age).min(),
        });
    }
    Ok(())
}

/// What would do, in words; `None` if the user's authentication does.
fn unmet_authentication(requirements: &Requirements, request: &Request<'_>) -> Option<String> {
    let Requirements {
        acr, amr, max_age, ..
    } = requirements;
    let held = request.claims.acr();
    if !acr.is_empty() && !acr.iter().any(|wanted| held == Some(wanted)) {
        return Some(format!("authentication of class {}", acr.join(" or ")));
    }
    let mut methods = request.claims.amr();
    if !amr.is_empty() && !methods.any(|held| amr.iter().any(|wanted| wanted == held)) {
        return Some(format!("authentication by {}", amr.join(" or ")));
    }
    let max_age = (*max_age)?;
    let fresh = request
        .authenticated_at
        .is_some_and(|at| request.now.saturating_duration_since(at) <= max_age);
    (!fresh).then(|| {
        let ago = humantime::format_duration(max_age);
        format!("authentication within the last {ago}")
    })
}

/// What all lists of `acr` have in common, in the order of the first; where they have nothing, the
/// first.
fn common_acr<'a>(requirements: impl Iterator<Item = &'a Requirements>) -> Vec<String> {
    let lists: Vec<_> = requirements
        .map(|requirements| &requirements.acr)
        .filter(|acr| !acr.is_empty())
        .collect();
    let Some(first) = lists.first() else {
        return Vec::new();
    };
    let in_all = |acr: &&String| lists.iter().all(|list| list.contains(acr));
    let common: Vec<_> = first.iter().filter(in_all).cloned().collect();
    if common.is_empty() {
        (*first).clone()
    } else {
        common
    }
}

#[cfg(test)]
mod tests;
