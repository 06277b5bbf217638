//! Orders to take another configuration, and who gives them.

use crate::warden::admin::{
    ReloadOutcome, ReloadRefused, ReloadRequest, Reply, SimulateOutcome, SimulateRequest,
};

/// What makes the daemon take another configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `enforcer reload`, by this user.
    Reload(u32),
    /// `enforcer policy rollback`, by this user.
    Rollback(u32),
    /// SIGHUP.
    Signal,
    /// The file was changed.
    Watch,
}

impl Origin {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Reload(_) => "reload",
            Self::Rollback(_) => "rollback",
            Self::Signal => "signal",
            Self::Watch => "watch",
        }
    }

    pub(super) const fn uid(self) -> Option<u32> {
        match self {
            Self::Reload(uid) | Self::Rollback(uid) => Some(uid),
            Self::Signal | Self::Watch => None,
        }
    }
}

pub(super) type ReloadReply = Reply<Result<ReloadOutcome, ReloadRefused>>;
pub(super) type SimulateReply = Reply<Result<SimulateOutcome, ReloadRefused>>;

impl Order {
    /// A watched file has changed.
    pub(super) fn of_watch() -> Self {
        Self::Apply {
            origin: Origin::Watch,
            request: ReloadRequest::default(),
            reply: None,
        }
    }
}

/// What is to be done with another configuration.
#[derive(Debug)]
pub enum Order {
    /// Apply it.
    Apply {
        /// What makes the daemon do it.
        origin: Origin,
        /// Which, and under which conditions.
        request: ReloadRequest,
        /// Where the answer goes.
        reply: Option<ReloadReply>,
    },
    /// Tell what it would do.
    Simulate {
        /// Which.
        request: SimulateRequest,
        /// Where the answer goes.
        reply: SimulateReply,
    },
}
