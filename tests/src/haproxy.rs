//! A proxy that nobody here wrote, between clients and the daemon.

use std::{fs::File, net::SocketAddr, process::Stdio};

use anyhow::{Context as _, Result};

use crate::{
    bed::{Bed, DAEMON_IPV4},
    process::Process,
    scene::PORT,
    wait,
};

const PROXY_PORT: u16 = 7443;
const LOG: &str = "haproxy.log";

/// A running HAProxy in the daemon's namespace, which passes TCP connections on.
#[derive(Debug)]
pub struct HaProxy {
    _process: Process,
}

impl HaProxy {
    /// Starts it with these options for its connections to the daemon, such as `send-proxy`.
    pub fn start(bed: &Bed, options: &str) -> Result<Self> {
        let address = Self::address();
        let file = bed.write(
            "haproxy.cfg",
            format!(
                "defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend clients
    bind {address}
    default_backend daemon
backend daemon
    server enforcer {DAEMON_IPV4}:{PORT} {options}
"
            ),
        )?;
        let log = File::create(bed.path(LOG)).context("make HAProxy's log")?;
        let mut command = bed.command(bed.daemon(), "haproxy")?;
        command.arg("-db").arg("-f").arg(file);
        command.stdout(Stdio::null()).stderr(log);
        let haproxy = Self {
            _process: Process::spawn(&mut command, "haproxy")?,
        };
        wait::until("HAProxy listened", || {
            let mut ss = bed.command(bed.daemon(), "ss").ok()?;
            let listening = ss.args(["-Hltn", "src", &address.to_string()]).output();
            (!listening.ok()?.stdout.is_empty()).then_some(())
        })
        .with_context(|| std::fs::read_to_string(bed.path(LOG)).unwrap_or_default())?;
        Ok(haproxy)
    }

    /// Where clients connect to.
    pub fn address() -> SocketAddr {
        SocketAddr::new(DAEMON_IPV4, PROXY_PORT)
    }
}
