//! A server that nobody here wrote.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{bed::Bed, process::Process, wait};

/// A running nginx in the daemon's namespace; its files are below [`Nginx::folder`].
#[derive(Debug)]
pub struct Nginx {
    folder: PathBuf,
    _process: Process,
}

impl Nginx {
    /// Starts it with these `server` blocks.
    pub fn start(bed: &Bed, servers: &str) -> Result<Self> {
        let folder = bed.path("nginx");
        for name in ["", "files", "scratch"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("make {folder:?}"))?;
        }
        let home = folder.display();
        let scratch = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {home}/scratch/{kind};"))
            .join("\n    ");
        bed.write(
            "nginx/nginx.conf",
            format!(
                "daemon off;
user root;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {home}/access.log;
    {scratch}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
{servers}
}}
"
            ),
        )?;
        let mut command = bed.command(bed.daemon(), "nginx")?;
        command.arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-e").arg(folder.join("error.log"));
        let nginx = Self {
            _process: Process::spawn(&mut command, "nginx")?,
            folder,
        };
        // Its listeners are there before the file is.
        wait::until("nginx served", || {
            let pid = fs::read_to_string(nginx.folder.join("nginx.pid")).ok()?;
            pid.ends_with('\n').then_some(())
        })
        .with_context(|| fs::read_to_string(nginx.folder.join("error.log")).unwrap_or_default())?;
        Ok(nginx)
    }

    /// Where its configuration, logs and files are.
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }
}
