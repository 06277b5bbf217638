//! Every check and test, cheapest first: the first stage that fails ends the run.

use anyhow::Result;

use crate::workspace::{Profile, Workspace};
use crate::{ebpf, packages, preflight, process, provider, toolchain};

/// Crates of the host: the eBPF crate builds for nothing else than its own target.
const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "enforcer-ebpf"];

/// Runs all stages; `filters` goes to the test harness.
pub(crate) fn run(workspace: &Workspace, filters: &[String]) -> Result<()> {
    preflight::check()?;
    process::run(&mut workspace.cargo(["fmt", "--all", "--check"]))?;
    let toolchain = toolchain::setup(workspace)?;
    packages::install_for_tests()?;
    provider::install(workspace)?;
    ebpf::build(workspace, &toolchain)?;
    workspace.build_daemon(Profile::Release)?;
    process::run(workspace.cargo(["clippy"]).args(HOST_CRATES).args([
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))?;
    let unit_tests = [&HOST_CRATES[..], &["--exclude", "enforcer-tests"]].concat();
    let end_to_end_tests = ["--package", "enforcer-tests"];
    for packages in [&unit_tests[..], &end_to_end_tests] {
        process::run(
            workspace
                .cargo(["test", "--no-fail-fast"])
                .args(packages)
                .arg("--")
                .args(filters)
                .env("ENFORCER_BIN", workspace.daemon(Profile::Release)),
        )?;
    }
    Ok(())
}
