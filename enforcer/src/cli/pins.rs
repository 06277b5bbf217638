//! What is left in the kernel, read without a daemon.

use anyhow::{Context, Result};

use super::{maps::Maps, status::Pins};
use crate::{
    config::Daemon,
    kernel::{attach, cgroup::DaemonCgroup, maps},
    warden::admin::{MapStatus, ProgramStatus},
};

/// Which programs are attached and which maps are pinned.
///
/// # Errors
/// If the daemon's cgroup can't be told.
pub(super) fn inspect(daemon: &Daemon) -> Result<Pins> {
    let cgroup = DaemonCgroup::locate(daemon.cgroup.as_deref())?;
    let inspection = attach::inspect(&daemon.bpf_dir, &cgroup);
    Ok(Pins {
        programs: program_statuses(&inspection),
        maps: map_statuses(&inspection, None),
    })
}

/// The programs of an inspection, as they are reported.
pub(crate) fn program_statuses(inspection: &attach::Inspection) -> Vec<ProgramStatus> {
    let status = |(name, state): &(&str, Result<(), attach::Unattached>)| ProgramStatus {
        name: (*name).to_owned(),
        attached: state.is_ok(),
        pinned: !matches!(state, Err(attach::Unattached::NotPinned)),
    };
    inspection.programs.iter().map(status).collect()
}

/// The maps of an inspection, as they are reported, with how full they are if they were opened.
pub(crate) fn map_statuses(
    inspection: &attach::Inspection,
    opened: Option<&maps::Maps>,
) -> Vec<MapStatus> {
    let fill = |name: &str| opened.and_then(|maps| maps.fill(name));
    let status = |(name, pinned): &(&'static str, bool)| MapStatus {
        name: (*name).to_owned(),
        pinned: *pinned,
        entries: fill(name).map(|fill| fill.entries),
        capacity: fill(name).map(|fill| fill.capacity),
    };
    inspection.maps.iter().map(status).collect()
}

/// The contents of the pinned maps.
///
/// # Errors
/// If they aren't pinned or have another layout.
pub(super) fn read_maps(daemon: &Daemon) -> Result<Maps> {
    let opened = maps::Maps::open(&daemon.bpf_dir).with_context(|| {
        format!(
            "no maps can be read in {}: start the daemon, or name its configuration with --config",
            daemon.bpf_dir.display()
        )
    })?;
    Ok(Maps {
        control: opened.control(),
        stats: opened.stats(),
        sessions: opened.sessions(),
        bindings: opened.bindings(),
        connections: opened.connections(),
        activity: opened.activities(),
    })
}

/// Detaches the programs and removes pins and cgroups. Returns what was removed.
///
/// # Errors
/// If something can't be removed.
pub(super) fn remove(daemon: &Daemon) -> Result<Vec<String>> {
    let cgroup = DaemonCgroup::locate(daemon.cgroup.as_deref())?;
    let mut removed = Vec::new();
    if daemon.bpf_dir.exists() {
        attach::remove(&daemon.bpf_dir)?;
        removed.push(format!(
            "the programs and maps pinned in {}",
            daemon.bpf_dir.display()
        ));
    }
    if cgroup.path().exists() {
        cgroup.kill_gateways();
        cgroup.remove();
        if !cgroup.path().exists() {
            removed.push(format!("the cgroup {}", cgroup.path().display()));
        }
    }
    Ok(removed)
}
