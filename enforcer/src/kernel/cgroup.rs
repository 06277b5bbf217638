//! The daemon's cgroup (version 2): parent of the warden's and the gateways'.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A cgroup could not be found or used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error(
        "cgroup v2 is not mounted: boot with systemd.unified_cgroup_hierarchy=1, or mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    NotMounted,
    /// The configured path lies outside the cgroup2 mount.
    #[error("{path} is not below the cgroup v2 mount {root}: set daemon.cgroup to a folder there")]
    Outside {
        /// The configured path.
        path: PathBuf,
        /// The mount.
        root: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Where cgroup version 2 is mounted: the unified hierarchy, or systemd's hybrid one.
pub fn mount_point() -> Result<PathBuf, CgroupError> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    // mountinfo: id parent dev root mountpoint options [tags..] - fstype source superoptions
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(_, kind)| kind.split(' ').next() == Some("cgroup2"))
        .find_map(|(mount, _)| mount.split(' ').nth(4).map(PathBuf::from))
        .ok_or(CgroupError::NotMounted)
}

/// The cgroup that this process is in, as a folder.
pub fn own(root: &Path) -> Result<PathBuf, CgroupError> {
    let memberships = read(Path::new("/proc/self/cgroup"))?;
    let path = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    Ok(root.join(path))
}

/// The daemon's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonCgroup(PathBuf);

impl DaemonCgroup {
    /// The configured folder; else, where systemd has delegated one, the folder that this process
    /// was started in; else `enforcer` below the root.
    pub fn locate(configured: Option<&Path>) -> Result<Self, CgroupError> {
        let root = mount_point()?;
        if let Some(path) = configured {
            return if path.starts_with(&root) && path != root {
                Ok(Self(path.to_owned()))
            } else {
                Err(CgroupError::Outside {
                    path: path.to_owned(),
                    root,
                })
            };
        }
        let own = own(&root)?;
        // A restarted warden may have been left in the `warden` folder of an earlier one.
        let unit = if own.ends_with("warden") {
            own.parent().unwrap_or(&own)
        } else {
            &own
        };
        let delegated = unit.extension().is_some_and(|suffix| suffix == "service");
        Ok(Self(if delegated {
            unit.to_owned()
        } else {
            root.join("enforcer")
        }))
    }

    /// The folder with this id, wherever it is below the root.
    pub fn by_id(id: u64) -> Option<Self> {
        let mut folders = vec![mount_point().ok()?];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() && metadata.ino() == id => {
                        return Some(Self(entry.path()));
                    }
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    _ => {}
                }
            }
        }
        None
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The cgroup's id, as the kernel shows it in links; `None` if the folder does not exist.
    pub fn id(&self) -> Option<u64> {
        fs::metadata(&self.0).ok().map(|metadata| metadata.ino())
    }

    /// Makes the folder and the warden's in it, and moves this process there: sockets made from
    /// then on belong to it.
    pub fn enter(&self) -> Result<(), CgroupError> {
        let warden = self.child("warden")?;
        warden.admit(std::process::id())
    }

    /// A cgroup below this one, made if it isn't there.
    pub fn child(&self, name: &str) -> Result<ChildCgroup, CgroupError> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).map_err(|source| CgroupError::Io {
            action: "create the cgroup",
            path: path.clone(),
            source,
        })?;
        Ok(ChildCgroup(path))
    }

    /// Removes the folders of gateways that are gone.
    pub fn sweep(&self) {
        for gateway in self.gateways() {
            // Fails with EBUSY while a process is in it.
            let _ = fs::remove_dir(gateway.0);
        }
    }

    /// Kills the processes of every gateway below this cgroup.
    pub fn kill_gateways(&self) {
        for gateway in self.gateways() {
            let _ = gateway.kill();
        }
    }

    fn gateways(&self) -> impl Iterator<Item = ChildCgroup> {
        fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("gateway-"))
            .map(|entry| ChildCgroup(entry.path()))
    }

    /// Moves this process out, to the cgroup above, so that the folder can be removed.
    pub fn leave(&self) {
        if let Some(above) = self.0.parent() {
            let _ = ChildCgroup(above.to_owned()).admit(std::process::id());
        }
    }

    /// Removes the folder and those below it, as far as no process is in them.
    pub fn remove(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let _ = fs::remove_dir(entry.path());
            }
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// A cgroup of one process below the daemon's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildCgroup(PathBuf);

impl ChildCgroup {
    /// Moves a process here.
    pub fn admit(&self, pid: u32) -> Result<(), CgroupError> {
        let path = self.0.join("cgroup.procs");
        fs::write(&path, pid.to_string()).map_err(|source| CgroupError::Io {
            action: "move a process into",
            path,
            source,
        })
    }

    /// Kills every process in it.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let path = self.0.join("cgroup.kill");
        fs::write(&path, "1").map_err(|source| CgroupError::Io {
            action: "kill the processes of",
            path,
            source,
        })
    }

    /// Whether no process is left in it, not even one that is still closing its files (which
    /// `cgroup.procs` no longer lists).
    pub fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 0")
    }

    /// The processes in it.
    pub fn pids(&self) -> Vec<u32> {
        let pids = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        pids.lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}
