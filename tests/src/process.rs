//! Processes that belong to the bed: in one of its namespaces, in its cgroup, and gone with it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::time::ClockId;
use rustix::process::{Pid, Signal, kill_process};

use crate::{namespace::Namespace, wait};

/// Enters the cgroup before anything else runs, so that nothing escapes the bed's end.
const ENTER: &str = r#"echo $$ >"$0" && exec "$@""#;

/// A command that will run `program` in `namespace` and `cgroup`, with a process id that is the
/// program's own, and deaf to the terminal's Ctrl-C.
pub fn command(namespace: &Namespace, cgroup: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(ENTER)
        .arg(cgroup.join("cgroup.procs"));
    if let Some(file) = namespace.file() {
        // Not `ip netns exec`: it hides bpffs and the cgroups.
        command
            .arg("nsenter")
            .arg(format!("--net={}", file.display()));
    }
    command.arg(program).stdin(Stdio::null()).process_group(0);
    command
}

/// Runs a command of the host's to its end; what it prints on failure is the error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {program}: is it installed?"))?;
    if !output.status.success() {
        bail!(
            "`{program} {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts `command`; `what` names it in errors.
    pub fn spawn(command: &mut Command, what: &str) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("start {what}"))?;
        Ok(Self {
            child,
            what: what.to_owned(),
        })
    }

    /// Starts a server, and waits until it has written the port that it listens on to `file`.
    pub fn spawn_server(command: &mut Command, file: &Path, what: &str) -> Result<(Self, u16)> {
        let process = Self::spawn(command, what)?;
        let port = wait::until(&format!("{what} listened"), || {
            fs::read_to_string(file).ok()?.parse().ok()
        })?;
        Ok((process, port))
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.pid(), signal).with_context(|| format!("signal {}", self.what))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("wait for {}", self.what))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("{} ended", self.what);
        wait::until(&what, || self.child.try_wait().transpose())?.context("wait for a process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process by its id.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let id = id.with_context(|| format!("{pid} is no process id"))?;
    kill_process(id, signal).with_context(|| format!("send {signal:?} to process {pid}"))
}

/// How long the threads of a process have run, on all processors together.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let id = i32::try_from(pid).with_context(|| format!("{pid} is no process id"))?;
    let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(id));
    let time = clock.and_then(ClockId::now);
    Ok(time
        .with_context(|| format!("the clock of process {pid}"))?
        .into())
}

/// Stops a process and returns once it no longer runs.
pub fn stop(pid: u32) -> Result<()> {
    send(pid, Signal::STOP)?;
    wait::until(&format!("process {pid} stopped"), || {
        threads(pid)
            .is_some_and(|states| states.iter().all(|state| *state == 'T'))
            .then_some(())
    })
}

/// Lets a stopped process go on.
pub fn resume(pid: u32) -> Result<()> {
    send(pid, Signal::CONT)
}

/// Whether there is such a process that has not ended.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !matches!(state(&stat), None | Some('Z' | 'X')))
}

/// A process that was ended by this signal.
pub fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal.as_raw())
}

/// Value of a field in `/proc/PID/status`.
pub fn status_field(pid: u32, field: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("read the status of process {pid}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .with_context(|| format!("process {pid} has no {field}"))
}

fn threads(pid: u32) -> Option<Vec<char>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks
        .map(|task| state(&fs::read_to_string(task.ok()?.path().join("stat")).ok()?))
        .collect()
}

/// The state letter follows the name, which is in parentheses and may hold anything.
fn state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}
