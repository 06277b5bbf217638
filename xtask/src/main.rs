//! `cargo xtask`: sets up, builds, tests and demonstrates enforcer.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::workspace::{Profile, Workspace};

mod compiler;
mod ebpf;
mod linker;
mod packages;
mod preflight;
mod process;
mod provider;
mod test;
mod toolchain;
mod workspace;

/// Sets up, builds, tests and demonstrates enforcer.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find the eBPF toolchain, or install it
    ///
    /// Either a rustup nightly with rust-src, or Debian's rustc-web; and bpf-linker, taken from
    /// PATH or built against the LLVM of that compiler.
    Setup,
    /// Build the eBPF programs, and the daemon that embeds them
    Build {
        /// Build the daemon without optimisations (the eBPF programs always have them)
        #[arg(long)]
        debug: bool,
    },
    /// Set up, build, and run every check and test
    ///
    /// Installs the Debian packages of every program that the tests run, Chromium and PostgreSQL among
    /// them, and an OpenID provider from npm.
    #[command(visible_alias = "ci")]
    Test {
        /// Run only the tests whose name contains one of these; after `--`, flags of the test
        /// harness
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Set up, build, and show a session being ended
    ///
    /// Installs what is missing of ip, mount, nsenter and tcpdump, which it runs, and of bpftool and
    /// curl, which it can do without.
    Demo {
        /// Leave everything running at the end
        #[arg(long)]
        stay: bool,
    },
    /// Set up, build, and measure
    ///
    /// Installs what is missing of ip, mount, nsenter and tcpdump, and PostgreSQL for `pgbench`.
    Bench {
        /// Only these: tokens, policy, throughput, pgbench, cut, audit, reload
        parts: Vec<String>,
    },
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    match Workspace::locate().and_then(|workspace| run(&workspace, task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("{cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(workspace: &Workspace, task: Task) -> Result<()> {
    match task {
        Task::Setup => toolchain::setup(workspace).map(drop),
        Task::Build { debug } => {
            let profile = if debug {
                Profile::Debug
            } else {
                Profile::Release
            };
            ebpf::build(workspace, &toolchain::find(workspace)?)?;
            workspace.build_daemon(profile)
        }
        Task::Test { filters } => test::run(workspace, &filters),
        Task::Demo { stay } => {
            let flags: &[&str] = if stay { &["--stay"] } else { &[] };
            preflight::check()?;
            packages::install_for_demo()?;
            play(workspace, "demo", flags)
        }
        Task::Bench { parts } => bench(workspace, &parts),
    }
}

/// What is pure is measured by the daemon's own benchmarks, the rest by a program on the real kernel.
fn bench(workspace: &Workspace, parts: &[String]) -> Result<()> {
    let (pure, others): (Vec<_>, Vec<_>) = parts
        .iter()
        .map(String::as_str)
        .partition(|part| *part == "tokens");
    let on_kernel = parts.is_empty() || !others.is_empty();
    if on_kernel {
        preflight::check()?;
        packages::install_for_bench(others.is_empty() || others.contains(&"pgbench"))?;
    }
    if parts.is_empty() || !pure.is_empty() {
        // Without the eBPF object there is no library to measure.
        ebpf::build(workspace, &toolchain::setup(workspace)?)?;
        process::run(&mut workspace.cargo(["bench", "--package", "enforcer"]))?;
    }
    if on_kernel {
        play(workspace, "bench", &others)?;
    }
    Ok(())
}

/// Becomes a program of the tests package, with the daemon built for it.
fn play(workspace: &Workspace, program: &str, flags: &[&str]) -> Result<()> {
    let toolchain = toolchain::setup(workspace)?;
    ebpf::build(workspace, &toolchain)?;
    workspace.build_daemon(Profile::Release)?;
    let error = workspace
        .cargo([
            "run",
            "--release",
            "--package",
            "enforcer-tests",
            "--bin",
            program,
            "--",
        ])
        .args(flags)
        .env("ENFORCER_BIN", workspace.daemon(Profile::Release))
        .exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}
