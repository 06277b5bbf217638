//! Where things are in the workspace, and cargo as its host crates are built with.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The folders that the tasks work in.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

/// How the daemon is compiled.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Debug,
    Release,
}

impl Workspace {
    pub(crate) fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the xtask crate lies outside the workspace")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => absolute(folder).context("CARGO_TARGET_DIR is no path")?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the eBPF crate is built: apart from the host crates, whose flags differ, and in this
    /// work tree whatever CARGO_TARGET_DIR says, because `enforcer/build.rs` looks here.
    pub(crate) fn ebpf(&self) -> PathBuf {
        self.root.join("target/ebpf")
    }

    /// Where programs that building needs are installed.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Where the tests' OpenID provider is installed: they look beside the daemon's folder.
    pub(crate) fn provider(&self) -> PathBuf {
        self.target.join("oidc-provider")
    }

    pub(crate) fn daemon(&self, profile: Profile) -> PathBuf {
        let folder = match profile {
            Profile::Debug => "debug",
            Profile::Release => "release",
        };
        self.target.join(folder).join("enforcer")
    }

    pub(crate) fn build_daemon(&self, profile: Profile) -> Result<()> {
        let mut cargo = self.cargo(["build", "--package", "enforcer"]);
        if let Profile::Release = profile {
            cargo.arg("--release");
        }
        process::run(&mut cargo)
    }

    /// The cargo that runs this task, for the host crates.
    pub(crate) fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut cargo =
            Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        cargo
            .args(arguments)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        cargo
    }
}
