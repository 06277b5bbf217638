//! A server that speaks before it answers, and a client that waits to be asked for its body: both
//! are Node.js's own, with a few lines to make them talk.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{
    bed::Bed,
    certificates::{Identity, SERVER_NAME},
    process::Process,
    scene::Scene,
};

const SERVER: &str = include_str!("interim/server.mjs");
const CLIENT: &str = include_str!("interim/client.mjs");

/// A server in the daemon's namespace. Each of its responses comes after a 103 and a 102, and says
/// the request's method and the length of its body.
#[derive(Debug)]
pub struct Server {
    scheme: &'static str,
    port: u16,
    _process: Process,
}

impl Server {
    /// Starts it on loopback, in the clear. `scheme`: `http` or `h2c`.
    pub fn start(bed: &Bed, scheme: &'static str) -> Result<Self> {
        Self::start_with(bed, scheme, &[])
    }

    /// The same for HTTP/2 with TLS.
    pub fn start_tls(bed: &Bed, identity: &Identity) -> Result<Self> {
        let (certificate, key) = identity.write(bed, "interim-server")?;
        Self::start_with(bed, "h2", &[certificate, key])
    }

    fn start_with(bed: &Bed, scheme: &'static str, pem: &[PathBuf]) -> Result<Self> {
        let script = bed.write("interim-server.mjs", SERVER)?;
        let file = bed.path("interim-port");
        let mut command = bed.command(bed.daemon(), "node")?;
        command.arg(script).arg(scheme).arg(&file).args(pem);
        let (process, port) = Process::spawn_server(&mut command, &file, "the speaking server")?;
        Ok(Self {
            scheme,
            port,
            _process: process,
        })
    }

    /// As routes name it.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }
}

/// Sends a body over HTTP/2 when it is asked for. Returns what came: statuses, then the body.
pub fn upload(scene: &Scene, token: &str, body: &str) -> Result<Vec<String>> {
    let script = scene.bed.write("interim-client.mjs", CLIENT)?;
    let server = scene.client()?.server();
    let mut command = scene.bed.command(scene.bed.client(), "node")?;
    command
        .arg(script)
        .args([server.ip().to_string(), server.port().to_string()])
        .arg(SERVER_NAME)
        .arg(scene.ca_file())
        .args([token, body]);
    let output = command.output().context("run the waiting client")?;
    let said = String::from_utf8(output.stdout).context("what the waiting client printed")?;
    Ok(said.lines().map(str::to_owned).collect())
}
