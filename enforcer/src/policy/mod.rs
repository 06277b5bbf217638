//! Policies: named sets of limits. Pure.

mod limits;

pub use limits::{ActivityKind, Limits, Mode};
