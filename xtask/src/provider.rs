//! The OpenID provider that the end-to-end tests take tokens from, out of the npm registry.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{packages, process};

/// What says which packages, and which versions of them.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs it beside the daemon's binaries, unless it is there.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let sources = workspace.root().join("tests/src/provider");
    let folder = workspace.provider();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
    let mut current = folder.join("node_modules/.package-lock.json").is_file();
    for name in MANIFESTS {
        let wanted = fs::read(sources.join(name)).with_context(|| format!("cannot read {name}"))?;
        let file = folder.join(name);
        if fs::read(&file).ok().as_ref() != Some(&wanted) {
            current = false;
            fs::write(&file, wanted).with_context(|| format!("cannot write {file:?}"))?;
        }
    }
    if current {
        return Ok(());
    }
    // Some distributions of Node.js bring npm along, and their packages exclude Debian's.
    if process::on_path("npm").is_none() || process::on_path("node").is_none() {
        packages::install(&["nodejs", "npm"])?;
    }
    let arguments = [
        "ci",
        "--omit=dev",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ];
    process::run(Command::new("npm").args(arguments).current_dir(&folder))
}
