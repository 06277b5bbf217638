//! What the machine offers: asked before anything starts, and said with what to do.

use std::path::{Path, PathBuf};

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
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
const BPFFS: &str = "/sys/fs/bpf";

/// Something that enforcer needs is missing.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Not root.
    #[error(
        "enforcer run needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN): start it with sudo or as a systemd service"
    )]
    Root,
    /// Root without the right to reset sockets.
    #[error(
        "CAP_NET_ADMIN is missing: without it sockets cannot be reset; add it to the service's \
         CapabilityBoundingSet"
    )]
    NetAdmin,
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
        "this kernel cannot load {0:?} programs: it needs CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y, and root in the initial user namespace"
    )]
    Program(ProgramType),
    /// The kernel lacks a map type.
    #[error("this kernel has no {0:?} maps: it needs CONFIG_BPF_SYSCALL=y and Linux 6.1 or newer")]
    Map(MapType),
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
    // The kernel looks for the socket before it looks at the right: asking it proves nothing.
    let rights = rustix::thread::capabilities(None).map_err(std::io::Error::from);
    if !rights.is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN)) {
        return Err(Missing::NetAdmin);
    }
    kernel_release()?;
    cgroup::mount_point()?;
    for program in [ProgramType::CgroupSkb, ProgramType::SockOps] {
        if !is_program_supported(program).unwrap_or(false) {
            return Err(Missing::Program(program));
        }
    }
    for map in [MapType::SkStorage, MapType::RingBuf] {
        if !is_map_supported(map).unwrap_or(false) {
            return Err(Missing::Map(map));
        }
    }
    provide_bpffs(bpf_dir)?;
    super::reset::Resetter::open()
        .and_then(|mut resetter| resetter.probe())
        .map_err(Missing::SockDestroy)
}

fn kernel_release() -> Result<(), Missing> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        Err(Missing::Kernel { found: release })
    } else {
        Ok(())
    }
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
