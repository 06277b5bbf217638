//! The daemon's log: lines on standard error, for journald or a terminal.

use tracing_subscriber::{filter::LevelFilter, fmt};

/// Environment variable with the lowest level that is logged: `error`, `warn`, `info` (the
/// default), `debug` or `trace`.
const LEVEL: &str = "ENFORCER_LOG";
/// Set where standard error is journald's (systemd.exec(5)).
const JOURNAL: &str = "JOURNAL_STREAM";
/// What a gateway needs of its warden's environment to log as the warden does.
pub(crate) const VARIABLES: [&str; 2] = [LEVEL, JOURNAL];

/// Starts logging. The eBPF programs' lines and other crates' `log` records come along.
pub fn init() {
    let level = std::env::var(LEVEL)
        .ok()
        .and_then(|level| level.parse().ok());
    let journald = std::env::var_os(JOURNAL).is_some();
    let lines = fmt()
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // journald has the time already.
    let started = if journald {
        lines.without_time().try_init()
    } else {
        lines.try_init()
    };
    // Fails only if logging was started before.
    drop(started);
}
