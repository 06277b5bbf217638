//! A PostgreSQL server that nobody here wrote, and its own clients.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use enforcer::clock::{self, BootInstant};
use nix::unistd::User;

use crate::{
    bed::{Bed, DAEMON_IPV4},
    certificates::{Identity, SERVER_NAME},
    config::{self, Route, UpstreamTls},
    daemon::Output,
    process::{self, Process},
    scene::Scene,
    wait,
};

/// The user that Debian's package makes for its server.
const OWNER: &str = "postgres";
/// Where it listens.
pub const PORT: u16 = 5432;
/// The password of the users that have one.
pub const PASSWORD: &str = "a password of the bed's";

/// Who may come in, and how.
const HBA: &str = "\
local   all all              trust
host    all trusted     all  trust
hostssl all certified   all  trust clientcert=verify-ca
host    all md5         all  md5
host    all clear       all  password
host    all all         all  scram-sha-256
";
const USERS: &str = "\
CREATE ROLE trusted LOGIN SUPERUSER;
CREATE ROLE certified LOGIN;
CREATE ROLE alice LOGIN SUPERUSER PASSWORD 'a password of the bed''s';
CREATE ROLE app LOGIN SUPERUSER PASSWORD 'a password of the bed''s';
CREATE ROLE clear LOGIN PASSWORD 'a password of the bed''s';
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD 'a password of the bed''s';
";

/// A running server in the daemon's namespace, of a folder of the bed's.
#[derive(Debug)]
pub struct Postgres {
    _process: Process,
}

impl Postgres {
    /// Starts it, with users who come in by trust (`trusted`), a password (`alice`, `app`) or in
    /// ways that the gateway does not go (`md5`, `clear`).
    pub fn start(bed: &Bed, identity: &Identity) -> Result<Self> {
        let owner = User::from_name(OWNER)
            .context("look up a user")?
            .context("there is no user postgres: is PostgreSQL installed?")?;
        let programs = programs()?;
        let folder = bed.path("postgres");
        fs::create_dir(&folder).context("make a folder for PostgreSQL")?;
        let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
        chown(&folder, Some(uid), Some(gid)).context("give the folder away")?;
        let data = folder.join("data");

        let mut initdb = as_owner(bed, &programs.join("initdb"))?;
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        initdb.arg("--pgdata").arg(&data);
        finish(&mut initdb, "initdb")?;
        let (certificate, key) = identity.write(bed, "database")?;
        fs::copy(certificate, data.join("server.crt")).context("copy a certificate")?;
        fs::copy(bed.path("ca.pem"), data.join("root.crt")).context("copy a certificate")?;
        let own_key = data.join("server.key");
        fs::copy(key, &own_key).context("copy a key")?;
        chown(&own_key, Some(uid), Some(gid)).context("give the key away")?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&own_key, private).context("hide the key")?;
        fs::write(data.join("pg_hba.conf"), HBA).context("write pg_hba.conf")?;

        let mut single = as_owner(bed, &programs.join("postgres"))?;
        single
            .args(["--single", "-j", "-D"])
            .arg(&data)
            .arg("postgres");
        let complaints = fs::File::create(folder.join("users.log")).context("make a log")?;
        single.stdin(Stdio::piped()).stderr(complaints);
        let mut single = single.stdout(Stdio::null()).spawn().context("make users")?;
        let mut stdin = single.stdin.take().context("its standard input")?;
        // With -j a command ends with a semicolon and an empty line.
        let users = USERS.replace(";\n", ";\n\n");
        stdin.write_all(users.as_bytes()).context("make users")?;
        drop(stdin);
        ensure!(single.wait()?.success(), "cannot make users");

        let mut server = as_owner(bed, &programs.join("postgres"))?;
        server.arg("-D").arg(&data);
        let addresses = format!("listen_addresses=127.0.0.1,{DAEMON_IPV4}");
        let sockets = format!("unix_socket_directories={}", folder.display());
        for setting in [
            &addresses,
            "fsync=off",
            "ssl=on",
            "ssl_ca_file=root.crt",
            "log_connections=on",
            "log_statement=all",
            "max_connections=100",
            "shared_buffers=64MB",
            &sockets,
        ] {
            server.arg("-c").arg(setting);
        }
        let log = fs::File::create(bed.path("postgres.log")).context("make a log")?;
        server
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        let process = Process::spawn(&mut server, "PostgreSQL")?;
        Self::wait_for(bed, "ready to accept connections").with_context(|| Self::log(bed))?;
        Ok(Self { _process: process })
    }

    /// What it has logged: connections, statements, errors.
    pub fn log(bed: &Bed) -> String {
        fs::read_to_string(bed.path("postgres.log")).unwrap_or_default()
    }

    /// Waits until it has logged something.
    pub fn wait_for(bed: &Bed, text: &str) -> Result<()> {
        let what = format!("PostgreSQL logged {text:?}");
        wait::until(&what, || Self::log(bed).contains(text).then_some(()))
    }
}

impl Scene {
    /// Makes the listener a PostgreSQL listener in front of a server, which is started. Clients say
    /// who they are by `certificate` or by `token`; the gateway logs in as `login` says.
    pub fn serve_postgres(
        &mut self,
        identity: &str,
        login: Option<toml::Table>,
    ) -> Result<Postgres> {
        let server = Postgres::start(&self.bed, &self.authority.server()?)?;
        let ca_file = self.ca_file();
        let listener = self.config.listener()?;
        listener.protocol = "postgres".to_owned();
        listener.identity = Some(identity.to_owned());
        if identity == "certificate" {
            listener.tls.client_ca = Some(ca_file);
            listener.principal = Some("subject_cn".to_owned());
        }
        let mut route = Route::to(format!("postgres://127.0.0.1:{PORT}"));
        if let Some(login) = login {
            route.more.insert("login".to_owned(), login.into());
        }
        self.config.routes = vec![route];
        Ok(server)
    }

    /// The gateway's connections to the server are within TLS.
    pub fn encrypt_upstream(&mut self) {
        let ca = self.ca_file();
        for route in &mut self.config.routes {
            route.upstream = format!("postgres+tls://127.0.0.1:{PORT}");
            route.upstream_tls = Some(UpstreamTls::trusting(ca.clone()));
        }
    }

    /// A login with the bed's password, as the user that `key = value` says.
    pub fn login(&self, key: &str, value: &str) -> Result<toml::Table> {
        let file = self.bed.write("password", format!("{PASSWORD}\n"))?;
        let file = file.to_str().context("a path")?;
        let pairs = [(key, value), ("password_file", file)];
        Ok(pairs
            .map(|(key, value)| (key.to_owned(), value.into()))
            .into_iter()
            .collect())
    }

    /// A PostgreSQL client of the server itself.
    pub fn pg_of_server(&self, user: &str) -> Result<Pg<'_>> {
        let address = SocketAddr::new(DAEMON_IPV4, PORT);
        Pg::of(&self.bed, address, &self.ca_file(), user)
    }

    /// A PostgreSQL client of the listener, as `user`, who says who they are by what is given.
    pub fn pg(&self, user: &str, proof: &Proof<'_>) -> Result<Pg<'_>> {
        let address = self.config.listeners[config::MAIN].address;
        let mut pg = Pg::of(&self.bed, address, &self.ca_file(), user)?;
        match proof {
            Proof::Certificate(identity, name) => {
                let (certificate, key) = identity.write(&self.bed, name)?;
                fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
                pg.set("PGSSLCERT", certificate.display());
                pg.set("PGSSLKEY", key.display());
            }
            Proof::Password(password) => pg.set("PGPASSWORD", password),
        }
        Ok(pg)
    }
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// A certificate, and the name of its files.
    Certificate(&'a Identity, &'a str),
    /// A password, which may be a token.
    Password(&'a str),
}

/// How PostgreSQL's own programs are to connect.
#[derive(Clone, Debug)]
pub struct Pg<'bed> {
    bed: &'bed Bed,
    settings: Vec<(String, String)>,
}

impl<'bed> Pg<'bed> {
    fn of(bed: &'bed Bed, address: SocketAddr, ca: &Path, user: &str) -> Result<Self> {
        let mut pg = Self {
            bed,
            settings: Vec::new(),
        };
        pg.set("PGHOST", SERVER_NAME);
        pg.set("PGHOSTADDR", address.ip());
        pg.set("PGPORT", address.port());
        pg.set("PGUSER", user);
        pg.set("PGDATABASE", "postgres");
        pg.set("PGSSLMODE", "verify-full");
        pg.set("PGSSLROOTCERT", ca.display());
        pg.set("PGCONNECT_TIMEOUT", 10);
        Ok(pg)
    }

    /// Sets a variable of libpq's.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// One of PostgreSQL's programs, in the client's namespace.
    pub fn command(&self, program: &str) -> Result<Command> {
        let program = programs()?.join(program);
        let program = program.to_str().context("a path")?;
        let mut command = self.bed.command(self.bed.client(), program)?;
        command.envs(self.settings.iter().cloned());
        Ok(command)
    }

    /// psql, without a user's settings, plain output.
    pub fn psql(&self) -> Result<Command> {
        let mut psql = self.command("psql")?;
        psql.args([
            "--no-psqlrc",
            "--no-align",
            "--tuples-only",
            "--no-password",
        ]);
        psql.args(["--set", "ON_ERROR_STOP=1"]);
        Ok(psql)
    }

    /// Runs one statement to its end.
    pub fn query(&self, statement: &str) -> Result<Output> {
        run(self.psql()?.args(["--quiet", "--command", statement]))
    }

    /// psql with a terminal's worth of patience: statements are written to it one by one.
    pub fn interactive(&self) -> Result<Psql> {
        Psql::start(&mut self.psql()?)
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().context("run a PostgreSQL client")?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A psql that waits for statements.
#[derive(Debug)]
pub struct Psql {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<(BootInstant, String)>,
}

impl Psql {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start psql")?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().context("its output")?;
        let stderr = child.stderr.take().context("its complaints")?;
        let forward = |stream: Box<dyn std::io::Read + Send>| {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // Nobody listens any more once the test is over.
                    let _ = sender.send((clock::boot_now(), line));
                }
            });
        };
        forward(Box::new(stdout));
        forward(Box::new(stderr));
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            lines,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a statement.
    pub fn write(&mut self, statement: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("psql's input")?;
        writeln!(stdin, "{statement}").context("write to psql")
    }

    /// Waits until it prints a line with `text`, and says when that was. What it printed before is
    /// the error.
    pub fn wait_for(&self, text: &str) -> Result<BootInstant> {
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(wait::PATIENCE) {
                Ok((at, line)) if line.contains(text) => return Ok(at),
                Ok((_, line)) => before.push(line),
                Err(error) => anyhow::bail!("no {text:?} from psql ({error}), only {before:#?}"),
            }
        }
    }

    /// Ctrl-C.
    pub fn interrupt(&self) -> Result<()> {
        process::send(self.pid(), rustix::process::Signal::INT)
    }

    /// No more statements; waits for its end and says how that was.
    pub fn end(mut self) -> Result<i32> {
        self.stdin = None;
        let status = wait::until("psql ended", || self.child.try_wait().transpose())?;
        Ok(status.context("wait for psql")?.code().unwrap_or(-1))
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // Fails only for a process that is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Debian keeps the server's programs: of the newest version that is installed.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .context("no version of PostgreSQL is installed")?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// A command in the daemon's namespace with the rights of the server's user.
fn as_owner(bed: &Bed, program: &Path) -> Result<Command> {
    let mut command = bed.command(bed.daemon(), "setpriv")?;
    command
        .arg(format!("--reuid={OWNER}"))
        .arg(format!("--regid={OWNER}"))
        .arg("--clear-groups")
        .arg(program)
        .current_dir("/");
    Ok(command)
}

fn finish(command: &mut Command, what: &str) -> Result<()> {
    let output = run(command)?;
    ensure!(output.code == 0, "{what} failed: {}", output.stderr);
    Ok(())
}
