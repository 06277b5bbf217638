//! `enforcer policy simulate`: what a configuration would do to the live sessions.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use super::super::{
    AdminTarget,
    client::Client,
    output::{print, print_json},
    reload,
    text::{or_nothing, printable, table},
};
use crate::{
    config::Config,
    warden::admin::{AffectedSession, SimulateOutcome, SimulateRequest},
};

/// Arguments of `policy simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Where the daemon is; `--config` names the candidate.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon what the candidate would do.
pub(super) fn run(args: &SimulateArgs) -> Result<ExitCode> {
    let path = candidate(&args.target)?;
    Config::load_with_files(path)?;
    let request = SimulateRequest {
        text: fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        path: std::path::absolute(path)?,
    };
    let outcome: SimulateOutcome =
        Client::new(&args.target.socket()?)?.post("/v1/simulate", &request)?;
    if args.json {
        print_json(&outcome)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&outcome)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file that `--config` names.
pub(super) fn candidate(target: &AdminTarget) -> Result<&Path> {
    let path = target.config.config.as_deref();
    path.context("name the candidate with --config FILE")
}

fn for_people(outcome: &SimulateOutcome) -> String {
    let mut lines = vec!["it would change".to_owned()];
    lines.extend(reload::changes(&outcome.changes));
    lines.push(reload::impact(&outcome.impact));
    if !outcome.sessions.is_empty() {
        lines.push(String::new());
        lines.push(sessions(&outcome.sessions));
    }
    if outcome.omitted > 0 {
        lines.push(format!("and {} more", outcome.omitted));
    }
    for refused in &outcome.refusals {
        lines.push(String::new());
        let reason = refused.message.lines().map(printable).collect::<Vec<_>>();
        lines.push(format!("reload would refuse it: {}", reason.join("\n")));
    }
    lines.join("\n")
}

fn sessions(sessions: &[AffectedSession]) -> String {
    let header = [
        "ID",
        "SUBJECT",
        "POLICY",
        "EFFECT",
        "ENDS AT",
        "WOULD END AT",
        "CONNECTIONS",
        "WHY",
    ];
    table(
        &header,
        sessions.iter().map(|session| {
            vec![
                session.id.to_string(),
                session.subject.clone(),
                session.policies.join(","),
                session.effect.as_str().to_owned(),
                or_nothing(session.ends_at),
                or_nothing(session.would_end_at),
                session.connections.to_string(),
                session.reason.clone().unwrap_or_default(),
            ]
        }),
    )
}
