//! enforcer: when a session dies, its sockets die, in the kernel, at the deadline.
//!
//! Data flows one way: accept -> authn -> session -> forward -> expire -> audit.
//!
//! - [`config`]: the file, parsed into types that need no second look;
//! - [`policy`], [`session`], [`authn`]: decisions, pure; `now` is an argument;
//! - [`gateway`]: the unprivileged process that talks to networks;
//! - [`warden`]: the privileged process that owns deadlines, maps, store and audit log;
//! - [`channel`]: what the two say to each other;
//! - [`kernel`]: the only door to the kernel;
//! - [`audit`], [`metrics`], [`cli`]: what people read.

pub mod audit;
pub mod authn;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gateway;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod policy;
pub mod session;
mod sqlite;
pub mod warden;
