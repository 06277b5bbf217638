//! Reading a candidate: from the daemon's file, or from the history.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::history;
use crate::{
    config::{Config, ConfigError},
    warden::admin::{RefusalCode, ReloadRefused},
};

/// What came of reading.
pub struct Read {
    pub(super) path: PathBuf,
    /// The text comes along, if there is one.
    pub(super) outcome: Result<(Config, String), (Option<String>, ReloadRefused)>,
}

impl Read {
    pub(super) fn failed(path: PathBuf, message: String) -> Self {
        let refused = ReloadRefused::new(RefusalCode::Unreadable, message);
        Self {
            path,
            outcome: Err((None, refused)),
        }
    }
}

pub(super) fn read_file(path: PathBuf) -> Read {
    match fs::read_to_string(&path) {
        Ok(text) => read_text(path, text, Config::parse_with_files),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            Read::failed(path, message)
        }
    }
}

pub(super) fn read_kept(history: &Path, version: u64) -> Read {
    match history::read(history, version) {
        Ok(version) => read_text(version.path, version.text, Config::parse_with_files),
        Err(error) => Read::failed(
            history.to_owned(),
            format!(
                "there is no version {version} to go back to: {error}\n\
                 help: `enforcer policy history` lists them"
            ),
        ),
    }
}

pub(super) fn read_text(
    path: PathBuf,
    text: String,
    parse: fn(&str, &Path) -> Result<Config, ConfigError>,
) -> Read {
    let outcome = match parse(&text, &path) {
        Ok(config) => Ok((config, text)),
        Err(error) => {
            let refused = ReloadRefused::new(RefusalCode::Invalid, error.to_string());
            Err((Some(text), refused))
        }
    };
    Read { path, outcome }
}
