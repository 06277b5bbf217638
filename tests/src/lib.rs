//! The test bed: network namespaces, cgroups and real peers for the end-to-end tests, the
//! demonstration and the measurements.
//!
//! A [`Scene`] is all of it in one: a [`Bed`] (two namespaces joined by a cable, a cgroup, a folder
//! on bpffs, a folder for files), an [`Upstream`](upstream::Upstream), an
//! [`Issuer`](issuer::Issuer) of tokens, a [`Config`](config::Config) to change, and on demand the
//! [`Daemon`](daemon::Daemon), a [`Client`](client::Client) and a [`Capture`](capture::Capture).
//!
//! ```text
//!   namespace client                       namespace daemon
//!   +--------------------+  veth pair  +---------------------------+
//!   | Client, curl       |=============| Daemon (in its own cgroup) |
//!   | Capture (tcpdump)  |             | Upstream, nginx            |
//!   +--------------------+             +---------------------------+
//! ```
//!
//! The peers are not enforcer's code, and what is promised is measured on the cable: a veth has no
//! queue, so what leaves the daemon's IP layer is captured within microseconds.

pub mod audit_load;
pub mod bed;
#[cfg(target_arch = "x86_64")]
pub mod captive;
pub mod capture;
pub mod certificates;
pub mod chromium;
pub mod client;
pub mod collector;
pub mod config;
pub mod connect;
pub mod cut_lateness;
pub mod daemon;
pub mod demo;
mod forwarder;
pub mod grpc;
pub mod haproxy;
pub mod interim;
pub mod issuer;
pub mod knocking;
pub mod metrics;
pub mod namespace;
pub mod nginx;
pub mod node_tunnel;
pub mod notifications;
pub mod pgbench;
pub mod policy_decision;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod receiver;
pub mod reload_under_load;
pub mod rsyslog;
pub mod scene;
pub mod streams;
pub mod throughput;
pub mod upstream;
pub mod wait;
pub mod websockets;
pub mod wire;

pub use bed::Bed;
pub use scene::Scene;
pub use streams::Streams;
