//! The compiler of the eBPF crate: one that has its own `core` source, because the BPF target
//! ships without one.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{packages, process};

/// What the environment may tell the cargo that builds for eBPF: where it keeps and fetches
/// things. All else under these names is about the host build, or about the crate that cargo is
/// running right now.
const INHERITED: [&str; 8] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "RUSTUP_HOME",
    "RUST_BACKTRACE",
];

/// A rustc and its cargo.
#[derive(Debug)]
pub(crate) struct Compiler {
    bin: PathBuf,
    version: String,
    llvm: u32,
}

impl Compiler {
    /// A rustup nightly with the component rust-src.
    pub(crate) fn of_rustup() -> Result<Self> {
        let nightly = rustup_nightly()?.context("rustup has no nightly")?;
        let rustc = process::output(Command::new("rustup").args([
            "which",
            "rustc",
            "--toolchain",
            &nightly,
        ]))?;
        let bin = Path::new(rustc.trim())
            .parent()
            .context("rustup names no path")?;
        Self::in_folder(bin)
    }

    /// The distribution's, with its source package.
    pub(crate) fn of_system() -> Result<Self> {
        Self::in_folder(Path::new("/usr/bin"))
    }

    /// Adds the source to a nightly that rustup has.
    pub(crate) fn complete_rustup() -> Result<Self> {
        let nightly = rustup_nightly()?.context("rustup has no nightly")?;
        process::run(Command::new("rustup").args([
            "component",
            "add",
            "rust-src",
            "--toolchain",
            &nightly,
        ]))?;
        Self::of_rustup()
    }

    /// Installs a nightly where rustup has none.
    pub(crate) fn install_rustup() -> Result<Self> {
        if let Some(nightly) = rustup_nightly()? {
            bail!("rustup has {nightly} already");
        }
        process::run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))?;
        Self::of_rustup()
    }

    /// Installs Debian's current compiler, which its browsers are built with.
    pub(crate) fn install_debian() -> Result<Self> {
        ensure!(Self::of_system().is_err(), "nothing to add");
        packages::install(&["rustc-web", "cargo-web", "rust-web-src"])?;
        Self::of_system()
    }

    fn in_folder(bin: &Path) -> Result<Self> {
        let rustc = bin.join("rustc");
        ensure!(
            rustc.is_file() && bin.join("cargo").is_file(),
            "{} is missing",
            rustc.display()
        );
        let verbose = process::output(isolated(&rustc).arg("-vV"))?;
        let field = |name| verbose.lines().find_map(|line| line.strip_prefix(name));
        let version = field("release: ").context("rustc doesn't tell its version")?;
        let oldest = env!("CARGO_PKG_RUST_VERSION");
        ensure!(
            numbers(version) >= numbers(oldest),
            "rustc {version} is older than {oldest}"
        );
        let llvm = field("LLVM version: ").and_then(|llvm| numbers(llvm).first().copied());
        let sysroot = process::output(isolated(&rustc).args(["--print", "sysroot"]))?;
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
        ensure!(
            source.is_dir(),
            "rustc {version} lacks its source, {}",
            source.display()
        );
        Ok(Self {
            bin: bin.to_owned(),
            version: version.to_owned(),
            llvm: llvm.context("rustc doesn't tell its version of LLVM")?,
        })
    }

    /// The major version of LLVM, whose bitcode the linker must read.
    pub(crate) fn llvm(&self) -> u32 {
        self.llvm
    }

    /// Its cargo, untouched by the cargo and the flags that this task was started with.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = isolated(&self.bin.join("cargo"));
        cargo.env("RUSTC", self.bin.join("rustc"));
        cargo
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bin, version, llvm } = self;
        write!(f, "{} {version} (LLVM {llvm})", bin.join("rustc").display())
    }
}

fn rustup_nightly() -> Result<Option<String>> {
    let toolchains = process::output(Command::new("rustup").args(["toolchain", "list"]))?;
    let names = toolchains
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| name.starts_with("nightly"))
        .map(str::to_owned)
        .next())
}

fn isolated(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| !is_inherited(name)) {
            command.env_remove(name);
        }
    }
    command
}

fn is_inherited(name: &str) -> bool {
    let about_rust = name.starts_with("CARGO") || name.starts_with("RUST");
    // cargo points LD_LIBRARY_PATH at the libraries of its own compiler.
    let kept = !about_rust && name != "LD_LIBRARY_PATH";
    kept || INHERITED.iter().any(|prefix| name.starts_with(prefix))
}

/// `1.97.0-nightly` is 1, 97, 0.
fn numbers(version: &str) -> Vec<u32> {
    let release = version.split('-').next().unwrap_or(version);
    release
        .split('.')
        .map_while(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(numbers("1.97.0-nightly") >= numbers("1.95"));
        assert!(numbers("1.95.0") >= numbers("1.95"));
        assert!(numbers("1.63.0") < numbers("1.95"));
        assert!(numbers("1.100.0") >= numbers("1.95"));
    }

    #[test]
    fn the_outer_cargo_is_not_inherited() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(!is_inherited(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_X_INDEX",
        ] {
            assert!(is_inherited(name), "{name}");
        }
    }
}
