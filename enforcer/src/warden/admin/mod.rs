//! The admin API: HTTP/1.1 on a unix socket, for root and a configured group.
//!
//! ```text
//! GET  /v1/status             StatusReport
//! GET  /v1/metrics            Prometheus text
//! POST /v1/canary             CanaryStatus
//! GET  /v1/sessions           [SessionInfo]
//! GET  /v1/sessions/ID        SessionDetail
//! POST /v1/revoke             RevokeRequest -> RevokeOutcome
//! POST /v1/unload             UnloadOutcome
//! POST /v1/reload             ReloadRequest -> ReloadOutcome
//! POST /v1/simulate           SimulateRequest -> SimulateOutcome
//! GET  /v1/configurations     [Version], without texts
//! GET  /v1/configurations/N   Version
//! GET  /v1/audit?since=&subject=&..&limit=&follow=true    JSON lines
//! ```
//!
//! Errors are [`ApiError`] objects. The server has a thread of its own: it asks the warden's core
//! by [`AdminCommand`]s and serializes the answers itself, so that a long listing delays no
//! deadline.

mod audit;
mod command;
mod error;
mod peer;
mod reload;
mod report;
mod routes;
mod server;

use std::path::{Path, PathBuf};

pub use self::{
    command::{
        AdminCommand, CommandFailed, Reply, RevokeOutcome, RevokeRequest, Selector, UnloadOutcome,
    },
    error::ApiError,
    peer::Peer,
    reload::{
        AffectedSession, ConfigurationStatus, Effect, Impact, RefusalCode, RefusedConfiguration,
        ReloadOutcome, ReloadRefused, ReloadRequest, SimulateOutcome, SimulateRequest,
    },
    report::{
        ConnectionInfo, DaemonStatus, GatewayState, GatewayStatus, MapStatus, ProgramStatus,
        SessionDetail, SessionInfo, SessionState, StatusReport, map_statuses, missing_parts,
        program_statuses,
    },
    server::{AdminError, AdminServer, Settings},
};

/// The admin socket in a `runtime_dir`.
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

#[cfg(test)]
mod tests;
