//! Policies: named sets of limits. Pure.

mod claims;
mod limits;

pub use claims::Claims;
pub use limits::{ActivityKind, Limits, Mode};

/// A policy of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its limits.
    pub limits: Limits,
}
