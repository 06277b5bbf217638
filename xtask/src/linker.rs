//! bpf-linker, which must read the bitcode of the compiler: its LLVM is not older.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::compiler::Compiler;
use crate::{packages, process};

/// A bpf-linker that runs.
#[derive(Debug)]
pub(crate) struct Linker {
    path: PathBuf,
    version: String,
}

impl Linker {
    /// The one that [`Linker::install`] made for this LLVM, else the one on PATH.
    pub(crate) fn find(tools: &Path, compiler: &Compiler) -> Result<Self> {
        let own = root(tools, compiler).join("bin/bpf-linker");
        let path = Some(own)
            .filter(|own| own.is_file())
            .or_else(|| process::on_path("bpf-linker"))
            .context("bpf-linker is not installed")?;
        let printed = process::output(Command::new(&path).arg("--version"))?;
        let version = printed
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned();
        Ok(Self { path, version })
    }

    /// Builds it against the compiler's LLVM.
    pub(crate) fn install(tools: &Path, compiler: &Compiler) -> Result<Self> {
        let llvm = compiler.llvm();
        let prefix = match env::var_os("LLVM_PREFIX") {
            Some(prefix) => PathBuf::from(prefix),
            None => debian_llvm(llvm).with_context(|| {
                format!("bpf-linker is built with LLVM {llvm}, and LLVM_PREFIX doesn't say where")
            })?,
        };
        let feature = format!("llvm-{llvm}");
        process::run(
            compiler
                .cargo()
                .args([
                    "install",
                    "bpf-linker",
                    "--version",
                    "^0.13",
                    "--locked",
                    "--force",
                ])
                .args(["--no-default-features", "--features", &feature, "--root"])
                .arg(root(tools, compiler))
                .env("LLVM_PREFIX", prefix),
        )?;
        Self::find(tools, compiler)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.version)
    }
}

/// Installs Debian's LLVM with what bpf-linker needs of it.
fn debian_llvm(version: u32) -> Result<PathBuf> {
    let (llvm, polly) = (
        format!("llvm-{version}-dev"),
        format!("libpolly-{version}-dev"),
    );
    packages::install(&[&llvm, &polly, "libzstd-dev", "zlib1g-dev"])?;
    Ok(PathBuf::from(format!("/usr/lib/llvm-{version}")))
}

fn root(tools: &Path, compiler: &Compiler) -> PathBuf {
    tools.join(format!("llvm-{}", compiler.llvm()))
}
