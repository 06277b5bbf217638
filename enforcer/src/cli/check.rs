//! `enforcer check`.

use std::process::ExitCode;

use anyhow::Result;

use super::CheckArgs;
use crate::config::Config;

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let config = Config::load_with_files(&args.config)?;
    println!(
        "{}: {}, {}, {}",
        args.config.display(),
        counted(config.listeners.len(), "listener", "listeners"),
        counted(
            config.routes.len() + config.tunnels.len(),
            "route",
            "routes"
        ),
        counted(config.policies.len(), "policy", "policies"),
    );
    Ok(ExitCode::SUCCESS)
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
