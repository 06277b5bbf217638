//! Embeds the eBPF object that `cargo xtask build` leaves in `target/ebpf`.
//!
//! Without it an empty object is embedded, so that checking the crate needs no eBPF toolchain; the
//! daemon then says at its start what is missing.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let object = manifest.join("../target/ebpf/enforcer.bpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded =
        PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("enforcer.bpf.o");
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&embedded, bytes).expect("OUT_DIR is writable");
}
