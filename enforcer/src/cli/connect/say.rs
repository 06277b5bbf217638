//! What the user is told, on standard error: standard output may be the tunnel's.

use std::{fmt::Display, time::Duration};

/// Speaks to the user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    /// Warnings only.
    pub(super) quiet: bool,
}

impl Voice {
    /// How it goes.
    pub(super) fn tell(self, text: impl Display) {
        if !self.quiet {
            eprintln!("enforcer connect: {text}");
        }
    }

    /// What the user should know even so.
    pub(super) fn warn(self, text: impl Display) {
        eprintln!("enforcer connect: {text}");
    }
}

/// A number of seconds, for people.
pub(super) fn time(seconds: u64) -> String {
    match seconds {
        0 => "less than a second".to_owned(),
        _ => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}
