//! Reading a candidate: from the daemon's file, or from the history.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{history, named::NamedFiles};
use crate::{
    config::{Config, ConfigError},
    warden::admin::{RefusalCode, ReloadRefused},
};

/// What came of reading.
pub struct Read {
    pub(super) path: PathBuf,
    /// The text comes along, if there is one.
    pub(super) outcome: Result<(Config, String), (Option<String>, ReloadRefused)>,
    /// The files that it names, as they were before it was read.
    pub(super) named: NamedFiles,
    /// What the daemon's file says, if this comes from elsewhere.
    pub(super) overruled: Option<String>,
}

impl Read {
    pub(super) fn failed(path: PathBuf, message: String) -> Self {
        let refused = ReloadRefused::new(RefusalCode::Unreadable, message);
        Self {
            path,
            outcome: Err((None, refused)),
            named: NamedFiles::default(),
            overruled: None,
        }
    }
}

pub(super) fn read_file(path: PathBuf) -> Read {
    match fs::read_to_string(&path) {
        Ok(text) => read_whole(path, text),
        Err(error) => Read::failed(path.clone(), unreadable(&path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// Reads what is in force anew while the daemon's file still says what was overruled.
pub(super) fn read_watched(path: PathBuf, overruled: &str, in_force: String) -> Read {
    match fs::read_to_string(&path) {
        Ok(text) if text == overruled => Read {
            overruled: Some(text),
            ..read_whole(path, in_force)
        },
        Ok(text) => read_whole(path, text),
        Err(error) => Read::failed(path.clone(), unreadable(&path, &error)),
    }
}

/// Reads a version of the history. `path`: the daemon's file.
pub(super) fn read_kept(history: &Path, version: u64, path: &Path) -> Read {
    match history::read(history, version) {
        Ok(version) => Read {
            overruled: fs::read_to_string(path).ok(),
            ..read_whole(version.path, version.text)
        },
        Err(error) => Read::failed(
            history.to_owned(),
            format!(
                "there is no version {version} to go back to: {error}\n\
                 help: `enforcer policy history` lists them"
            ),
        ),
    }
}

/// With the files that it names.
fn read_whole(path: PathBuf, text: String) -> Read {
    let named = NamedFiles::look(&text, &path);
    Read {
        named,
        ..read_text(path, text, Config::parse_with_files)
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
    Read {
        path,
        outcome,
        named: NamedFiles::default(),
        overruled: None,
    }
}
