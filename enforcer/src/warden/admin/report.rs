//! What the admin API tells: the shapes of its JSON, and of the command line's `--json`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ConfigurationStatus;
use crate::{
    audit::{AuditHealth, ConnectionRole, ExporterHealth, rfc3339},
    clock::WallInstant,
    kernel::{
        attach::{Inspection, Unattached},
        maps::Fill,
    },
    policy::Mode,
    session::SessionId,
    warden::{canary::CanaryStatus, store::StoreHealth},
};

/// A live session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The id.
    pub id: SessionId,
    /// Its principal's issuer.
    pub issuer: String,
    /// Its principal's subject within the issuer.
    pub subject: String,
    /// Names of the policies that apply.
    pub policies: Vec<String>,
    /// Whether its limits are enforced.
    pub mode: Mode,
    /// How far it is.
    pub state: SessionState,
    /// Whole seconds since its start.
    pub age_seconds: u64,
    /// Whole seconds to its deadline.
    pub expires_in_seconds: u64,
    /// Whole seconds to its idle limit, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_in_seconds: Option<u64>,
    /// Its idle timeout in whole seconds, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u64>,
    /// Its deadline.
    #[serde(with = "rfc3339")]
    pub deadline: WallInstant,
    /// How many connections it has.
    pub connections: usize,
}

/// How far a live session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Its end is not near.
    Active,
    /// It ends within `warn_before`.
    Expiring,
    /// It is past its limit: it is being cut, or only observed.
    Expired,
}

impl SessionState {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
        }
    }
}

/// A live session with its connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// The session.
    pub info: SessionInfo,
    /// Its connections.
    pub connections: Vec<ConnectionInfo>,
}

/// An open connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Cookie of its socket.
    pub cookie: u64,
    /// What it is to the session.
    pub role: ConnectionRole,
    /// The other end.
    pub remote: SocketAddr,
    /// This host's end.
    pub local: SocketAddr,
    /// When its handshake finished.
    #[serde(with = "rfc3339")]
    pub opened_at: WallInstant,
}

/// Is enforcement on, and if not, what is missing?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Every deadline is enforced, by the kernel and with a daemon that looks after it.
    pub enforcing: bool,
    /// What is missing or failing, one thing each.
    pub problems: Vec<String>,
    /// `uname -r`.
    pub kernel_release: String,
    /// Version of the maps' layouts.
    pub abi_version: u32,
    /// The eBPF programs.
    pub programs: Vec<ProgramStatus>,
    /// The eBPF maps.
    pub maps: Vec<MapStatus>,
    /// What only a running daemon knows.
    #[serde(flatten)]
    pub daemon: Option<DaemonStatus>,
}

/// An eBPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// It is attached to the daemon's cgroup.
    pub attached: bool,
    /// Its link is pinned.
    pub pinned: bool,
}

/// An eBPF map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// It is pinned.
    pub pinned: bool,
    /// Entries in it, where that means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Entries that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
}

/// The programs of an inspection.
pub fn program_statuses(inspection: &Inspection) -> Vec<ProgramStatus> {
    let status = |(name, state): &(&str, Result<(), Unattached>)| ProgramStatus {
        name: (*name).to_owned(),
        attached: state.is_ok(),
        pinned: !matches!(state, Err(Unattached::NotPinned)),
    };
    inspection.programs.iter().map(status).collect()
}

/// The maps of an inspection, with how full they are where that is known.
pub fn map_statuses(
    inspection: &Inspection,
    fill: impl Fn(&str) -> Option<Fill>,
) -> Vec<MapStatus> {
    let status = |(name, pinned): &(&str, bool)| {
        let fill = fill(name);
        MapStatus {
            name: (*name).to_owned(),
            pinned: *pinned,
            entries: fill.map(|fill| fill.entries),
            capacity: fill.map(|fill| fill.capacity),
        }
    };
    inspection.maps.iter().map(status).collect()
}

/// Which of the programs and maps that should be there are not, one sentence each.
pub fn missing_parts(programs: &[ProgramStatus], maps: &[MapStatus]) -> Vec<String> {
    let mut missing = Vec::new();
    for program in programs {
        if !program.attached {
            missing.push(format!("program {} is not attached", program.name));
        }
        if !program.pinned {
            missing.push(format!(
                "the link of program {} is not pinned",
                program.name
            ));
        }
    }
    for map in maps.iter().filter(|map| !map.pinned) {
        missing.push(format!("map {} is not pinned", map.name));
    }
    missing
}

/// The running daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// The warden's process.
    pub pid: u32,
    /// Whole seconds since it started.
    pub uptime_seconds: u64,
    /// Live sessions.
    pub sessions: usize,
    /// Open connections that belong to them.
    pub connections: usize,
    /// Its gateways: one that serves, and old ones that drain.
    pub gateways: Vec<GatewayStatus>,
    /// The store.
    pub store: StoreHealth,
    /// The audit log.
    pub audit: AuditHealth,
    /// What passes its records on.
    #[serde(default)]
    pub exports: Vec<ExporterHealth>,
    /// The configuration.
    pub configuration: ConfigurationStatus,
    /// How the last canary went, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
}

/// A gateway process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// The process.
    pub pid: u32,
    /// What it does.
    pub state: GatewayState,
    /// It gave up its rights.
    pub sealed: bool,
}

/// What a gateway does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayState {
    /// It reads its configuration and seals itself.
    Starting,
    /// It accepts connections.
    Serving,
    /// It serves what it has, and then exits.
    Draining,
}

impl GatewayState {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}
