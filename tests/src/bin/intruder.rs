//! Tries what a captured gateway would try, and prints how each attempt ended.
//!
//! The tests run it in the gateway's place: same user, same cgroup, no capabilities. Run as root,
//! every attempt succeeds, which shows that they are real.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData, loaded_maps};
use clap::Parser;
use enforcer_abi::{Binding, Session};
use nix::{
    sys::{ptrace, wait::waitpid},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Tries what a captured gateway would try.
#[derive(Debug, Parser)]
struct Target {
    /// The warden's process.
    #[arg(long)]
    warden: i32,
    /// The gateway's process.
    #[arg(long)]
    gateway: i32,
    /// Pins of programs and maps.
    #[arg(long)]
    bpf_dir: PathBuf,
    /// State of the daemon.
    #[arg(long)]
    state_dir: PathBuf,
    /// Sockets of the daemon.
    #[arg(long)]
    runtime_dir: PathBuf,
    /// The daemon's cgroup.
    #[arg(long)]
    cgroup: PathBuf,
}

type Attempt = fn(&Target) -> Result<()>;

const ATTEMPTS: [(&str, Attempt); 14] = [
    ("open the pinned sessions", |target| {
        Ok(MapData::from_pin(target.bpf_dir.join("SESSIONS")).map(drop)?)
    }),
    ("bind a bound socket once more", |target| {
        let mut bindings = hash::<Binding>(target, "BINDINGS")?;
        let (cookie, binding) = first(&bindings)?;
        Ok(bindings.insert(cookie, binding, 0)?)
    }),
    ("move a deadline to a later instant", |target| {
        let mut sessions = hash::<Session>(target, "SESSIONS")?;
        let (id, mut session) = first(&sessions)?;
        session.deadline_ns += 1_000_000_000;
        Ok(sessions.insert(id, session, 0)?)
    }),
    ("take a descriptor of the gateway's", |target| {
        let gateway = rustix::process::Pid::from_raw(target.gateway).context("a process id")?;
        let gateway = pidfd_open(gateway, PidfdFlags::empty())?;
        Ok(pidfd_getfd(gateway, 0, PidfdGetfdFlags::empty()).map(drop)?)
    }),
    ("find a map by its id", |_| {
        let map = loaded_maps().next().context("there is no map")??;
        Ok(MapData::from_id(map.id()).map(drop)?)
    }),
    ("remove a pin", |target| {
        let pin = target.bpf_dir.join("made-by-an-intruder");
        fs::create_dir(&pin)?;
        Ok(fs::remove_dir(&pin)?)
    }),
    ("trace the warden", |target| {
        let warden = Pid::from_raw(target.warden);
        ptrace::attach(warden)?;
        waitpid(warden, None)?;
        Ok(ptrace::detach(warden, None)?)
    }),
    ("open the warden's memory", |target| {
        Ok(File::open(format!("/proc/{}/mem", target.warden)).map(drop)?)
    }),
    ("signal the warden", |target| {
        Ok(nix::sys::signal::kill(Pid::from_raw(target.warden), None)?)
    }),
    ("ask the admin socket", |target| {
        ask(&target.runtime_dir.join("admin.sock"))
    }),
    ("read the password file", |_| {
        Ok(fs::read("/etc/shadow").map(drop)?)
    }),
    ("open the audit log", |target| {
        let log = target.state_dir.join("audit.db");
        Ok(File::options().append(true).open(log).map(drop)?)
    }),
    ("list the state", |target| {
        Ok(fs::read_dir(&target.state_dir).map(drop)?)
    }),
    ("leave the cgroup", |target| {
        let parent = target.cgroup.parent().context("the cgroup has no parent")?;
        let processes = parent.join("tools/cgroup.procs");
        Ok(fs::write(processes, std::process::id().to_string())?)
    }),
];

fn hash<V: aya::Pod>(target: &Target, name: &str) -> Result<HashMap<MapData, u64, V>> {
    let map = MapData::from_pin(target.bpf_dir.join(name))?;
    Ok(Map::HashMap(map).try_into()?)
}

fn first<V: aya::Pod>(map: &HashMap<MapData, u64, V>) -> Result<(u64, V)> {
    Ok(map.iter().next().context("the map is empty")??)
}

fn ask(socket: &Path) -> Result<()> {
    let mut socket = UnixStream::connect(socket)?;
    socket.write_all(b"GET /v1/status HTTP/1.1\r\nHost: enforcer\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

fn main() -> Result<()> {
    let target = Target::parse();
    let attempts = ATTEMPTS.map(|(name, attempt)| {
        let refused = attempt(&target).err().map(|error| format!("{error:#}"));
        (name, refused)
    });
    println!(
        "{}",
        serde_json::to_string_pretty(&BTreeMap::from(attempts))?
    );
    Ok(())
}
