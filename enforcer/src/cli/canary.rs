//! `enforcer canary`: does the kernel cut, now?

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use super::{
    client::Client,
    output::{print, print_json},
    text::printable,
};
use crate::warden::canary::CanaryStatus;

/// Has the daemon at `socket` run a canary. Fails if the kernel did not cut it as it should.
///
/// # Errors
/// If the daemon does not answer.
pub fn run(socket: &Path, json: bool) -> Result<ExitCode> {
    let status: CanaryStatus = Client::new(socket)?.post("/v1/canary", &())?;
    if json {
        print_json(&status)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&status)))?;
    }
    Ok(if status.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) fn for_people(status: &CanaryStatus) -> String {
    let at = status.at;
    match (&status.failure, status.lateness_us) {
        (Some(failure), _) => format!("FAILED at {at}: {}", printable(failure)),
        (None, Some(lateness)) => format!("passed at {at}, reset {lateness} us late"),
        (None, None) => format!("passed at {at}"),
    }
}
