//! An OpenID provider that nobody here wrote: `oidc-provider` from the npm registry, which
//! `cargo xtask test` installs, with a few lines to configure it.
//!
//! | client | may |
//! | --- | --- |
//! | `alice` | have tokens by client_credentials |
//! | `enforcer` | ask about tokens |

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    config::{self, Keys},
    daemon,
    namespace::Namespace,
    process::{self, Process},
    scene::Scene,
};

const SERVER: &str = include_str!("provider/server.mjs");
/// What `xtask` installs, beside the folder of the daemon's binary.
const INSTALLED: &str = "oidc-provider/node_modules";

/// A running provider in the daemon's namespace.
#[derive(Debug)]
pub struct Provider {
    namespace: Namespace,
    cgroup: PathBuf,
    issuer: String,
    ca: PathBuf,
    secret: PathBuf,
    log: PathBuf,
    process: Process,
}

/// How an access token looks.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// Signed with the provider's key.
    Jwt,
    /// Random characters.
    Opaque,
}

impl Provider {
    /// Starts it; its issuer's name has this host, which the daemon's namespace must resolve.
    pub fn start(scene: &Scene, host: &str) -> Result<Self> {
        let bed = &scene.bed;
        let script = bed.write("provider.mjs", SERVER)?;
        let (certificate, key) = scene.authority.server()?.write(bed, "provider")?;
        let (port, log) = (bed.path("provider-port"), bed.path("provider-log"));
        fs::write(&log, "").context("make the provider's log")?;
        let mut command = bed.command(bed.daemon(), "node")?;
        command
            .arg(script)
            .arg(modules()?)
            .arg(host)
            .args([&certificate, &key, &port, &log])
            .stdout(Stdio::null())
            // It warns of what is fine in a test.
            .stderr(File::create(bed.path("provider-errors")).context("a file for errors")?);
        let (process, port) = Process::spawn_server(&mut command, &port, "the provider")?;
        Ok(Self {
            namespace: bed.daemon().clone(),
            cgroup: bed.tools_cgroup()?,
            issuer: format!("https://{host}:{port}"),
            ca: scene.ca_file(),
            secret: bed.write("client-secret", "enforcer-secret\n")?,
            log,
            process,
        })
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A section for its JWTs: discovered, looked at every second.
    pub fn jwt(&self) -> config::JwtIssuer {
        config::JwtIssuer {
            issuer: self.issuer.clone(),
            audience: crate::issuer::AUDIENCE.to_owned(),
            keys: Keys::Discovery(true),
            algorithms: vec!["ES256".to_owned()],
            refresh_interval: Some("1s".to_owned()),
            outbound: Some(self.outbound()),
        }
    }

    /// A section for its opaque tokens, which asks often.
    pub fn introspection(&self) -> config::Introspection {
        config::Introspection {
            issuer: self.issuer.clone(),
            endpoint: format!("{}/token/introspection", self.issuer),
            audience: crate::issuer::AUDIENCE.to_owned(),
            client_id: "enforcer".to_owned(),
            client_secret_file: self.secret.clone(),
            active_ttl: "500ms".to_owned(),
            recheck_interval: "500ms".to_owned(),
            certificate_bound: false,
            outbound: self.outbound(),
        }
    }

    fn outbound(&self) -> config::Outbound {
        config::Outbound {
            ca: self.ca.clone(),
            allow_networks: vec!["127.0.0.1".to_owned(), "::1".to_owned()],
            timeout: "1s".to_owned(),
        }
    }

    /// A new token of `alice`.
    pub fn token(&self, format: Format) -> Result<String> {
        let resource = match format {
            Format::Jwt => "resource=urn:enforcer:jwt",
            Format::Opaque => "resource=urn:enforcer:opaque",
        };
        let grant = "grant_type=client_credentials";
        let answer = self.ask(
            "/token",
            &["-u", "alice:alice-secret", "-d", grant, "-d", resource],
        )?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer).context("a token's answer")?;
        let token = answer["access_token"].as_str();
        Ok(token.with_context(|| answer.to_string())?.to_owned())
    }

    /// `alice` gives a token back.
    pub fn revoke(&self, token: &str) -> Result<()> {
        let token = format!("token={token}");
        self.ask(
            "/token/revocation",
            &["-u", "alice:alice-secret", "-d", &token],
        )
        .map(drop)
    }

    /// A new key signs, and the others are still published.
    pub fn add_key(&self) -> Result<()> {
        self.ask("/test/add-key", &[]).map(drop)
    }

    /// A new key signs, and no other is published.
    pub fn replace_keys(&self) -> Result<()> {
        self.ask("/test/replace-keys", &[]).map(drop)
    }

    /// The key that signs is the only one that is published.
    pub fn retire_keys(&self) -> Result<()> {
        self.ask("/test/retire-keys", &[]).map(drop)
    }

    /// How often this was asked.
    pub fn asked(&self, line: &str) -> Result<usize> {
        let log = fs::read_to_string(&self.log).context("read the provider's log")?;
        Ok(log.lines().filter(|asked| *asked == line).count())
    }

    fn ask(&self, path: &str, arguments: &[&str]) -> Result<String> {
        let mut command = process::command(&self.namespace, &self.cgroup, "curl");
        command
            .args(["--silent", "--show-error", "--fail-with-body", "--cacert"])
            .arg(&self.ca)
            .args(arguments)
            .arg(format!("{}{path}", self.issuer));
        let output = command.output().context("run curl")?;
        if !output.status.success() {
            bail!("{path}: {}", String::from_utf8_lossy(&output.stdout));
        }
        String::from_utf8(output.stdout).context("the provider's answer")
    }

    /// It goes deaf: connections to it hang.
    pub fn freeze(&self) -> Result<()> {
        process::stop(self.pid())
    }

    /// It is back.
    pub fn thaw(&self) -> Result<()> {
        process::resume(self.pid())
    }
}

fn modules() -> Result<PathBuf> {
    let binary = daemon::binary()?;
    let target = binary.parent().and_then(|folder| folder.parent());
    let modules = target.context("the target folder")?.join(INSTALLED);
    ensure!(
        modules.join("oidc-provider").is_dir(),
        "no oidc-provider in {modules:?}: `cargo xtask test` installs it"
    );
    Ok(modules)
}
