//! What the machine offers: asked before anything starts, and said with what to do.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use rustix::{
    fs::{StatFs, statfs},
    thread::CapabilitySet,
};

use super::cgroup;

const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// A right without which `run` can't do its work.
struct Needed {
    name: &'static str,
    /// CAP_BPF and CAP_PERFMON were once part of CAP_SYS_ADMIN, which the kernel still takes for them.
    any_of: CapabilitySet,
    purpose: &'static str,
}

const CAPABILITIES: [Needed; 6] = [
    Needed {
        name: "CAP_BPF",
        any_of: CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN),
        purpose: "load the programs and write their maps",
    },
    Needed {
        name: "CAP_PERFMON",
        any_of: CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN),
        purpose: "get the programs past the verifier, which refuses their pointers otherwise",
    },
    Needed {
        name: "CAP_NET_ADMIN",
        any_of: CapabilitySet::NET_ADMIN,
        purpose: "attach the programs and reset sockets",
    },
    Needed {
        name: "CAP_SETUID",
        any_of: CapabilitySet::SETUID,
        purpose: "give the gateway a user of its own",
    },
    Needed {
        name: "CAP_SETGID",
        any_of: CapabilitySet::SETGID,
        purpose: "give the gateway a group of its own",
    },
    Needed {
        name: "CAP_SETPCAP",
        any_of: CapabilitySet::SETPCAP,
        purpose: "take all rights from the gateway",
    },
];

const BPFFS_MAGIC: u64 = 0xcafe_4a11;
const BPFFS: &str = "/sys/fs/bpf";

/// Something that enforcer needs is missing.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Not root.
    #[error("enforcer run needs root: start it with sudo or as a systemd service")]
    Root,
    /// Root without one of the rights that are needed.
    #[error(
        "{name} is missing: it takes that to {purpose}; add it to the service's \
         CapabilityBoundingSet, or to what the container is given"
    )]
    Capability {
        /// As in capabilities(7).
        name: &'static str,
        /// What can't be done without it.
        purpose: &'static str,
    },
    /// The kernel is too old.
    #[error("Linux {found} is too old: enforcer needs {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    Kernel {
        /// The running release.
        found: String,
    },
    /// No cgroup version 2.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// The kernel lacks a program type.
    #[error(
        "this kernel cannot load {0:?} programs: it needs CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y"
    )]
    Program(ProgramType),
    /// The kernel lacks a map type.
    #[error("this kernel has no {0:?} maps: it needs CONFIG_BPF_SYSCALL=y and Linux 6.1 or newer")]
    Map(MapType),
    /// Something forbids bpf(2), although the capabilities are there.
    #[error(
        "bpf(2) is refused although the capabilities are there: by a seccomp filter, a security \
         module, or because this is root of a user namespace only; run it outside of the container, \
         or the container with --privileged"
    )]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The folder for pins is not on a BPF file system.
    #[error(
        "{path} is not on a BPF file system: mount one with `mount -t bpf bpf {BPFFS}`, or set daemon.bpf_dir"
    )]
    Bpffs {
        /// The configured folder.
        path: PathBuf,
    },
    /// The kernel can't reset sockets.
    #[error(
        "this kernel cannot reset sockets: it needs CONFIG_INET_DIAG_DESTROY=y (try `modprobe tcp_diag`)"
    )]
    SockDestroy(#[source] std::io::Error),
}

/// Checks everything; mounts a BPF file system at its usual place when `bpf_dir` needs it.
pub fn check(bpf_dir: &Path) -> Result<(), Missing> {
    if !rustix::process::geteuid().is_root() {
        return Err(Missing::Root);
    }
    // Asked for, not tried: the kernel looks for a socket that is to be reset before it looks at the
    // right, and its answers to bpf(2) don't tell which right is missing.
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    if let Some(missing) = missing_capability(held.unwrap_or(CapabilitySet::empty())) {
        return Err(missing);
    }
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    if is_too_old(&release) {
        let found = release.into_owned();
        return Err(Missing::Kernel { found });
    }
    cgroup::mount_point()?;
    for program in [ProgramType::CgroupSkb, ProgramType::SockOps] {
        if !is_program_supported(program).map_err(|error| Missing::Refused(error.into()))? {
            return Err(Missing::Program(program));
        }
    }
    for map in [MapType::SkStorage, MapType::RingBuf] {
        if !is_map_supported(map).map_err(|error| Missing::Refused(error.into()))? {
            return Err(Missing::Map(map));
        }
    }
    provide_bpffs(bpf_dir)?;
    super::reset::Resetter::open()
        .and_then(|mut resetter| resetter.probe())
        .map_err(Missing::SockDestroy)
}

fn missing_capability(held: CapabilitySet) -> Option<Missing> {
    let lacking = CAPABILITIES
        .iter()
        .find(|needed| !held.intersects(needed.any_of))?;
    Some(Missing::Capability {
        name: lacking.name,
        purpose: lacking.purpose,
    })
}

fn is_too_old(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version < OLDEST_KERNEL
}

fn provide_bpffs(bpf_dir: &Path) -> Result<(), Missing> {
    let missing = || Missing::Bpffs {
        path: bpf_dir.to_owned(),
    };
    if is_bpffs(bpf_dir) {
        return Ok(());
    }
    if bpf_dir.starts_with(BPFFS) {
        let mounted = rustix::mount::mount(
            "bpf",
            BPFFS,
            "bpf",
            rustix::mount::MountFlags::NOSUID
                | rustix::mount::MountFlags::NODEV
                | rustix::mount::MountFlags::NOEXEC,
            Some(c"mode=0700"),
        );
        if mounted.is_ok() && is_bpffs(bpf_dir) {
            tracing::info!("mounted a BPF file system at {BPFFS}");
            return Ok(());
        }
    }
    Err(missing())
}

/// Whether the nearest existing folder is on a BPF file system.
fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let on_bpffs = |stat: StatFs| stat.f_type as u64 == BPFFS_MAGIC;
    existing.is_some_and(|folder| statfs(folder).is_ok_and(on_bpffs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(held: CapabilitySet) -> Option<&'static str> {
        missing_capability(held).map(|missing| match missing {
            Missing::Capability { name, .. } => name,
            other => panic!("{other}"),
        })
    }

    fn unit() -> CapabilitySet {
        CapabilitySet::BPF
            | CapabilitySet::PERFMON
            | CapabilitySet::NET_ADMIN
            | CapabilitySet::SETUID
            | CapabilitySet::SETGID
            | CapabilitySet::SETPCAP
    }

    #[test]
    fn each_capability_that_is_missing_is_named() {
        assert_eq!(lacking(unit()), None);
        for (without, name) in [
            (CapabilitySet::BPF, "CAP_BPF"),
            (CapabilitySet::PERFMON, "CAP_PERFMON"),
            (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            (CapabilitySet::SETUID, "CAP_SETUID"),
            (CapabilitySet::SETGID, "CAP_SETGID"),
            (CapabilitySet::SETPCAP, "CAP_SETPCAP"),
        ] {
            assert_eq!(lacking(unit() - without), Some(name));
            let said = missing_capability(unit() - without).unwrap().to_string();
            assert!(said.starts_with(&format!("{name} is missing:")), "{said}");
            assert!(said.contains("CapabilityBoundingSet"), "{said}");
        }
    }

    #[test]
    fn the_older_right_stands_for_those_that_were_split_from_it_and_for_no_other() {
        let split = CapabilitySet::BPF | CapabilitySet::PERFMON;
        let older = (unit() - split) | CapabilitySet::SYS_ADMIN;
        assert_eq!(lacking(older), None);
        assert_eq!(
            lacking(older - CapabilitySet::NET_ADMIN),
            Some("CAP_NET_ADMIN")
        );
    }

    #[test]
    fn kernels_are_compared_by_their_numbers() {
        for old in ["5.15.0-91-generic", "6.0.19", "4.19", "what?", ""] {
            assert!(is_too_old(old), "{old}");
        }
        for good in ["6.1.0-40-amd64", "6.18.44", "10.0-rc1", "6.10"] {
            assert!(!is_too_old(good), "{good}");
        }
    }

    #[test]
    fn the_kernels_own_file_systems_are_no_place_for_pins() {
        let bpf_dir = Path::new("/proc/enforcer");
        let missing = provide_bpffs(bpf_dir).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("/proc/enforcer is not on a BPF")
        );
    }
}
