//! The privileged process: deadlines, maps, store, audit log, supervision of the gateway.

pub mod admin;
pub mod store;
