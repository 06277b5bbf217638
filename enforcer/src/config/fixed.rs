//! Keys that only a new start can change: the running daemon is built on their values.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Config, ConfigError, Daemon, Problem,
    load::{folder, invalid},
    location::Lines,
};

/// Keys of `[daemon]` with their values, which a reload must find as they were.
fn fixed(daemon: &Daemon) -> [(&'static str, String); 7] {
    let cgroup = daemon.cgroup.as_deref().map(Path::display);
    let group = daemon.admin_group.clone();
    [
        ("state_dir", daemon.state_dir.display().to_string()),
        ("runtime_dir", daemon.runtime_dir.display().to_string()),
        ("bpf_dir", daemon.bpf_dir.display().to_string()),
        (
            "cgroup",
            cgroup.map_or_else(String::new, |path| path.to_string()),
        ),
        ("admin_group", group.unwrap_or_default()),
        ("max_sessions", daemon.max_sessions.to_string()),
        ("max_connections", daemon.max_connections.to_string()),
    ]
}

impl Config {
    /// Refuses to take the place of `present` in a running daemon if it differs where only a new
    /// start can change anything. `text` and `path` are its own.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], a problem for each such key.
    pub fn check_reloadable(
        &self,
        present: &Self,
        text: &str,
        path: &Path,
    ) -> Result<(), ConfigError> {
        let lines = Positions::find(text);
        let pairs = fixed(&present.daemon).into_iter().zip(fixed(&self.daemon));
        let problems: Vec<_> = pairs
            .filter(|((_, old), (_, new))| old != new)
            .map(|((key, old), _)| Problem {
                line: lines.of(key),
                what: format!("`{key}` of `[daemon]` cannot be changed while the daemon runs"),
                help: if old.is_empty() {
                    format!(
                        "remove it, or restart the daemon (its present value: `{key}` is not set)"
                    )
                } else {
                    format!("set it to the present value, {old}, or restart the daemon")
                },
            })
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(invalid(path, problems))
        }
    }
}

impl Config {
    /// `runtime_dir` in the file at `path`, whatever else is wrong with it.
    pub fn runtime_dir_in(path: &Path) -> Option<PathBuf> {
        #[derive(Deserialize)]
        struct Sections {
            #[serde(default)]
            daemon: Folders,
        }
        #[derive(Default, Deserialize)]
        struct Folders {
            runtime_dir: Option<PathBuf>,
        }
        let text = std::fs::read_to_string(path).ok()?;
        let sections: Sections = toml::from_str(&text).ok()?;
        Some(match sections.daemon.runtime_dir {
            Some(runtime_dir) => folder(path).join(runtime_dir),
            None => Daemon::default().runtime_dir,
        })
    }
}

/// The lines of the keys of `[daemon]`.
struct Positions {
    section: usize,
    keys: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Sections {
    daemon: Option<Spanned<BTreeMap<Spanned<String>, toml::Value>>>,
}

impl Positions {
    fn find(text: &str) -> Self {
        let lines = Lines::new(text);
        let sections = toml::from_str(text).unwrap_or(Sections { daemon: None });
        let Some(daemon) = sections.daemon else {
            return Self {
                section: 1,
                keys: BTreeMap::new(),
            };
        };
        let section = lines.number(daemon.span().start);
        let keys = daemon.into_inner().into_keys().map(|key| {
            let line = lines.number(key.span().start);
            (key.into_inner(), line)
        });
        Self {
            section,
            keys: keys.collect(),
        }
    }

    /// Where the key stands, or its section.
    fn of(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(self.section)
    }
}
