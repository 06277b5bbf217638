//! A client of tunnels over HTTP/2 that nobody here wrote: Node.js, with a few lines to make it
//! talk.

use anyhow::{Context as _, Result, ensure};
use enforcer::clock::WallInstant;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::{certificates::SERVER_NAME, scene::Scene};

const CLIENT: &str = include_str!("node_tunnel/client.mjs");

/// Something that happened to it.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What: `response` of a tunnel, `goaway`, an error of a `tunnel`, the `session` or its
    /// `socket`, or that it is `closed`.
    pub what: String,
    /// When.
    #[serde(deserialize_with = "from_millis")]
    pub at: WallInstant,
    /// Bytes that had come through all tunnels by then.
    pub received: u64,
    /// Of an answer.
    pub status: Option<u16>,
    /// Of an error, or of HTTP/2.
    #[serde(default)]
    pub code: Value,
}

/// Opens tunnels to `target` on one connection, talks in all of them, and waits for the
/// connection's end.
pub fn talk(scene: &Scene, token: &str, target: &str, tunnels: usize) -> Result<Vec<Event>> {
    let bed = &scene.bed;
    let server = scene.client()?.server();
    let settings = json!({
        "host": server.ip(), "port": server.port(), "name": SERVER_NAME,
        "ca": scene.ca_file(), "target": target, "token": token, "tunnels": tunnels,
    });
    let script = bed.write("node-tunnel.mjs", CLIENT)?;
    let mut command = bed.command(bed.client(), "node")?;
    let output = command.arg(script).arg(settings.to_string()).output();
    let output = output.context("run Node.js")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "Node.js failed: {said}");
    serde_json::from_slice(&output.stdout).context("what Node.js printed")
}

fn from_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallInstant, D::Error> {
    let millis = std::time::Duration::from_millis(u64::deserialize(deserializer)?);
    Ok(WallInstant::from_unix_seconds(0).saturating_add(millis))
}
