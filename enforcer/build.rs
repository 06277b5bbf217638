//! Embeds the eBPF object that `cargo xtask build` makes. Without it an empty one is embedded, so
//! that checking the daemon's code takes no eBPF toolchain.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let object = folder("CARGO_MANIFEST_DIR")?.join("../target/ebpf/enforcer.bpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    let code = match fs::read(&object) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            put_empty(&object);
            Vec::new()
        }
        read => read?,
    };
    fs::write(folder("OUT_DIR")?.join("enforcer.bpf.o"), code)
}

/// cargo takes a missing file for one that changed, and would build the daemon anew each time. In
/// a tree that can't be written it does.
fn put_empty(object: &Path) {
    let _ = object.parent().map(fs::create_dir_all);
    let _ = fs::File::create_new(object);
}

fn folder(variable: &str) -> io::Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other(variable))
}
