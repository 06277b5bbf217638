//! What is left in the kernel, read without a daemon.

use anyhow::{Context, Result};

use super::{maps::Maps, status::Pins};
use crate::{
    config::Daemon,
    kernel::{attach, cgroup::DaemonCgroup, maps},
    warden::admin::{map_statuses, program_statuses},
};

/// Which programs are attached and which maps are pinned.
///
/// # Errors
/// If the daemon's cgroup can't be told.
pub(super) fn inspect(daemon: &Daemon) -> Result<Pins> {
    let cgroup = locate(daemon)?;
    let inspection = attach::inspect(&daemon.bpf_dir, &cgroup);
    Ok(Pins {
        programs: program_statuses(&inspection),
        maps: map_statuses(&inspection, |_| None),
    })
}

/// The daemon's cgroup: the one that its programs are attached to, since where the daemon was
/// started can't be told from here; without programs, the configured or usual one.
fn locate(daemon: &Daemon) -> Result<DaemonCgroup> {
    match attach::attached_to(&daemon.bpf_dir) {
        Some(cgroup) if daemon.cgroup.is_none() => Ok(cgroup),
        _ => Ok(DaemonCgroup::locate(daemon.cgroup.as_deref())?),
    }
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
    let cgroup = locate(daemon)?;
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
