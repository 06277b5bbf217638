//! A proxy that nobody here wrote, between clients and the daemon.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use crate::{
    bed::{Bed, DAEMON_IPV4},
    process::Process,
    scene::PORT,
    wait,
};

const PROXY_PORT: u16 = 7443;

/// A running HAProxy in the daemon's namespace, which passes TCP connections on.
#[derive(Debug)]
pub struct HaProxy {
    log: PathBuf,
    _process: Process,
}

impl HaProxy {
    /// Starts it in front of the daemon with these options for its connections there, such as
    /// `send-proxy`.
    pub fn start(bed: &Bed, options: &str) -> Result<Self> {
        let daemon = format!("{DAEMON_IPV4}:{PORT} {options}");
        Self::run(bed, "haproxy-front", Self::address(), "", &daemon)
    }

    /// Starts it at `address` in front of a server of the daemon's. It takes only connections that
    /// announce their client, and logs whom they announced.
    pub fn behind_daemon(bed: &Bed, address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let server = server.to_string();
        Self::run(bed, "haproxy-back", address, "accept-proxy", &server)
    }

    fn run(
        bed: &Bed,
        name: &str,
        address: SocketAddr,
        options: &str,
        server: &str,
    ) -> Result<Self> {
        let file = bed.write(
            &format!("{name}.cfg"),
            format!(
                "defaults
    mode tcp
    log stdout format raw local0
    log-format \"client %ci:%cp\"
    option logasap
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend clients
    bind {address} {options}
    default_backend servers
backend servers
    server server {server}
"
            ),
        )?;
        let log = bed.path(&format!("{name}.log"));
        let output = File::create(&log).context("make HAProxy's log")?;
        let mut command = bed.command(bed.daemon(), "haproxy")?;
        command.arg("-db").arg("-f").arg(file);
        command
            .stdout(output.try_clone().context("share the log")?)
            .stderr(output);
        let haproxy = Self {
            _process: Process::spawn(&mut command, "haproxy")?,
            log,
        };
        wait::until("HAProxy listened", || {
            let mut ss = bed.command(bed.daemon(), "ss").ok()?;
            let listening = ss.args(["-Hltn", "src", &address.to_string()]).output();
            (!listening.ok()?.stdout.is_empty()).then_some(())
        })
        .with_context(|| haproxy.log())?;
        Ok(haproxy)
    }

    /// Where clients connect to.
    pub fn address() -> SocketAddr {
        SocketAddr::new(DAEMON_IPV4, PROXY_PORT)
    }

    /// Waits until it has passed on a connection of this client's.
    pub fn wait_for(&self, client: SocketAddr) -> Result<()> {
        let line = format!("client {client}\n");
        let what = format!("HAProxy heard of {client}");
        wait::until(&what, || self.log().contains(&line).then_some(())).with_context(|| self.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
