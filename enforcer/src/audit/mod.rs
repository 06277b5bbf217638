//! The audit log: what happened to whom, one JSON object a line, append only.
//!
//! [`Record`] is the line, [`AuditLog`] writes it from a thread of its own so that nobody waits
//! for a disk, [`LogReader`] finds lines again while the log grows.

mod reader;
mod record;
pub mod rfc3339;
mod writer;

pub use reader::{Filter, Follow, LogReader, Progress};
pub use record::{ConnectionRole, Event, Record, UnknownEvent};
pub use writer::{AuditHealth, AuditLog, AuditSink};

/// Name of the log in `state_dir`.
pub const LOG_NAME: &str = "audit.jsonl";
