//! Debian packages: what is missing is installed, and no service is started by that.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::Once;

use anyhow::{Result, bail};

use crate::process;

/// What the end-to-end tests run.
const TEST_PACKAGES: &[&str] = &[
    "bpftool",
    "chromium",
    "curl",
    "haproxy",
    "iproute2",
    "libjpeg-turbo-progs",
    "libnss3-tools",
    "nghttp2-client",
    "nghttp2-proxy",
    "nginx-light",
    "openssh-client",
    "openssh-server",
    "openssl",
    "postgresql",
    "procps",
    "prometheus",
    "python3-grpcio",
    "python3-websockets",
    "rsyslog",
    "rsyslog-gnutls",
    "socat",
    "tcpdump",
    "tmux",
    "util-linux",
    "vncsnapshot",
    "x11-xserver-utils",
    "x11vnc",
    "xvfb",
];

/// Installs `$@` while a policy forbids every service to start. A policy that is already there is
/// an administrator's, and stays; the trap also covers an interrupt.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] || grep -qs 'left by cargo xtask' "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\n# left by cargo xtask if it was killed: remove it\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    install --yes --no-install-recommends --no-remove "$@" >&2
"#;

/// Installs what the end-to-end tests run. Without apt nothing can be installed, and a test that
/// lacks a program fails and names it.
pub(crate) fn install_for_tests() -> Result<()> {
    if process::on_path("apt-get").is_none() {
        eprintln!(
            "no apt-get here: the tests run what {} provide",
            TEST_PACKAGES.join(", ")
        );
        return Ok(());
    }
    install(TEST_PACKAGES).map(drop)
}

/// Installs those of `wanted` that are missing, and says which they were.
pub(crate) fn install<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    let names = missing.join(" ");
    if !is_root()? {
        bail!(
            "packages are missing, and installing them takes root: `sudo apt-get install {names}`"
        );
    }
    update_index();
    eprintln!("+ apt-get install {names}");
    let status = Command::new("sh")
        .args(["-euc", INSTALL, "install"])
        .args(&missing)
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("`apt-get install {names}` failed: {status}");
    }
    Ok(missing)
}

fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    if process::on_path("apt-get").is_none() {
        bail!("no apt-get here");
    }
    // dpkg-query fails when it doesn't know a package, but still lists those that it knows.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .output()?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let installed: HashSet<_> = listing
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    Ok(wanted
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect())
}

/// Once per run, and what can't be fetched is no error yet: the index may still have what's wanted.
fn update_index() {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if let Err(error) = process::run(Command::new("apt-get").args(["-qq", "update"])) {
            eprintln!("{error:#}");
        }
    });
}

fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}
