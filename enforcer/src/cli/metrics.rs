//! `enforcer metrics`: the daemon's figures.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use super::{client::Client, output::print};

/// Prints the figures of the daemon at `socket`.
///
/// # Errors
/// If it does not answer.
pub fn run(socket: &Path) -> Result<ExitCode> {
    let text = Client::new(socket)?.get_text("/v1/metrics")?;
    print(|out| write!(out, "{text}"))?;
    Ok(ExitCode::SUCCESS)
}
