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
    "mount",
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

/// A program that is run, and the Debian package that has it.
type Need = (&'static str, &'static str);

/// What the demonstration runs.
const DEMO: &[Need] = &[
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("tcpdump", "tcpdump"),
];

/// What the demonstration shows or advises; without it there is less to see.
const DEMO_EXTRAS: &[Need] = &[("bpftool", "bpftool"), ("curl", "curl")];

/// What the benchmark of PostgreSQL listeners runs: Debian's wrapper stands for server and pgbench,
/// which are not on PATH.
const PGBENCH: &[Need] = &[("pg_ctlcluster", "postgresql")];

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

/// Installs what the demonstration runs, or says what to install; it goes without the extras.
pub(crate) fn install_for_demo() -> Result<()> {
    provide(DEMO)?;
    if let Err(error) = provide(DEMO_EXTRAS) {
        eprintln!("the demonstration will show less: {error:#}");
    }
    Ok(())
}

/// Installs what the measurements run, or says what to install.
pub(crate) fn install_for_bench(with_pgbench: bool) -> Result<()> {
    provide(DEMO)?;
    provide(if with_pgbench { PGBENCH } else { &[] })
}

/// Sees to it that programs are there. A program on PATH is good wherever it is from.
fn provide(needs: &[Need]) -> Result<()> {
    let lacking = lacking(needs, |program| process::on_path(program).is_some());
    if lacking.is_empty() {
        return Ok(());
    }
    if process::on_path("apt-get").is_none() {
        bail!(advice(&lacking));
    }
    let packages: Vec<_> = lacking.iter().map(|(_, package)| *package).collect();
    install(&packages).map(drop)
}

fn lacking(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<Need> {
    let absent = needs.iter().filter(|(program, _)| !is_there(program));
    absent.copied().collect()
}

fn advice(lacking: &[Need]) -> String {
    let named = lacking
        .iter()
        .map(|(program, package)| format!("`{program}` (Debian's package {package})"));
    format!(
        "not on PATH: {}; there is no apt-get here, so install what has them with your \
         distribution's package manager, and run this again",
        named.collect::<Vec<_>>().join(", ")
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_on_path_is_wanted_and_the_advice_names_it() {
        let minimal = |program: &str| ["mount", "nsenter"].contains(&program);
        let lacking = lacking(DEMO, minimal);
        assert_eq!(lacking, [("ip", "iproute2"), ("tcpdump", "tcpdump")]);
        let advice = advice(&lacking);
        for word in ["`ip` (", "iproute2", "`tcpdump` (", "install"] {
            assert!(advice.contains(word), "no {word} in: {advice}");
        }
        assert!(!advice.contains("nsenter"), "{advice}");
    }

    #[test]
    fn whatever_demonstration_and_measurements_run_the_tests_run_too() {
        let needs = [DEMO, DEMO_EXTRAS, PGBENCH].concat();
        for (program, package) in needs {
            assert!(TEST_PACKAGES.contains(&package), "{package} for {program}");
        }
    }
}
