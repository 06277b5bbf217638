//! `enforcer policy history`: the configurations that were applied.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use super::super::{
    AdminTarget,
    client::{Client, ClientError},
    output::{print, print_json},
    reload::Conditions,
    text::{printable, table},
};
use crate::warden::reload::{self, HISTORY_FOLDER, Version};

/// Arguments of `policy history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Print the text of this version instead.
    #[arg(long, value_name = "VERSION")]
    pub show: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Its number in the history.
    pub version: u64,
    /// Under which conditions.
    #[command(flatten)]
    pub conditions: Conditions,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Has the daemon apply an earlier version.
pub(super) fn roll_back(args: &RollbackArgs) -> Result<ExitCode> {
    let request = args.conditions.request(Some(args.version));
    super::super::reload::run(&args.target.reload_socket()?, &request, args.json)
}

/// Lists them, or prints the text of one. They come from the daemon; if none runs, from its folder.
pub(super) fn run(args: &HistoryArgs) -> Result<ExitCode> {
    let client = Client::new(&args.target.socket()?)?;
    let folder = &args.target.config.daemon()?.state_dir.join(HISTORY_FOLDER);
    if let Some(number) = args.show {
        let version: Version = match client.get(&format!("/v1/configurations/{number}")) {
            Err(ClientError::NotRunning { .. }) => reload::read_version(folder, number)
                .with_context(|| format!("there is no version {number} in {}", folder.display()))?,
            answer => answer?,
        };
        if args.json {
            print_json(&version)?;
        } else {
            print(|out| out.write_all(version.text.as_bytes()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let versions: Vec<Version> = match client.get("/v1/configurations") {
        Err(ClientError::NotRunning { .. }) => reload::history(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .into_iter()
            .map(|version| Version {
                text: String::new(),
                ..version
            })
            .collect(),
        answer => answer?,
    };
    if args.json {
        print_json(&versions)?;
    } else if versions.is_empty() {
        print(|out| writeln!(out, "no configuration is kept"))?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&versions)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(versions: &[Version]) -> String {
    table(
        &["VERSION", "APPLIED AT", "BY", "SHA-256", "CHANGES"],
        versions.iter().map(|version| {
            let by = match version.uid {
                Some(uid) => format!("{} (uid {uid})", version.origin),
                None => version.origin.clone(),
            };
            vec![
                version.version.to_string(),
                version.applied_at.to_string(),
                by,
                version.sha256.chars().take(12).collect(),
                printable(&version.changes.join("; ")),
            ]
        }),
    )
}
