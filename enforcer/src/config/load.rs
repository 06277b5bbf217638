//! From the file to [`Config`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, Listener, PolicySettings, Problem, assertion, audit, daemon,
    draft::Draft,
    files::{self, FileReference},
    identity, listeners,
    location::Lines,
    monitoring::{self, RawMonitoring},
    policies,
    routes::{self, Names},
    shape,
};

impl Config {
    /// Reads the text of the file at `path`. Nothing is opened: `path` serves messages, and its
    /// folder is where relative paths start.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem that can be told apart from the others.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Ok(parse(text, path)?.config)
    }

    /// Like [`Config::parse`], and looks into each file that the configuration refers to:
    /// certificates, private keys, roots and the issuers' keys.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] also for a file that is missing, unreadable or of no use.
    pub fn parse_with_files(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let Parsed { config, files, .. } = parse(text, path)?;
        let problems: Vec<_> = files.iter().filter_map(files::check).collect();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(invalid(path, problems))
        }
    }

    /// The files that a configuration refers to, absolute. None for a text that is none.
    pub fn named_files(text: &str, path: &Path) -> Vec<PathBuf> {
        let files = parse(text, path).map(|parsed| parsed.files);
        let files = files.unwrap_or_default();
        files.into_iter().map(|file| file.path).collect()
    }

    /// Reads the file at `path` as [`Config::parse`] does.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or those of [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Reads the file at `path` as [`Config::parse_with_files`] does.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or those of [`Config::parse_with_files`].
    pub fn load_with_files(path: &Path) -> Result<Self, ConfigError> {
        Self::parse_with_files(&read(path)?, path)
    }

    /// Reads the file at `path` as [`Config::load`] does, and says where the values of each policy
    /// came from.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn load_with_settings(
        path: &Path,
    ) -> Result<(Self, BTreeMap<String, PolicySettings>), ConfigError> {
        let Parsed {
            config, settings, ..
        } = parse(&read(path)?, path)?;
        Ok((config, settings))
    }
}

struct Parsed {
    config: Config,
    files: Vec<FileReference>,
    settings: BTreeMap<String, PolicySettings>,
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn invalid(path: &Path, mut problems: Vec<Problem>) -> ConfigError {
    problems.sort_by_key(|problem| problem.line);
    ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    }
}

fn parse(text: &str, path: &Path) -> Result<Parsed, ConfigError> {
    let lines = Lines::new(text);
    let raw = shape::read(text, &lines).map_err(|problem| invalid(path, vec![problem]))?;
    let folder = folder(path);
    let mut draft = Draft::new(lines, &folder);

    let listener_names: Vec<_> = raw.listeners.keys().cloned().collect();
    let policy_names: Vec<_> = raw.policies.keys().cloned().collect();
    let names = Names {
        listeners: listener_names
            .iter()
            .map(|name| (name.get_ref().as_str(), name))
            .collect(),
        policies: policy_names
            .iter()
            .map(|name| name.get_ref().as_str())
            .collect(),
    };
    let daemon = daemon::convert(&mut draft, raw.daemon);
    let audit = audit::convert(&mut draft, raw.audit, &daemon);
    let listeners = listeners::convert(&mut draft, raw.listeners);
    let tokens_wanted = listeners.is_empty() || listeners.values().any(Listener::takes_tokens);
    let identity = identity::convert(&mut draft, raw.identity, tokens_wanted);
    let assertion = raw
        .assertion
        .as_ref()
        .map(|raw| assertion::convert(&mut draft, raw));
    let known = policies::Known {
        issuers: identity.issuers().collect(),
        takes_certificates: listeners.values().any(Listener::takes_certificates),
    };
    let (policies, settings) = policies::convert(&mut draft, raw.policies, &known);
    assertion::check_routes(&mut draft, &raw.routes, assertion.is_some());
    let (routes, tunnels) = routes::convert(&mut draft, raw.routes, &names, &listeners, &policies);

    let monitoring = RawMonitoring {
        metrics: raw.metrics,
        canary: raw.canary,
        detectors: raw.detectors,
        alerts: raw.alerts,
        traces: raw.traces,
    };
    let monitoring = monitoring::convert(&mut draft, monitoring, &listeners);

    let files = draft.finish().map_err(|problems| invalid(path, problems))?;
    let config = Config {
        daemon,
        audit,
        listeners,
        identity,
        assertion,
        policies,
        routes,
        tunnels,
        monitoring,
    };
    Ok(Parsed {
        config,
        files,
        settings,
    })
}

/// The absolute folder of the file at `path`.
pub(super) fn folder(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().map_or_else(PathBuf::new, Path::to_owned)
}
