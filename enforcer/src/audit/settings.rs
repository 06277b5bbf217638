//! What the log is to do, from the configuration.

use std::{path::PathBuf, time::Duration};

use super::{DATABASE_NAME, PUBLIC_KEY_NAME};
use crate::config::{Audit, Config, Daemon};

/// What the log is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Where the database and the key are.
    pub state_dir: PathBuf,
    /// Records that are older are removed; without it, none for their age.
    pub keep: Option<Duration>,
    /// Bytes that the database may use; beyond them the oldest records are removed.
    pub max_size: u64,
    /// Where signed heads are appended.
    pub heads_file: PathBuf,
    /// How often, if there are new records.
    pub heads_interval: Duration,
}

impl AuditSettings {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        Self::new(&config.daemon, &config.audit)
    }

    /// Those of the two sections.
    pub fn new(daemon: &Daemon, audit: &Audit) -> Self {
        Self {
            state_dir: daemon.state_dir.clone(),
            keep: audit.keep,
            max_size: audit.max_size,
            heads_file: audit.heads_file.clone(),
            heads_interval: audit.heads_interval,
        }
    }

    /// Where the public key is.
    pub fn public_key(&self) -> PathBuf {
        self.state_dir.join(PUBLIC_KEY_NAME)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join(DATABASE_NAME)
    }
}

/// For tests: a log in this folder, nothing removed, a head after each batch.
#[cfg(test)]
impl AuditSettings {
    pub(crate) fn within(state_dir: &std::path::Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            keep: None,
            max_size: u64::MAX,
            heads_file: state_dir.join(super::HEADS_NAME),
            heads_interval: Duration::ZERO,
        }
    }
}
