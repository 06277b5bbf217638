//! Which daemon a subcommand is about.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    audit::AuditSettings,
    config::{Audit, Config, Daemon},
    warden::admin::socket_in,
};

/// The daemon of a configuration, or the one with the default folders.
#[derive(Debug, Args)]
pub struct ConfigTarget {
    /// The daemon's configuration; without it, the default folders.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A running daemon: by its socket, or by its configuration.
#[derive(Debug, Args)]
pub struct AdminTarget {
    /// The daemon's admin socket; without it, the one of the configuration.
    #[arg(long, global = true, value_name = "PATH", env = "ENFORCER_SOCKET")]
    pub socket: Option<PathBuf>,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigTarget,
}

impl ConfigTarget {
    /// How and where the configuration, or the default, keeps the audit log.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn audit(&self) -> Result<AuditSettings> {
        Ok(match &self.config {
            Some(path) => AuditSettings::of(&Config::load(path)?),
            None => {
                let daemon = Daemon::default();
                let audit = Audit::within(&daemon.state_dir);
                AuditSettings::new(&daemon, &audit)
            }
        })
    }

    /// The section `[daemon]` of the configuration, or its defaults.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn daemon(&self) -> Result<Daemon> {
        Ok(match &self.config {
            Some(path) => Config::load(path)?.daemon,
            None => Daemon::default(),
        })
    }
}

impl AdminTarget {
    /// The admin socket: `--socket`, else `ENFORCER_SOCKET`, else in the `runtime_dir` of
    /// `--config`, else in the default one.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn socket(&self) -> Result<PathBuf> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => Ok(socket_in(&self.config.daemon()?.runtime_dir)),
        }
    }

    /// The same by a configuration that may have to be mended, as long as it is TOML: what is wrong
    /// with it is the daemon's to say, and to record.
    ///
    /// # Errors
    /// The configuration is no TOML, or cannot be read.
    pub fn reload_socket(&self) -> Result<PathBuf> {
        self.socket().or_else(|error| {
            let path = self.config.config.as_deref();
            let runtime_dir = path.and_then(Config::runtime_dir_in);
            runtime_dir.map(|folder| socket_in(&folder)).ok_or(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_socket_goes_before_a_configuration_and_that_before_the_default() {
        let target = |socket: Option<&str>, config: Option<&str>| AdminTarget {
            socket: socket.map(PathBuf::from),
            config: ConfigTarget {
                config: config.map(PathBuf::from),
            },
        };
        let given = target(Some("/a.sock"), Some("/nowhere.toml"));
        assert_eq!(given.socket().unwrap(), Path::new("/a.sock"));
        assert!(target(None, Some("/nowhere.toml")).socket().is_err());
        let default = target(None, None).socket().unwrap();
        assert_eq!(default, Path::new("/run/enforcer/admin.sock"));
    }
}
