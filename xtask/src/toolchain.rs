//! The eBPF toolchain: a compiler that can build `core` for the BPF target, and a linker for its
//! LLVM. Several ways lead to one; the first that works is taken.

use anyhow::{Context as _, Result, bail};

use crate::compiler::Compiler;
use crate::linker::Linker;
use crate::workspace::Workspace;

/// What the eBPF crate is built with.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// Where a compiler may come from.
type Source = (&'static str, fn() -> Result<Compiler>);

const INSTALLED: [Source; 2] = [
    ("rustup", Compiler::of_rustup),
    ("system", Compiler::of_system),
];

/// From the least to be installed to the most.
const INSTALLABLE: [Source; 5] = [
    ("rustup", Compiler::of_rustup),
    ("system", Compiler::of_system),
    ("rustup's rust-src", Compiler::complete_rustup),
    ("Debian's rustc-web", Compiler::install_debian),
    ("rustup's nightly", Compiler::install_rustup),
];

/// Finds what is installed.
pub(crate) fn find(workspace: &Workspace) -> Result<Toolchain> {
    let tools = workspace.tools();
    first(&INSTALLED, |compiler| Linker::find(&tools, compiler))
        .context("no eBPF toolchain is installed: run `cargo xtask setup`")
}

/// Finds the toolchain, or installs what it lacks.
pub(crate) fn setup(workspace: &Workspace) -> Result<Toolchain> {
    let tools = workspace.tools();
    let (done, toolchain) = match find(workspace) {
        Ok(toolchain) => ("found", toolchain),
        Err(_) => {
            let toolchain = first(&INSTALLABLE, |compiler| {
                Linker::find(&tools, compiler).or_else(|_| Linker::install(&tools, compiler))
            });
            let toolchain = toolchain.context(
                "no eBPF toolchain can be had: install one (`rustup toolchain install nightly \
                 --component rust-src` and `cargo binstall bpf-linker`), or use Debian 12 as root",
            )?;
            ("installed", toolchain)
        }
    };
    let Toolchain { compiler, linker } = &toolchain;
    eprintln!("eBPF toolchain {done}: {compiler}, {linker}");
    Ok(toolchain)
}

/// The first source whose compiler has a linker, or why none has.
fn first(sources: &[Source], linker: impl Fn(&Compiler) -> Result<Linker>) -> Result<Toolchain> {
    let mut reasons = Vec::new();
    for (name, compiler) in sources {
        let toolchain = compiler().and_then(|compiler| {
            let linker = linker(&compiler)?;
            Ok(Toolchain { compiler, linker })
        });
        match toolchain {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => reasons.push(format!("{name}: {reason:#}")),
        }
    }
    bail!(reasons.join("\n"))
}
