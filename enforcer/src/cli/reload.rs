//! `enforcer reload`: the configuration's file, applied to the running daemon.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::{
    EXIT_USAGE,
    client::{Client, ClientError},
    output::{print, print_json},
    text::{count, printable},
};
use crate::warden::admin::{Impact, ReloadOutcome, ReloadRequest};

/// Conditions under which a configuration is applied.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Conditions {
    /// Refuse a configuration that would cut more live sessions than this.
    #[arg(long, value_name = "N")]
    pub max_cut: Option<usize>,
    /// Apply it though it would lock everyone out.
    #[arg(long)]
    pub yes: bool,
}

impl Conditions {
    /// Asks for the file, or for a version of the history.
    pub fn request(self, version: Option<u64>) -> ReloadRequest {
        ReloadRequest {
            version,
            max_cut: self.max_cut,
            yes: self.yes,
        }
    }
}

/// Has the daemon at `socket` apply its file, or a version of its history, and says what came of
/// it.
///
/// # Errors
/// If the daemon does not answer, or refuses.
pub fn run(socket: &Path, request: &ReloadRequest, json: bool) -> Result<ExitCode> {
    let outcome: ReloadOutcome = match Client::new(socket)?.post("/v1/reload", request) {
        // It starts with file and line, where editors look for them.
        Err(ClientError::Refused(error)) if error.code == "invalid" => {
            eprintln!("{error}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
        answer => answer?,
    };
    if json {
        print_json(&outcome)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&outcome)))?;
    }
    for warning in &outcome.warnings {
        eprintln!("warning: {}", printable(warning));
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(outcome: &ReloadOutcome) -> String {
    let mut lines = vec![match outcome.version {
        Some(version) => format!("applied, version {version}"),
        None => "applied".to_owned(),
    }];
    lines.extend(changes(&outcome.changes));
    lines.push(impact(&outcome.impact));
    lines.join("\n")
}

/// What a configuration changes, one thing a line.
pub(super) fn changes(changes: &[String]) -> Vec<String> {
    if changes.is_empty() {
        return vec!["  nothing but the files that it names, which were read again".to_owned()];
    }
    let lines = changes.iter();
    lines
        .map(|change| format!("  {}", printable(change)))
        .collect()
}

/// What becomes of the live sessions, in a line.
pub(super) fn impact(impact: &Impact) -> String {
    let Impact {
        sessions,
        cut,
        shortened,
        lengthened,
        changed,
    } = impact;
    format!(
        "{}: {cut} cut, {shortened} shortened, {lengthened} lengthened, {changed} changed otherwise",
        count(*sessions, "live session")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_in_lines() {
        let outcome = ReloadOutcome {
            version: Some(4),
            changes: vec!["policy `p`: max_session 8h to 4h".to_owned()],
            impact: Impact {
                sessions: 3,
                cut: 1,
                shortened: 2,
                ..Impact::default()
            },
            warnings: Vec::new(),
        };
        assert_eq!(
            for_people(&outcome),
            "applied, version 4\n  policy `p`: max_session 8h to 4h\n\
             3 live sessions: 1 cut, 2 shortened, 0 lengthened, 0 changed otherwise"
        );
    }
}
