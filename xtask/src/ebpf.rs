//! Building the kernel's side into the object that the daemon embeds.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::process;
use crate::toolchain::Toolchain;
use crate::workspace::Workspace;

const TARGET: &str = "bpfel-unknown-none";

/// Builds the eBPF crate, and puts its object where `enforcer/build.rs` looks.
pub(crate) fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let Toolchain { compiler, linker } = toolchain;
    let linker_flag = format!("-Clinker={}", linker.path().display());
    // The object has BTF only with both the debug information and the linker's flag.
    let flags = [&linker_flag, "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f");
    let target_dir = workspace.ebpf().join("build");
    process::run(
        compiler
            .cargo()
            .args([
                "build",
                "--package",
                "enforcer-ebpf",
                "--release",
                "--locked",
            ])
            .args(["-Zbuild-std=core", "--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            .current_dir(workspace.root())
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            // Lets a stable compiler build `core`; a nightly needs no leave.
            .env("RUSTC_BOOTSTRAP", "1"),
    )
    .with_context(|| format!("the eBPF programs do not build with {compiler} and {linker}"))?;
    let built = target_dir.join(TARGET).join("release/enforcer");
    publish(&built, &workspace.ebpf().join("enforcer.bpf.o"))
}

/// Copies `built` unless `object` is equal already, so that cargo sees no change where there is
/// none; the rename lets nobody read half of it.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let partial = object.with_extension("partial");
    fs::write(&partial, new)
        .and_then(|()| fs::rename(&partial, object))
        .with_context(|| format!("cannot write {}", object.display()))
}
