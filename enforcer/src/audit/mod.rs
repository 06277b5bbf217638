//! The audit log: what happened to whom, in a database whose records hang together.
//!
//! ```text
//! warden --write--> queue --> writer thread --> audit.db: records, each with the hash of the
//!                               (keeper)         |       one before
//!                                  |             +--> reader: filters, follows
//!                                  v             v
//!                            signed heads ---> verify: nothing removed, changed or cut off
//! ```
//!
//! [`Record`] is what is written, [`AuditSink::write`] the one way in; it never waits for a disk.
//! [`AuditReader`] finds records again, [`verify()`] says whether they are what was written.

mod chain;
mod detectors;
mod export;
mod filter;
mod floods;
mod heads;
mod index;
mod keeper;
mod ledger;
mod lines;
mod reader;
mod record;
pub mod rfc3339;
mod settings;
mod signing;
mod verify;
mod writer;

pub use chain::{ChainId, Hash, InvalidDigits, Position};
pub use detectors::{Alert, DetectorKind, DetectorSettings, Detectors};
pub use export::{Destination, Exporter, ExporterHealth, ExporterParts, HandOver};
pub(crate) use export::{host_name, is_grave, syslog_message};
pub use filter::{Filter, InvalidFilter, parse_network};
pub use reader::{AuditReader, ReadError, StoredRecord};
pub use record::{ConnectionRole, Event, Record, UnknownEvent};
pub use settings::AuditSettings;
pub use signing::{KeyError, PUBLIC_KEY_NAME, PublicKey, Statement};
pub use verify::{Evidence, Fault, Finding, Verification, VerifyError, verify};
pub use writer::{AuditHealth, AuditLog, AuditSink};

/// Name of the database in `state_dir`.
pub const DATABASE_NAME: &str = "audit.db";
/// Name of the file of signed heads in `state_dir`, unless it is to be elsewhere.
pub const HEADS_NAME: &str = "audit.heads";
