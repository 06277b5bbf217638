//! A place of its own for each test: network namespaces, cgroup, bpffs folder, files.
//!
//! Everything a bed makes carries its name, so that its end needs nothing but the name: the same
//! code cleans up after a test, after a panic, and after an earlier run that was killed.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{namespace::Namespace, process, wait};

/// Every name starts with it; the process id of the maker follows.
const PREFIX: &str = "enforcer-bed-";

/// The client's end of the cable.
pub const CLIENT_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The daemon's end of the cable.
pub const DAEMON_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The client's end of the cable.
pub const CLIENT_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1));
/// The daemon's end of the cable.
pub const DAEMON_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2));
/// Name of the cable's ends.
pub const CABLE: &str = "cable";

/// A place of its own.
#[derive(Debug)]
pub struct Bed {
    name: String,
    client: Namespace,
    daemon: Namespace,
}

impl Bed {
    /// A bed with a client's and a daemon's namespace, joined by a cable.
    pub fn new(label: &str) -> Result<Self> {
        let name = Self::prepare(label)?;
        let bed = Self {
            client: Namespace::Named(format!("{name}-client")),
            daemon: Namespace::Named(format!("{name}-daemon")),
            name,
        };
        bed.make_places()?;
        bed.lay_cable()?;
        Ok(bed)
    }

    /// A bed in the host's own network.
    pub fn on_host(label: &str) -> Result<Self> {
        let bed = Self {
            name: Self::prepare(label)?,
            client: Namespace::Host,
            daemon: Namespace::Host,
        };
        bed.make_places()?;
        Ok(bed)
    }

    /// Where clients run.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the daemon and its upstreams run.
    pub fn daemon(&self) -> &Namespace {
        &self.daemon
    }

    /// A file or folder of the bed's.
    pub fn path(&self, name: &str) -> PathBuf {
        files(&self.name).join(name)
    }

    /// Writes a file of the bed's.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {path:?}"))?;
        Ok(path)
    }

    /// The cgroup that the daemon is told to use.
    pub fn daemon_cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup(&self.name)?.join("daemon"))
    }

    /// The cgroup of everything else that the bed runs.
    pub fn tools_cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup(&self.name)?.join("tools"))
    }

    /// The folder on bpffs that the daemon is told to use.
    pub fn bpf_dir(&self) -> PathBuf {
        pins(&self.name).join("pins")
    }

    /// A command that will run in `namespace` and end with the bed.
    pub fn command(&self, namespace: &Namespace, program: &str) -> Result<Command> {
        Ok(process::command(namespace, &self.tools_cgroup()?, program))
    }

    /// Mounts a tmpfs of `size` bytes over a folder of the bed's.
    pub fn mount_tmpfs(&self, name: &str, size: usize, options: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("make {path:?}"))?;
        let point = path.to_string_lossy();
        let options = format!("size={size},{options}");
        process::run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &point])?;
        Ok(path)
    }

    /// Ends all processes of the bed and removes everything it made. Done by dropping it; may be
    /// done sooner.
    pub fn clear(&self) -> Result<()> {
        clear(&self.name)
    }

    fn prepare(label: &str) -> Result<String> {
        static SWEEP: Once = Once::new();
        static BEDS: AtomicU32 = AtomicU32::new(0);
        ensure!(
            !label.contains('.'),
            "{label}: bpffs knows no names with dots"
        );
        mount_bpffs()?;
        let mut swept = Ok(());
        SWEEP.call_once(|| swept = sweep());
        swept.context("clean up after an earlier run")?;
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        Ok(format!("{PREFIX}{}-{number}-{label}", std::process::id()))
    }

    fn make_places(&self) -> Result<()> {
        let folders = [
            files(&self.name),
            self.daemon_cgroup()?,
            self.tools_cgroup()?,
            pins(&self.name),
        ];
        for folder in folders {
            fs::create_dir_all(&folder).with_context(|| format!("make {folder:?}"))?;
        }
        Ok(())
    }

    fn lay_cable(&self) -> Result<()> {
        let (client, daemon) = (self.namespace("client"), self.namespace("daemon"));
        let ip = |arguments: &[&str]| process::run("ip", arguments);
        ip(&["netns", "add", &client])?;
        ip(&["netns", "add", &daemon])?;
        let ends = ["type", "veth", "peer", "name", CABLE, "netns", &daemon];
        ip(&[&["-n", &client, "link", "add", CABLE][..], &ends].concat())?;
        let addresses = [
            (&client, CLIENT_IPV4, CLIENT_IPV6),
            (&daemon, DAEMON_IPV4, DAEMON_IPV6),
        ];
        for (namespace, ipv4, ipv6) in addresses {
            let set = |arguments: &[&str]| ip(&[&["-n", namespace], arguments].concat());
            set(&["address", "add", &format!("{ipv4}/24"), "dev", CABLE])?;
            set(&[
                "address",
                "add",
                &format!("{ipv6}/64"),
                "dev",
                CABLE,
                "nodad",
            ])?;
            set(&["link", "set", "lo", "up"])?;
            set(&["link", "set", CABLE, "up"])?;
        }
        Ok(())
    }

    fn namespace(&self, end: &str) -> String {
        format!("{}-{end}", self.name)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("cannot clean up {}: {error:#}", self.name);
        }
    }
}

/// Everything on this machine that carries the name of a bed which this process made.
pub fn traces_of(maker: u32) -> Result<Vec<PathBuf>> {
    let traces = traces()?.into_iter().filter(|(_, by)| *by == maker);
    Ok(traces.map(|(path, _)| path).collect())
}

/// Clears every bed whose maker is gone, and those of an earlier process with this one's id.
fn sweep() -> Result<()> {
    let mut stale = Vec::new();
    for (path, maker) in traces()? {
        if maker == std::process::id() || !process::is_alive(maker) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let end = ["-client", "-daemon"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            stale.push(end.unwrap_or(&name).to_owned());
        }
    }
    stale.sort();
    stale.dedup();
    stale.iter().try_for_each(|name| clear(name))
}

/// What carries a bed's name, and the process that made it.
fn traces() -> Result<Vec<(PathBuf, u32)>> {
    let mut traces = Vec::new();
    for folder in [
        std::env::temp_dir(),
        cgroup_root()?,
        bpffs(),
        PathBuf::from("/run/netns"),
    ] {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let maker = name
                .to_string_lossy()
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next()?.parse().ok());
            traces.extend(maker.map(|maker| (entry.path(), maker)));
        }
    }
    Ok(traces)
}

/// Ends and removes what carries this name.
fn clear(name: &str) -> Result<()> {
    let cgroup = cgroup(name)?;
    if cgroup.exists() {
        fs::write(cgroup.join("cgroup.kill"), "1").with_context(|| format!("kill {cgroup:?}"))?;
        wait::until("the processes of the bed ended", || {
            let events = fs::read_to_string(cgroup.join("cgroup.events")).ok()?;
            events.contains("populated 0").then_some(())
        })?;
    }
    // Unpinned before the cgroup goes, or programs would stay attached to what can't be seen.
    remove_tree(&pins(name))?;
    remove_cgroup(&cgroup)?;
    let registered = PathBuf::from("/run/netns");
    for end in ["client", "daemon"] {
        let namespace = format!("{name}-{end}");
        if registered.join(&namespace).exists() {
            process::run("ip", &["netns", "delete", &namespace])?;
        }
    }
    let files = files(name);
    unmount_below(&files)?;
    remove_tree(&files)
}

fn remove_tree(path: &Path) -> Result<()> {
    // bpffs says EPERM, not ENOENT, for names with a dot.
    if !path.exists() {
        return Ok(());
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {path:?}"))
        }
        _ => Ok(()),
    }
}

/// A cgroup's files can't be removed, its folder can.
fn remove_cgroup(path: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    wait::until(&format!("{path:?} was free"), || {
        // A process that was just about to enter when the others were killed.
        fs::write(path.join("cgroup.kill"), "1").ok()?;
        fs::remove_dir(path).ok()
    })
}

fn unmount_below(folder: &Path) -> Result<()> {
    for point in mounts()?
        .into_iter()
        .filter(|mount| mount.point.starts_with(folder))
    {
        process::run("umount", &["--lazy", &point.point.to_string_lossy()])?;
    }
    Ok(())
}

struct Mount {
    point: PathBuf,
    kind: String,
}

fn mounts() -> Result<Vec<Mount>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let mounts = table.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        Some(Mount {
            point: PathBuf::from(mount.split(' ').nth(4)?),
            kind: source.split(' ').next()?.to_owned(),
        })
    });
    Ok(mounts.collect())
}

fn cgroup_root() -> Result<PathBuf> {
    let mount = mounts()?.into_iter().find(|mount| mount.kind == "cgroup2");
    Ok(mount.context("cgroup v2 is not mounted")?.point)
}

fn bpffs() -> PathBuf {
    PathBuf::from("/sys/fs/bpf")
}

fn mount_bpffs() -> Result<()> {
    static MOUNT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let Ok(_guard) = MOUNT.lock() else {
        bail!("an earlier attempt to mount bpffs failed");
    };
    let mounted = |mount: &Mount| mount.kind == "bpf" && mount.point == bpffs();
    if !mounts()?.iter().any(mounted) {
        process::run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])?;
    }
    Ok(())
}

fn files(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

fn cgroup(name: &str) -> Result<PathBuf> {
    Ok(cgroup_root()?.join(name))
}

fn pins(name: &str) -> PathBuf {
    bpffs().join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_a_dead_process_are_swept_and_those_of_a_living_one_are_kept() {
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let stale = format!("{PREFIX}{}-0-stale", dead.id());
        // Process 1 never ends.
        let kept = format!("{PREFIX}1-0-kept");
        for name in [&stale, &kept] {
            fs::create_dir_all(files(name)).unwrap();
            fs::create_dir_all(cgroup(name).unwrap().join("daemon/warden")).unwrap();
        }
        sweep().unwrap();
        assert!(!files(&stale).exists() && !cgroup(&stale).unwrap().exists());
        assert!(files(&kept).exists() && cgroup(&kept).unwrap().exists());
        clear(&kept).unwrap();
    }
}
