//! The privileged process: deadlines, maps, store, audit log, supervision of the gateway.
//!
//! ```text
//!  alarm, wall clock, ring buffer, gateways, admin API, signals
//!        |  one loop on one thread (`run`)
//!        v
//!  core: requests, finding, withdrawing, observed, relimit, ending, recovery --> maps, SOCK_DESTROY
//!        |  answers, listing                                               --> gateways' outboxes
//!        +--> audit and store, each a thread of its own, never waited for
//! ```

pub mod admin;
mod alerts;
mod answers;
mod book;
pub(crate) mod canary;
mod concurrency;
mod core;
mod dismissing;
mod ending;
mod exports;
mod figures;
mod finding;
mod gateways;
mod listeners;
mod listing;
mod observed;
mod pauses;
mod processes;
mod publishing;
mod queue;
mod recorder;
mod recovery;
mod relimit;
pub mod reload;
mod renewing;
mod requests;
mod run;
pub mod store;
#[cfg(test)]
mod tests;
mod withdrawing;

pub use run::run;
