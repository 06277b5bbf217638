//! A WebSocket server and client that nobody here wrote: Debian's `python3-websockets`, with a few
//! lines to make it talk.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{bed::Bed, certificates::SERVER_NAME, process::Process, scene::Scene};

/// The system's, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";
const SERVER: &str = include_str!("websockets/server.py");
const CLIENT: &str = include_str!("websockets/client.py");

/// A running server in the daemon's namespace. It speaks the subprotocol `chat`.
#[derive(Debug)]
pub struct Server {
    port: u16,
    _process: Process,
}

impl Server {
    /// Starts it on loopback.
    pub fn start(bed: &Bed) -> Result<Self> {
        let script = bed.write("websockets-server.py", SERVER)?;
        let file = bed.path("websockets-port");
        let mut command = bed.command(bed.daemon(), PYTHON)?;
        command.arg(script).arg(&file);
        let (process, port) = Process::spawn_server(&mut command, &file, "the WebSocket server")?;
        Ok(Self {
            port,
            _process: process,
        })
    }

    /// As routes name it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// How a client opens.
#[derive(Clone, Debug, Default)]
pub struct Opening<'a> {
    /// Subprotocols that it offers.
    pub subprotocols: Vec<String>,
    /// The page's origin, as a browser tells it.
    pub origin: Option<&'a str>,
    /// Further fields.
    pub headers: BTreeMap<&'a str, String>,
    /// It stays until it is told to go.
    pub wait: bool,
}

#[derive(Serialize)]
struct Settings<'a> {
    url: String,
    host: String,
    port: u16,
    ca: String,
    subprotocols: &'a [String],
    origin: Option<&'a str>,
    headers: &'a BTreeMap<&'a str, String>,
    wait: bool,
}

/// What came of it.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// Status of the answer, if that was no WebSocket.
    pub status: Option<u16>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// What the server saw.
    pub seen: Option<Seen>,
    /// What came back.
    pub echo: Option<String>,
    /// Code and reason of the end.
    pub close: Option<(u16, String)>,
}

/// What the server saw.
#[derive(Debug, Deserialize)]
pub struct Seen {
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// Fields of the request.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// The value of a field, if there is such a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(it, _)| it == name)
            .map(|(_, value)| &**value)
    }
}

impl Opening<'_> {
    /// Opens a WebSocket from the client's namespace, and waits for its end.
    pub fn run(&self, scene: &Scene) -> Result<Outcome> {
        let bed = &scene.bed;
        let script = bed.write("websockets-client.py", CLIENT)?;
        let server = scene.client()?.server();
        let settings = Settings {
            url: format!("wss://{SERVER_NAME}:{}/", server.port()),
            host: server.ip().to_string(),
            port: server.port(),
            ca: scene.ca_file().display().to_string(),
            subprotocols: &self.subprotocols,
            origin: self.origin,
            headers: &self.headers,
            wait: self.wait,
        };
        let mut command = bed.command(bed.client(), PYTHON)?;
        command.arg(script).arg(serde_json::to_string(&settings)?);
        let output = command.output().context("run the WebSocket client")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "the WebSocket client failed: {said}"
        );
        serde_json::from_slice(&output.stdout).context("what the WebSocket client printed")
    }
}
