//! `enforcer unload`: stop, detach, unpin.

use std::{path::Path, process::ExitCode, thread, time::Duration};

use anyhow::{Result, bail};

use super::{
    client::{Client, ClientError},
    output::print,
    text::count,
};
use crate::warden::admin::UnloadOutcome;

/// How long a daemon may take to end after its answer.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between looks at whether it did.
const TICK: Duration = Duration::from_millis(50);

/// Asks the daemon at `socket` to end all sessions and remove itself from the kernel, and waits
/// until it has. If none runs, `remove_pins` removes what is left, and returns what that was.
///
/// # Errors
/// If the daemon refuses or does not end, or something can't be removed.
pub fn run(socket: &Path, remove_pins: impl FnOnce() -> Result<Vec<String>>) -> Result<ExitCode> {
    let client = Client::new(socket)?;
    match client.post::<UnloadOutcome>("/v1/unload", &()) {
        Ok(outcome) => {
            wait_for_exit(&client)?;
            let sessions = count(outcome.sessions, "session");
            let connections = count(outcome.connections, "connection");
            print(|out| writeln!(out, "unloaded; ended {sessions} with {connections}"))?;
        }
        Err(ClientError::NotRunning { .. }) => {
            let removed = remove_pins()?;
            print(|out| {
                if removed.is_empty() {
                    return writeln!(out, "nothing is loaded");
                }
                for part in &removed {
                    writeln!(out, "removed {part}")?;
                }
                Ok(())
            })?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn wait_for_exit(client: &Client) -> Result<()> {
    let ticks = EXIT_TIMEOUT.as_millis() / TICK.as_millis();
    for _ in 0..ticks {
        if !client.is_running() {
            return Ok(());
        }
        thread::sleep(TICK);
    }
    bail!("the daemon was asked to unload and still runs after {EXIT_TIMEOUT:?}")
}
