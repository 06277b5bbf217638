//! What `enforcer audit` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::super::{since::Since, target::AdminTarget};
use crate::{
    audit::{Event, Filter, parse_network},
    clock::WallInstant,
    session::SessionId,
};

/// Arguments of `audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Which records, and how.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Go on with new records as they come.
    #[arg(long)]
    pub follow: bool,
    /// What to do instead of printing them.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
}

/// Which records, and how they are printed.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Only the latest of them, so many.
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u64>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

impl QueryArgs {
    pub(super) const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line each, for people.
    Table,
    /// A JSON object each, on one line.
    Json,
    /// Comma-separated values (RFC 4180) under a header.
    Csv,
}

/// Which records.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// From here on: an instant (2026-01-31T12:00:00Z), or a duration back from now (15m).
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Up to here, likewise.
    #[arg(long, value_name = "WHEN")]
    pub until: Option<Since>,
    /// Only records of this subject.
    #[arg(long)]
    pub subject: Option<String>,
    /// Only records with a client (or upstream) in this network: 192.0.2.7, 192.0.2.0/24.
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    pub address: Option<IpNet>,
    /// Only records of this event.
    #[arg(long)]
    pub event: Option<Event>,
    /// Only records with this reason.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only records of sessions under this policy.
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// Only records of this session: 16 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    pub session: Option<SessionId>,
}

impl FilterArgs {
    pub(super) fn filter(&self, now: WallInstant) -> Filter {
        Filter {
            since: self.since.map(|since| since.instant(now)),
            until: self.until.map(|until| until.instant(now)),
            subject: self.subject.clone(),
            address: self.address,
            event: self.event,
            reason: self.reason.clone(),
            policy: self.policy.clone(),
            session: self.session,
        }
    }
}

/// The subcommands of `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no record was removed, changed, reordered or cut off.
    ///
    /// Reads the database, whether the daemon runs or not. Exits with 1 if anything is wrong. That
    /// the end was cut off shows only against signed heads: keep these elsewhere.
    Verify(VerifyArgs),
    /// Write records to a file.
    Export(ExportArgs),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The signed heads; without it, the `heads_file` of the configuration.
    #[arg(long, value_name = "FILE")]
    pub heads: Option<PathBuf>,
    /// The key they are signed with, as PEM; without it, `audit.pub` in `state_dir`.
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// A database; without it, `audit.db` in `state_dir`.
    #[arg(long, value_name = "FILE")]
    pub database: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to write them.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Where to; standard output without it. A file that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
