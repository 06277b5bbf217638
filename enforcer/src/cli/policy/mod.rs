//! `enforcer policy`: what policies are made of, and what they say. Some need no daemon.

mod explain;
mod history;
mod replay;
mod show;
mod simulate;
mod templates;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::Result;
use clap::{Args, Subcommand};

pub use self::{
    history::{HistoryArgs, RollbackArgs},
    replay::ReplayArgs,
    simulate::SimulateArgs,
};
use crate::clock::{self, WallInstant};

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// The subcommands of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the built-in templates with their sources.
    Templates {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the values of policies, and where each came from.
    Show(ShowArgs),
    /// Show which policies apply to a request, what is decided, and why.
    ///
    /// Exits with 0 if the request would be let in, with 1 if not.
    Explain(ExplainArgs),
    /// List the live sessions that a configuration would cut, shorten or lengthen.
    ///
    /// Nothing is changed.
    Simulate(SimulateArgs),
    /// Run recorded sessions against other limits: how many would have been cut, and how often
    /// people would have had to log in again.
    ///
    /// The pauses of the recorded sessions are shown by length, to choose an idle timeout from.
    Replay(ReplayArgs),
    /// List the configurations that were applied, the newest last.
    History(HistoryArgs),
    /// Apply an earlier configuration, with the checks of `reload`.
    ///
    /// The file stays as it is: a restart, or the next reload, applies what stands there.
    Rollback(RollbackArgs),
}

/// Arguments of `policy show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The policy; without it, all of them.
    pub name: Option<String>,
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Who makes the request.
    #[arg(long)]
    pub subject: String,
    /// Where it leads: a path, a host with a path, or the name of a listener.
    #[arg(long, value_name = "ROUTE")]
    pub route: String,
    /// The listener; needed where several could be meant.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// The token's claims: a JSON object.
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,
    /// Where it comes from.
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
    /// Who issued the credential; without it the claims' `iss`, else the only issuer.
    #[arg(long, value_name = "ISSUER")]
    pub issuer: Option<String>,
    /// When: an instant such as 2026-01-31T12:00:00Z; without it, now.
    #[arg(long, value_name = "INSTANT")]
    pub at: Option<Instant>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// An instant, as it is written on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(pub WallInstant);

/// Not an instant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an instant such as 2026-01-31T12:00:00Z")]
pub struct InvalidInstant;

impl FromStr for Instant {
    type Err = InvalidInstant;

    fn from_str(text: &str) -> Result<Self, InvalidInstant> {
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| InvalidInstant)?;
        let nanos = i64::try_from(timestamp.as_nanosecond()).map_err(|_| InvalidInstant)?;
        Ok(Self(WallInstant::from_unix_nanos(nanos)))
    }
}

pub(super) fn run(args: PolicyArgs) -> Result<ExitCode> {
    match args.command {
        PolicyCommand::Templates { json } => templates::run(json),
        PolicyCommand::Show(args) => show::run(&args),
        PolicyCommand::Explain(args) => explain::run(&args, clock::wall_now()),
        PolicyCommand::Simulate(args) => simulate::run(&args),
        PolicyCommand::Replay(args) => replay::run(&args),
        PolicyCommand::History(args) => history::run(&args),
        PolicyCommand::Rollback(args) => history::roll_back(&args),
    }
}
