//! Policies: who may do what, from where, when, and for how long. Pure: no I/O, no clock, no lock.
//!
//! ```text
//!   configuration --> PolicySet         gateway, for each request
//!                        | decide(request: route, principal, claims, address, now)
//!                        v
//!          Denied, or a Permit with the names of the policies that apply
//!                        |
//!                        v              warden, when a session is opened or joins
//!                      Terms            the strictest value of each limit, and the end of hours
//! ```

mod applied;
mod claims;
mod explain;
mod hours;
mod index;
mod limits;
mod matching;
pub mod replay;
mod requirements;
mod set;
mod templates;
mod terms;

#[cfg(test)]
pub(crate) use limits::tests::plain;

pub use applied::Applied;
pub use claims::{ClaimConditions, ClaimValue, Claims};
pub use explain::{Because, Explanation, PolicyOutcome};
pub use hours::{BadHours, BadWindow, Hours, Window, time_zone};
pub use limits::{ActivityKind, AtSessionLimit, Limits, Mode, NetworkBinding, SessionsPerSubject};
pub use matching::{Match, Mismatch};
pub use requirements::{Denied, Requirements, Source};
pub use set::{Permit, PolicySet, Purpose, Request};
pub use templates::{TEMPLATES, Template};
pub use terms::Terms;

/// A policy of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its limits.
    pub limits: Limits,
    /// Whom it is for, besides the requests on routes that name it.
    pub matches: Option<Match>,
    /// What it asks of each request.
    pub require: Requirements,
    /// When it lets anybody in; what is in then ends with them.
    pub hours: Option<Hours>,
}

impl From<Limits> for Policy {
    /// A policy that has limits and asks for nothing.
    fn from(limits: Limits) -> Self {
        Self {
            limits,
            matches: None,
            require: Requirements::default(),
            hours: None,
        }
    }
}
