//! What is asked and told about changing the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{audit::rfc3339, clock::WallInstant, session::SessionId};

/// Body of `POST /v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Apply this version of the history, and not the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Refuse what would cut more live sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cut: Option<usize>,
    /// Apply it though it would lock everyone out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yes: bool,
}

/// Body of `POST /v1/simulate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulateRequest {
    /// The candidate's file, for messages; its folder is where relative paths start.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The configuration was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// Its number in the history; absent if it could not be kept there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What it changed, one thing each.
    pub changes: Vec<String>,
    /// What became of the live sessions.
    pub impact: Impact,
    /// What did not go as it should, without standing in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a configuration does to the live sessions: how many of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Live sessions.
    pub sessions: usize,
    /// End at once.
    pub cut: usize,
    /// End earlier, as things stand.
    pub shortened: usize,
    /// End later, as things stand.
    pub lengthened: usize,
    /// Get other limits, but end when they would have.
    pub changed: usize,
}

/// What a configuration would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimulateOutcome {
    /// What it changes, one thing each.
    pub changes: Vec<String>,
    /// What would become of the live sessions.
    pub impact: Impact,
    /// Those that it would touch.
    pub sessions: Vec<AffectedSession>,
    /// How many more there are than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
    /// Why it would be refused, unless asked for with `yes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<ReloadRefused>,
}

const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A live session that a configuration would touch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AffectedSession {
    /// The id.
    pub id: SessionId,
    /// Its principal's issuer.
    pub issuer: String,
    /// Its principal's subject within the issuer.
    pub subject: String,
    /// Names of the policies that apply.
    pub policies: Vec<String>,
    /// How many connections it has.
    pub connections: usize,
    /// What would happen to it.
    pub effect: Effect,
    /// Why it would be cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends now if nothing more is heard of the client; absent if it is only observed.
    #[serde(
        with = "rfc3339::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub ends_at: Option<WallInstant>,
    /// When it would end.
    #[serde(
        with = "rfc3339::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub would_end_at: Option<WallInstant>,
}

/// What a configuration does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It ends at once.
    Cut,
    /// It ends earlier.
    Shortened,
    /// It ends later.
    Lengthened,
    /// Something else of its limits changes.
    Changed,
}

impl Effect {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Shortened => "shortened",
            Self::Lengthened => "lengthened",
            Self::Changed => "changed",
        }
    }
}

/// A configuration was not applied; everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ReloadRefused {
    /// A stable code.
    pub code: RefusalCode,
    /// Why, and what to do.
    pub message: String,
}

/// Why a configuration is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The file, or a version of the history, can't be read.
    Unreadable,
    /// It has to be mended.
    Invalid,
    /// It changes what only a new start can change.
    NeedsRestart,
    /// It would cut more sessions than allowed.
    TooManyCut,
    /// It would lock everyone out.
    LocksOut,
    /// A listener can't be opened.
    Listener,
    /// No gateway starts with it.
    Gateway,
}

impl RefusalCode {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Invalid => "invalid",
            Self::NeedsRestart => "needs_restart",
            Self::TooManyCut => "too_many_cut",
            Self::LocksOut => "locks_out",
            Self::Listener => "listener",
            Self::Gateway => "gateway",
        }
    }
}

impl ReloadRefused {
    /// For this reason, in these words.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// What the daemon runs with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// The file.
    pub path: PathBuf,
    /// Its number in the history; absent if it could not be kept there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// SHA-256 of its text.
    pub sha256: String,
    /// When it was applied.
    #[serde(
        with = "rfc3339::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub applied_at: Option<WallInstant>,
    /// Another is being applied.
    pub reloading: bool,
    /// The last one, if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedConfiguration>,
    /// Why the history can't be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_error: Option<String>,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedConfiguration {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: WallInstant,
    /// Why.
    #[serde(flatten)]
    pub refused: ReloadRefused,
}
