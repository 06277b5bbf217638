//! Figures about the daemon, in Prometheus' text format.
//!
//! The warden keeps them all, so that they outlive a gateway and several gateways add up:
//!
//! ```text
//!   gateways: Counters --take, once a second and before a scrape--> GatewayFigures
//!                                                                        | channel
//!   audit records --------------------------------+                      v
//!                                                 +----> Tally (totals since the warden started)
//!   maps, store, audit log, book --> Snapshot ----+----> exposition: text
//! ```
//!
//! Labels come from the configuration, or from small sets of codes. None names a person, and
//! each table is bounded, whatever a captured gateway reports.

mod counters;
mod counts;
mod distribution;
mod exposition;
mod figures;
mod tally;

pub use counters::{Counters, RouteCounters};
pub use counts::Counts;
pub use distribution::Distribution;
pub use exposition::{
    CONTENT_TYPE, CanaryResult, MapFill, PolicyLoad, Snapshot, WebhookState, text,
};
pub use figures::{GatewayFigures, RouteFigures, RouteLabels};
pub use tally::Tally;
