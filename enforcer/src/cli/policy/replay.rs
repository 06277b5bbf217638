//! `enforcer policy replay`: recorded sessions under other limits.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::super::{
    AdminTarget, Since,
    audit::read_records,
    output::{print, print_json},
    text::{count, duration, table},
};
use super::simulate::candidate;
use crate::{
    clock,
    config::Config,
    policy::replay::{Replay, Tally, collect, replay},
};

/// Widest bar of the histogram.
const BAR: u64 = 40;

/// Arguments of `policy replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Where the daemon is; `--config` names the candidate.
    #[command(flatten)]
    pub target: AdminTarget,
    /// From here on: an instant (2026-01-31T12:00:00Z), or a duration back from now (7d).
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    pub since: Since,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the recorded sessions against the limits of the candidate.
pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let policies = Config::load(candidate(&args.target)?)?.policies;
    let database = args.target.config.audit()?.database();
    let since = args.since.instant(clock::wall_now());
    let mut records = Vec::new();
    read_records(&args.target.socket()?, &database, since, |record| {
        if record.session.is_some() {
            records.push(record);
        }
    })?;
    let replayed = replay(&collect(records, clock::wall_now()), &policies);
    if args.json {
        print_json(&replayed)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&replayed)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(replay: &Replay) -> String {
    let mut blocks = Vec::new();
    let mut rows: Vec<_> = replay
        .by_policy
        .iter()
        .map(|(names, tally)| row(names, tally))
        .collect();
    rows.push(row("all", &replay.total));
    let header = [
        "POLICY",
        "SESSIONS",
        "CUT",
        "IDLE FIRST",
        "AGE FIRST",
        "LOGINS AGAIN",
        "MIGHT LAST LONGER",
    ];
    blocks.push(table(&header, rows));
    if replay.without_policy > 0 {
        let sessions = count(replay.without_policy, "session");
        blocks.push(format!(
            "{sessions} of policies that this configuration does not have"
        ));
    }
    if replay.idle_gaps.is_empty() {
        blocks.push("no pauses are recorded".to_owned());
        return blocks.join("\n\n");
    }
    blocks.push(histogram(replay));
    let choices = replay.idle_timeouts.iter().map(|choice| {
        vec![
            duration(choice.idle_timeout_seconds),
            choice.sessions.to_string(),
            choice.logins_again.to_string(),
        ]
    });
    blocks.push(table(
        &["IDLE TIMEOUT", "SESSIONS CUT", "LOGINS AGAIN"],
        choices,
    ));
    blocks.join("\n\n")
}

fn row(names: &str, tally: &Tally) -> Vec<String> {
    vec![
        names.to_owned(),
        tally.sessions.to_string(),
        tally.cut.to_string(),
        tally.cut_idle.to_string(),
        tally.cut_max_session.to_string(),
        tally.logins_again.to_string(),
        tally.longer.to_string(),
    ]
}

fn histogram(replay: &Replay) -> String {
    let most = replay.idle_gaps.iter().map(|class| class.gaps).max();
    let most = most.unwrap_or(1).max(1);
    let rows = replay.idle_gaps.iter().map(|class| {
        // At least a dot for what there is.
        let width = (class.gaps.saturating_mul(BAR) / most).max(1);
        vec![
            duration(class.from_seconds),
            class.gaps.to_string(),
            class.sessions.to_string(),
            "#".repeat(usize::try_from(width).unwrap_or(1)),
        ]
    });
    table(&["PAUSE FROM", "PAUSES", "SESSIONS WITH SUCH", ""], rows)
}
