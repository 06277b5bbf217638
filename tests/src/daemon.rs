//! The daemon under test.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use enforcer::audit::{AuditReader, DATABASE_NAME, Filter};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    bed::Bed,
    notifications::Notifications,
    process::{self, Process},
    wait,
};

const LOG: &str = "daemon.log";
const CONFIG: &str = "enforcer.toml";

/// A running daemon: the warden, and through it the gateway.
#[derive(Debug)]
pub struct Daemon<'bed> {
    bed: &'bed Bed,
    warden: Process,
    wrapper: Vec<OsString>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 for a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Output {
    /// What it printed, as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {self:?}"))
    }
}

impl<'bed> Daemon<'bed> {
    /// Starts it with this configuration and waits until it says that it is ready.
    pub fn start(bed: &'bed Bed, config: &str) -> Result<Self> {
        Self::start_within(bed, config, &[])
    }

    /// The same, with a command in front of the daemon's that ends by running it.
    pub fn start_within(bed: &'bed Bed, config: &str, wrapper: &[&str]) -> Result<Self> {
        bed.write(CONFIG, config)?;
        let wrapper = wrapper.iter().map(OsString::from).collect::<Vec<_>>();
        let warden = launch(bed, &wrapper)?;
        Ok(Self {
            bed,
            warden,
            wrapper,
        })
    }

    /// Starts a new warden after the last one ended.
    pub fn start_again(&mut self) -> Result<()> {
        self.warden = launch(self.bed, &self.wrapper)?;
        Ok(())
    }

    /// SIGTERM, the end, and a new start.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.start_again()
    }

    /// The warden's process id.
    pub fn pid(&self) -> u32 {
        self.warden.pid()
    }

    /// Process ids of all gateways, draining ones included.
    pub fn gateway_pids(&self) -> Result<Vec<u32>> {
        let cgroup = self.bed.daemon_cgroup()?;
        let mut pids = Vec::new();
        for entry in fs::read_dir(&cgroup).with_context(|| format!("list {cgroup:?}"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("gateway-") {
                let members = fs::read_to_string(entry.path().join("cgroup.procs"));
                // A gateway's cgroup may be removed while it is looked at.
                let members = members.unwrap_or_default();
                pids.extend(members.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        pids.retain(|pid| process::is_alive(*pid));
        Ok(pids)
    }

    /// The one gateway.
    pub fn gateway_pid(&self) -> Result<u32> {
        let pids = self.gateway_pids()?;
        ensure!(pids.len() == 1, "expected one gateway, there are {pids:?}");
        Ok(pids[0])
    }

    /// What the one gateway holds in memory, in KiB.
    pub fn gateway_memory(&self) -> Result<u64> {
        let resident = process::status_field(self.gateway_pid()?, "VmRSS")?;
        let number = resident.split(' ').next().context("a number")?;
        number.parse().with_context(|| resident.clone())
    }

    /// SIGTERM to the warden; returns when it has ended.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.warden.signal(Signal::TERM)?;
        self.warden.wait()
    }

    /// SIGKILL to the warden; returns when it has ended.
    pub fn kill_warden(&mut self) -> Result<()> {
        self.warden.signal(Signal::KILL)?;
        self.warden.wait().map(drop)
    }

    /// Listens to what it tells its service manager from now on.
    pub fn notifications(&self) -> Result<Notifications> {
        Notifications::listen(self.bed)
    }

    /// How the warden ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.warden.ended()
    }

    /// Runs an `enforcer` subcommand against this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        run_cli(self.bed, arguments)
    }

    /// Replaces the configuration's file, as editors do.
    pub fn configure(&self, text: &str) -> Result<()> {
        let new = self.bed.write("enforcer.toml.new", text)?;
        fs::rename(&new, self.bed.path(CONFIG)).context("replace the configuration")
    }

    /// Replaces the configuration's file and applies it.
    pub fn reload(&self, text: &str, flags: &[&str]) -> Result<Output> {
        self.configure(text)?;
        self.cli(&[&["reload"], flags].concat())
    }

    /// Runs an `enforcer` subcommand against this daemon, which it finds by its socket: `--config`
    /// may then name another file.
    pub fn cli_by_socket(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command
            .args(arguments)
            .arg("--socket")
            .arg(self.bed.path("run/admin.sock"));
        capture_output(&mut command)
    }

    /// The audit log so far.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let database = self.bed.path("state").join(DATABASE_NAME);
        let reader = AuditReader::open(&database, Filter::default())?;
        let records = reader.records();
        records
            .map(|record| {
                let line = record?.line();
                serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))
            })
            .collect()
    }

    /// Refusals for a reason: those with a record of their own, and whatever came too often for one.
    pub fn refusals(&self, reason: &str) -> Result<u64> {
        let records = self.audit()?;
        let written = records.iter().filter(|record| record["reason"] == reason);
        let written = written.count() as u64;
        let status = self.cli(&["status", "--json"])?.json()?;
        let counted = status["audit"]["counted"].as_u64();
        Ok(written + counted.context("what was only counted")?)
    }

    /// The first audit record of this event that matches, once there is one.
    pub fn wait_for_audit(&self, event: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = wait::until(&format!("the audit log had such a {event}"), || {
            let records = self.audit().ok()?;
            records
                .into_iter()
                .find(|record| record["event"] == event && matches(record))
        });
        found.with_context(|| format!("audit log: {:#?}", self.audit().unwrap_or_default()))
    }

    /// The record of the only session's end, once it is there.
    pub fn wait_for_end(&self) -> Result<Value> {
        self.wait_for_audit("session_ended", |_| true)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", story(self.bed));
        }
    }
}

/// Runs an `enforcer` subcommand in the bed, whether a daemon runs there or not. It finds the
/// daemon by the bed's configuration.
pub fn run_cli(bed: &Bed, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command
        .args(arguments)
        .arg("--config")
        .arg(bed.path(CONFIG));
    capture_output(&mut command)
}

fn capture_output(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("run the command line")?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The daemon's binary.
pub fn binary() -> Result<PathBuf> {
    let binary = std::env::var_os("ENFORCER_BIN")
        .map(PathBuf::from)
        .context(
            "ENFORCER_BIN is not set: `cargo xtask test` builds the daemon and sets it to its path",
        )?;
    ensure!(
        binary.is_file(),
        "ENFORCER_BIN is {binary:?}, and no file is there"
    );
    Ok(binary)
}

fn launch(bed: &Bed, wrapper: &[OsString]) -> Result<Process> {
    let binary = binary()?;
    let notifications = Notifications::listen(bed)?;
    let log = File::options()
        .append(true)
        .create(true)
        .open(bed.path(LOG));
    let log = log.context("open the daemon's log")?;

    let mut words = wrapper.to_vec();
    words.extend([
        binary.into(),
        "run".into(),
        "--config".into(),
        bed.path(CONFIG).into(),
    ]);
    let mut command = process::command(bed.daemon(), &bed.tools_cgroup()?, &words[0]);
    command
        .args(&words[1..])
        .env("NOTIFY_SOCKET", Notifications::path(bed))
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log);
    let mut warden = Process::spawn(&mut command, "the daemon")?;

    let ready = wait::until("the daemon was ready", || {
        if let Ok(Some(status)) = warden.ended() {
            return Some(Err(anyhow!(
                "the daemon ended instead of serving: {status}"
            )));
        }
        let message = notifications.next(Duration::from_millis(50));
        let message = match message {
            Ok(message) => message?,
            Err(error) => return Some(Err(error)),
        };
        message
            .lines()
            .any(|line| line == "READY=1")
            .then_some(Ok(()))
    });
    match ready {
        Ok(Ok(())) => Ok(warden),
        Ok(Err(error)) | Err(error) => Err(error.context(story(bed))),
    }
}

/// What the daemon said, for whoever has to find out what went wrong.
fn story(bed: &Bed) -> String {
    let log = fs::read_to_string(bed.path(LOG)).unwrap_or_default();
    let database = bed.path("state").join(DATABASE_NAME);
    let mut audit = String::new();
    if let Ok(reader) = AuditReader::open(&database, Filter::default()) {
        for record in reader.records().flatten() {
            audit += &(record.line() + "\n");
        }
    }
    format!("---- the daemon's log ----\n{log}---- its audit log ----\n{audit}----")
}
