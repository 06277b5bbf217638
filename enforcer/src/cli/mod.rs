//! The command line: what it takes, and how it ends.
//!
//! Exit status: 0 for success, 1 for failure, 64 (`EX_USAGE`) for a command line or configuration
//! that has to be mended. Errors go to standard error, one line first, the cause after it.

pub mod audit;
pub mod canary;
pub mod connect;
pub mod maps;
pub mod metrics;
pub mod policy;
pub mod reload;
pub mod sessions;
pub mod status;
pub mod top;
pub mod unload;

mod check;
mod client;
mod output;
mod pins;
mod since;
mod target;
mod text;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

pub use policy::PolicyArgs;
pub use since::{InvalidSince, Since};
pub use target::{AdminTarget, ConfigTarget};

use crate::{
    clock::Now,
    config::ConfigError,
    gateway,
    session::SessionId,
    warden::{self, admin::Selector},
};

/// The command line or the configuration has to be mended (`EX_USAGE` of `sysexits.h`).
const EXIT_USAGE: u8 = 64;

/// Ends sessions in the kernel, at the deadline.
#[derive(Debug, Parser)]
#[command(name = "enforcer", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    ///
    /// Needs root. SIGTERM stops serving but keeps the limits in force: `enforcer unload` removes
    /// them.
    Run(RunArgs),
    /// Check a configuration and the files it refers to.
    ///
    /// Exits with 0, or with 64 after the file, the line and what to write instead.
    Check(CheckArgs),
    /// Show whether enforcement is on, and which part is missing if not.
    ///
    /// Exits with 1 if there is any problem, also with the store or the audit log.
    Status(StatusArgs),
    /// List the live sessions; show or revoke them.
    Sessions(SessionsArgs),
    /// Watch the live sessions run out, and revoke one by a key.
    ///
    /// Without a daemon it shows what is in the pinned maps.
    Top(TopArgs),
    /// Run a canary now: a short session of the daemon's own that the kernel must cut.
    ///
    /// Takes two seconds. Exits with 1 if it was not cut as it should be.
    Canary(CanaryArgs),
    /// Print the daemon's figures in Prometheus' text format.
    Metrics(MetricsArgs),
    /// Show the pinned maps, decoded. Works when the daemon is dead.
    Maps(MapsArgs),
    /// Search, verify or export the audit log. Works when the daemon is dead.
    Audit(Box<audit::AuditArgs>),
    /// Show policies, templates and decisions; try limits out before they hold, and take them back.
    Policy(PolicyArgs),
    /// Reach a target through a gateway: the client's half of a tunnel.
    ///
    /// Needs no daemon and no rights. Renews the session with each newer token, and says on
    /// standard error how it goes. Exits with 0 when the tunnel or a signal has ended it, 77 when
    /// the gateway refused the token or the target, or the session is over, 1 for any other
    /// failure.
    #[command(after_help = CONNECT_EXAMPLES)]
    Connect(connect::ConnectArgs),
    /// Apply the configuration to the running daemon, live sessions included.
    ///
    /// All or nothing. Exits with 64 after file, line and what to write instead if the file has to
    /// be mended, with 1 if the daemon refuses it for another reason.
    Reload(ReloadArgs),
    /// Stop the daemon and remove its programs, maps and limits from the kernel.
    ///
    /// All sessions are ended first, with their connections.
    Unload(UnloadArgs),
    /// The process that talks to networks. Started by the daemon only.
    #[command(hide = true)]
    Gateway,
}

const CONNECT_EXAMPLES: &str = "\
Examples:
  enforcer connect --gateway gw.example:443 --token-command 'idp token' \\
      --listen 127.0.0.1:5432 db.internal:5432
  psql -h 127.0.0.1

  ssh -o ProxyCommand='enforcer connect --gateway gw.example:443 --token-file ~/.token \\
      --stdio %h:%p' build.internal";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do instead of listing them.
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
}

/// The subcommands of `sessions`.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// Show a session and its connections.
    Show {
        /// The session: 16 hexadecimal digits.
        id: SessionId,
    },
    /// End sessions now, and cut their connections.
    ///
    /// Their tokens are refused from then on.
    Revoke(RevokeArgs),
}

/// Arguments of `sessions revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Which sessions.
    #[command(flatten)]
    pub which: RevokeSelection,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// The sessions to revoke: exactly one of the fields is set.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RevokeSelection {
    /// The session: 16 hexadecimal digits.
    pub id: Option<SessionId>,
    /// Every session of this subject.
    #[arg(long)]
    pub subject: Option<String>,
    /// Every session.
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
}

/// Arguments of `canary`.
#[derive(Debug, Args)]
pub struct CanaryArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
}

/// Arguments of `maps`.
#[derive(Debug, Args)]
pub struct MapsArgs {
    /// Where the pins are.
    #[command(flatten)]
    pub target: ConfigTarget,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
    /// Under which conditions.
    #[command(flatten)]
    pub conditions: reload::Conditions,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `unload`.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub target: AdminTarget,
}

/// Reads the command line of the process, does what it says, and reports how that went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return answer_usage(&error),
    };
    dispatch(cli.command).unwrap_or_else(|error| {
        report(&error);
        exit_code(&error)
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => warden::run(&args.config).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => {
            let daemon = args.target.config.daemon()?;
            status::run(&args.target.socket()?, args.json, || pins::inspect(&daemon))
        }
        Command::Sessions(args) => run_sessions(args),
        Command::Top(args) => top::run(&args.target.socket()?, args.target.config.daemon()?),
        Command::Canary(args) => canary::run(&args.target.socket()?, args.json),
        Command::Metrics(args) => metrics::run(&args.target.socket()?),
        Command::Maps(args) => maps::run(
            &pins::read_maps(&args.target.daemon()?)?,
            Now::read(),
            args.json,
        ),
        Command::Audit(args) => audit::run(*args),
        Command::Policy(args) => policy::run(args),
        Command::Connect(args) => connect::run(args),
        Command::Reload(args) => {
            let request = args.conditions.request(None);
            reload::run(&args.target.reload_socket()?, &request, args.json)
        }
        Command::Unload(args) => {
            let daemon = args.target.config.daemon()?;
            unload::run(&args.target.socket()?, || pins::remove(&daemon))
        }
        Command::Gateway => gateway::run().map(|()| ExitCode::SUCCESS),
    }
}

fn run_sessions(args: SessionsArgs) -> Result<ExitCode> {
    let socket = args.target.socket()?;
    match args.command {
        None => sessions::list(&socket, args.json),
        Some(SessionsCommand::Show { id }) => sessions::show(&socket, id, args.json),
        Some(SessionsCommand::Revoke(RevokeArgs { which, reason })) => {
            let selector = match (which.id, which.subject) {
                (Some(id), _) => Selector::Id(id),
                (None, Some(subject)) => Selector::Subject(subject),
                (None, None) => Selector::All,
            };
            sessions::revoke(&socket, selector, reason, args.json)
        }
    }
}

/// Prints what clap has to say: help and version as asked for, or what is wrong.
fn answer_usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to say if the terminal is gone.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints an error and its causes. One of a configuration starts with file and line as it is,
/// where editors look for them.
fn report(error: &anyhow::Error) {
    let label = if is_to_mend(error) { "" } else { "error: " };
    eprintln!("{label}{error}");
    for cause in error.chain().skip(1) {
        eprintln!("cause: {cause}");
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(failure) = error.downcast_ref::<connect::Failure>() {
        return failure.exit_code();
    }
    if is_to_mend(error) {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

fn is_to_mend(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_command_lines_are_understood() {
        for line in [
            "enforcer run --config f.toml",
            "enforcer check --config f.toml",
            "enforcer status --json --socket /run/x.sock",
            "enforcer sessions",
            "enforcer sessions --json --config f.toml",
            "enforcer sessions show 0000000000000abc --json",
            "enforcer sessions revoke 0000000000000abc --reason stolen",
            "enforcer sessions revoke --subject alice --socket /run/x.sock",
            "enforcer sessions revoke --all",
            "enforcer top --config f.toml",
            "enforcer canary --json",
            "enforcer metrics --socket /run/x.sock",
            "enforcer maps --json",
            "enforcer audit --since 15m --subject alice --event session_ended --follow --json",
            "enforcer audit --since 2026-01-31T12:00:00Z --until 5m --config f.toml",
            "enforcer audit --address 192.0.2.0/24 --reason token_expired --format csv",
            "enforcer audit --policy admin --session 0000000000000abc --limit 20",
            "enforcer audit verify --heads h --public-key k --json --config f.toml",
            "enforcer audit export --since 1h --output records.jsonl",
            "enforcer policy templates --json",
            "enforcer policy show --config f.toml",
            "enforcer policy show sensitive --config f.toml --json",
            "enforcer policy explain --config f.toml --subject alice --route /admin",
            "enforcer policy explain --config f.toml --subject alice --route api.example/admin \
             --claims c.json --client 192.0.2.7 --issuer https://idp --at 2026-01-31T12:00:00Z",
            "enforcer connect --gateway gw:443 --token-file t --listen 127.0.0.1:5432 db:5432",
            "enforcer connect --gateway [::1]:443 --token-env TOKEN --stdio [::1]:22",
            "enforcer connect --gateway gw:443 --stdio --client-certificate c --client-key k db:1",
            "enforcer connect --gateway gw:443 --token-command idp --stdio -q --ca c --server-name n db:1",
            "enforcer reload --max-cut 10 --yes --config f.toml --json",
            "enforcer policy simulate --config new.toml --json",
            "enforcer policy history --show 3",
            "enforcer policy replay --config new.toml --since 30d --json",
            "enforcer policy rollback 3 --max-cut 0",
            "enforcer unload",
            "enforcer gateway",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn ambiguous_or_incomplete_command_lines_are_refused() {
        for line in [
            "enforcer",
            "enforcer run",
            "enforcer check f.toml",
            "enforcer sessions show",
            "enforcer sessions show abc",
            "enforcer sessions revoke",
            "enforcer sessions revoke 0000000000000abc --all",
            "enforcer sessions revoke --subject alice --all",
            "enforcer audit --since yesterday",
            "enforcer audit --address nowhere",
            "enforcer audit --follow verify",
            "enforcer policy",
            "enforcer policy show",
            "enforcer policy explain --config f.toml --subject alice",
            "enforcer connect --gateway gw:443 --stdio db:1",
            "enforcer connect --gateway gw:443 --token-file t db:1",
            "enforcer connect --gateway gw --token-file t --stdio db:1",
            "enforcer connect --gateway gw:443 --token-file t --token-env T --stdio db:1",
            "enforcer connect --gateway gw:443 --token-file t --stdio --listen 127.0.0.1:1 db:1",
            "enforcer connect --gateway gw:443 --token-file t --stdio --client-key k db:1",
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.use_stderr(), "{line}");
        }
    }
}
