//! `enforcer connect`, as a user runs it on the client's side.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{certificates::SERVER_NAME, daemon, process::Process, scene::Scene, wait};

/// What it shows to the gateway.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// The token in this file.
    TokenFile(&'a Path),
    /// The token that this command prints.
    TokenCommand(&'a str),
    /// A certificate and its key, and no token.
    Certificate(&'a Path, &'a Path),
}

/// A running one that listens.
#[derive(Debug)]
pub struct Connect {
    local: SocketAddr,
    log: PathBuf,
    process: Process,
}

impl Connect {
    /// Starts it on a port that is free; returns once it listens.
    pub fn listen(scene: &Scene, credential: Credential<'_>, target: &str) -> Result<Self> {
        Self::listen_on(scene, credential, 0, target)
    }

    /// The same on this port.
    pub fn listen_on(
        scene: &Scene,
        credential: Credential<'_>,
        port: u16,
        target: &str,
    ) -> Result<Self> {
        let log = scene.bed.path("connect.log");
        let stderr = File::create(&log).context("make a log")?;
        let mut command = command(scene, credential)?;
        command
            .args(["--listen", &format!("127.0.0.1:{port}"), target])
            .stderr(stderr);
        let process = Process::spawn(&mut command, "enforcer connect")?;
        let local = wait::until("enforcer connect listened", || {
            let said = fs::read_to_string(&log).ok()?;
            let (_, rest) = said.split_once("listening on ")?;
            rest.split_once(',')?.0.parse().ok()
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self {
            local,
            log,
            process,
        })
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said this.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let what = format!("enforcer connect said {text:?}");
        wait::until(&what, || self.said().contains(text).then_some(())).with_context(|| self.said())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The command, but for the local end and the target.
pub fn command(scene: &Scene, credential: Credential<'_>) -> Result<Command> {
    let gateway = scene.client()?.server();
    let binary = daemon::binary()?;
    let bed = &scene.bed;
    let mut command = bed.command(bed.client(), &binary.to_string_lossy())?;
    command
        .args(["connect", "--server-name", SERVER_NAME, "--gateway"])
        .arg(gateway.to_string())
        .arg("--ca")
        .arg(scene.ca_file())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match credential {
        Credential::TokenFile(file) => command.arg("--token-file").arg(file),
        Credential::TokenCommand(line) => command.args(["--token-command", line]),
        Credential::Certificate(certificate, key) => command
            .arg("--client-certificate")
            .arg(certificate)
            .arg("--client-key")
            .arg(key),
    };
    Ok(command)
}
