//! A gRPC server and client that nobody here wrote: Debian's `python3-grpcio`, with a few lines to
//! make it talk.
//!
//! | method of `test.Echo` | behaviour |
//! | --- | --- |
//! | `Say` | the message comes back, and the subject that the server was told as a trailer |
//! | `Tick` | 1000 bytes every 10 ms, until somebody ends it |
//! | `Talk` | every message comes back; the client sends three, one after the other |
//!
//! As `Chat` the client makes a `Talk` in which it sends a byte every 50 ms for 3 s, and then nothing.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use enforcer::clock::WallInstant;
use serde::Deserialize;

use crate::{bed::Bed, certificates::Identity, process::Process, scene::Scene};

/// The system's, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";
const SERVER: &str = include_str!("grpc/server.py");
const CLIENT: &str = include_str!("grpc/client.py");

/// A running server in the daemon's namespace.
#[derive(Debug)]
pub struct Server {
    scheme: &'static str,
    port: u16,
    _process: Process,
}

impl Server {
    /// Starts it on loopback, in the clear.
    pub fn start(bed: &Bed) -> Result<Self> {
        Self::start_with(bed, "h2c", &[])
    }

    /// The same with TLS.
    pub fn start_tls(bed: &Bed, identity: &Identity) -> Result<Self> {
        let (certificate, key) = identity.write(bed, "grpc-server")?;
        Self::start_with(bed, "h2", &[key, certificate])
    }

    fn start_with(bed: &Bed, scheme: &'static str, pem: &[PathBuf]) -> Result<Self> {
        let script = bed.write("grpc-server.py", SERVER)?;
        let file = bed.path("grpc-port");
        let mut command = bed.command(bed.daemon(), PYTHON)?;
        command.arg(script).arg(&file).args(pem);
        let (process, port) = Process::spawn_server(&mut command, &file, "the gRPC server")?;
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

/// A call under way.
#[derive(Debug)]
pub struct Call(Child);

/// What came of a call.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// When the client knew, in seconds since the epoch.
    pub ended_at: f64,
    /// Name of the status.
    pub code: String,
    /// Its message.
    pub details: String,
    /// Messages that came.
    pub messages: u64,
    /// Their length.
    pub bytes: u64,
    /// When the client of a `Chat` last said something, in seconds since the epoch.
    pub last_sent_at: f64,
    /// Initial metadata of a `Say`.
    pub headers: serde_json::Map<String, serde_json::Value>,
    /// Trailing metadata.
    pub trailers: serde_json::Map<String, serde_json::Value>,
}

impl Call {
    /// Begins a call of a method in the client's namespace.
    pub fn begin(scene: &Scene, token: &str, method: &str) -> Result<Self> {
        let script = scene.bed.write("grpc-client.py", CLIENT)?;
        let server = scene.client()?.server();
        let mut command: Command = scene.bed.command(scene.bed.client(), PYTHON)?;
        command
            .arg(script)
            .arg(server.to_string())
            .arg(scene.ca_file())
            .args([token, method])
            .stdout(Stdio::piped());
        Ok(Self(command.spawn().context("run the gRPC client")?))
    }

    /// Waits for its end.
    pub fn end(self) -> Result<Outcome> {
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "the gRPC client failed");
        serde_json::from_slice(&output.stdout).context("what the gRPC client printed")
    }
}

impl Outcome {
    /// When the client knew.
    pub fn ended_at(&self) -> WallInstant {
        instant(self.ended_at)
    }

    /// When the client of a `Chat` last said something.
    pub fn last_sent_at(&self) -> WallInstant {
        instant(self.last_sent_at)
    }
}

fn instant(seconds: f64) -> WallInstant {
    WallInstant::from_unix_nanos((seconds * 1e9) as i64)
}
