//! The gateway processes: started, adopted from the warden before, watched, ended.
//!
//! A gateway starts with its channel as standard input, in a cgroup of its own below the daemon's.
//! Everything else comes with the first message: the configuration's text (so that a file edited
//! since cannot break a restart), its handover socket and the listeners.

use std::{
    ffi::OsString,
    fs, io,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::MemfdFlags,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::sync::mpsc;

use super::{
    admin::GatewayState,
    gateways::{GatewayId, Gateways, Outgoing},
    listeners::Listeners,
};
use crate::{
    channel::{ExportBatch, ToGateway, ToWarden, Transport},
    clock::BootInstant,
    kernel::cgroup::DaemonCgroup,
    logging,
};

/// How long a gateway may take to hand its listeners over before it is killed.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a killed gateway is looked for.
const END_INTERVAL: Duration = Duration::from_millis(10);
/// A gateway that lives shorter is started again only after a while.
const HEALTHY_LIFE: Duration = Duration::from_secs(1);
const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// What the processes tell the loop.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are messages")]
pub enum Incoming {
    /// A message.
    Message(GatewayId, ToWarden),
    /// The channel is closed: the process has ended, or must.
    Gone(GatewayId),
    /// It is time to try again.
    StartGateway,
    /// Audit records are to go to a network.
    Export(ExportBatch),
}

/// What gateways are started from.
pub struct Processes {
    config_path: PathBuf,
    config_text: String,
    runtime_dir: PathBuf,
    cgroup: DaemonCgroup,
    incoming: mpsc::Sender<Incoming>,
    next_id: u64,
    current: Option<(GatewayId, BootInstant)>,
    backoff: Duration,
}

impl Processes {
    /// No gateway yet.
    pub fn new(
        config_path: PathBuf,
        config_text: String,
        runtime_dir: PathBuf,
        cgroup: DaemonCgroup,
        incoming: mpsc::Sender<Incoming>,
    ) -> Self {
        Self {
            config_path,
            config_text,
            runtime_dir,
            cgroup,
            incoming,
            next_id: 1,
            current: None,
            backoff: SHORTEST_BACKOFF,
        }
    }

    /// The gateway that new connections go to.
    pub fn is_current(&self, id: GatewayId) -> bool {
        self.current.is_some_and(|(current, _)| current == id)
    }

    /// Connects to the gateways of the warden before, and asks them for their listeners. They
    /// serve on what they have. One that does not answer is killed.
    pub async fn adopt(&mut self, gateways: &mut Gateways) -> Vec<OwnedFd> {
        let mut inherited = Vec::new();
        for id in self.left_behind() {
            self.next_id = self.next_id.max(id.0 + 1);
            let asked = tokio::time::timeout(HANDOVER_TIMEOUT, self.ask(id)).await;
            match asked {
                Ok(Ok((transport, mut listeners, pid))) => {
                    tracing::info!("took over {id} (process {pid}); it serves what it has");
                    inherited.append(&mut listeners);
                    self.connect(id, transport, GatewayState::Draining, pid, gateways);
                }
                Ok(Err(error)) => {
                    tracing::debug!("{id} is gone: {error}");
                    self.clean_up(id);
                }
                Err(_elapsed) => {
                    tracing::error!("{id} does not answer: it is killed");
                    self.clean_up(id);
                    self.wait_for_end(id).await;
                }
            }
        }
        inherited
    }

    /// Waits until a killed gateway is gone, and its listeners with it.
    async fn wait_for_end(&self, id: GatewayId) {
        let gone = async {
            while self
                .cgroup
                .child(&id.to_string())
                .is_ok_and(|cgroup| !cgroup.is_empty())
            {
                tokio::time::sleep(END_INTERVAL).await;
            }
        };
        if tokio::time::timeout(HANDOVER_TIMEOUT, gone).await.is_err() {
            tracing::error!("{id} does not end although it was killed");
        }
        self.cgroup.sweep();
    }

    /// Gateways whose handover sockets are in `runtime_dir`, the oldest first.
    fn left_behind(&self) -> Vec<GatewayId> {
        let entries = fs::read_dir(&self.runtime_dir)
            .into_iter()
            .flatten()
            .flatten();
        let mut ids: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix("gateway-")?
                    .strip_suffix(".sock")?
                    .parse()
                    .ok()
                    .map(GatewayId)
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    async fn ask(&self, id: GatewayId) -> io::Result<(Transport, Vec<OwnedFd>, u32)> {
        let pid = self
            .cgroup
            .child(&id.to_string())
            .ok()
            .and_then(|cgroup| cgroup.pids().pop());
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        // Non-blocking: the backlog of a stopped gateway may be full.
        let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        net::connect(&socket, &SocketAddrUnix::new(self.handover_path(id))?)?;
        let transport = Transport::new(socket)?;
        transport.send(&ToGateway::HandOver).await?;
        loop {
            match transport.recv().await? {
                Some((ToWarden::Listeners { .. }, listeners)) => {
                    return Ok((transport, listeners, pid));
                }
                // Activity and requests of before: the gateway asks again or goes on without.
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Starts a gateway, which becomes the one that new connections go to.
    pub fn start(
        &mut self,
        listeners: &Listeners,
        gateways: &mut Gateways,
        now: BootInstant,
    ) -> anyhow::Result<GatewayId> {
        let (path, text) = (self.config_path.clone(), self.config_text.clone());
        let id = self.launch(&path, &text, listeners, gateways)?;
        self.current = Some((id, now));
        Ok(id)
    }

    /// A gateway that was launched becomes the one that new connections go to, and its
    /// configuration the one of those that follow it.
    pub fn promote(&mut self, id: GatewayId, path: &Path, text: &str, now: BootInstant) {
        path.clone_into(&mut self.config_path);
        text.clone_into(&mut self.config_text);
        self.current = Some((id, now));
    }

    /// Starts a gateway with this configuration.
    pub fn launch(
        &mut self,
        config_path: &Path,
        config_text: &str,
        listeners: &Listeners,
        gateways: &mut Gateways,
    ) -> anyhow::Result<GatewayId> {
        let id = GatewayId(self.next_id);
        self.next_id += 1;
        let (ours, theirs) = net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let for_logging =
            |(name, _): &(OsString, OsString)| logging::VARIABLES.iter().any(|it| name == it);
        // The running binary, even if the file has been replaced since.
        let mut child = Command::new("/proc/self/exe")
            .arg("gateway")
            .env_clear()
            .envs(std::env::vars_os().filter(for_logging))
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let pid = child.id();
        // Reaps it; that it is gone shows on the channel.
        std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || child.wait())?;
        self.cgroup.child(&id.to_string())?.admit(pid)?;

        let (names, copies) = listeners.duplicate()?;
        let mut fds = vec![config_memfd(config_text)?, self.handover_socket(id)?];
        fds.extend(copies);
        self.connect(
            id,
            Transport::new(ours)?,
            GatewayState::Starting,
            pid,
            gateways,
        );
        let start = ToGateway::Start {
            config_path: config_path.to_owned(),
            names,
        };
        gateways.send_with_fds(id, start, fds);
        Ok(id)
    }

    /// Sets up the tasks that read from and write to a gateway.
    fn connect(
        &self,
        id: GatewayId,
        transport: Transport,
        state: GatewayState,
        pid: u32,
        gateways: &mut Gateways,
    ) {
        let transport = Arc::new(transport);
        let mut inbox = gateways.add(id, state, pid);
        let writer = Arc::clone(&transport);
        tokio::task::spawn_local(async move {
            while let Some(Outgoing { message, fds }) = inbox.recv().await {
                let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
                if writer.send_with_fds(&message, &fds).await.is_err() {
                    break;
                }
            }
        });
        let incoming = self.incoming.clone();
        tokio::task::spawn_local(async move {
            // What is not a message ends the channel as an error does.
            while let Ok(Some((message, _))) = transport.recv().await {
                if incoming.send(Incoming::Message(id, message)).await.is_err() {
                    return;
                }
            }
            let _ = incoming.send(Incoming::Gone(id)).await;
        });
    }

    /// A gateway is gone: cleans up after it. If it was the current one, another is to be started,
    /// at once or (when it keeps failing) after a while.
    pub fn on_gone(&mut self, id: GatewayId, now: BootInstant) {
        self.clean_up(id);
        let Some((_, started_at)) = self.current.filter(|(current, _)| *current == id) else {
            return;
        };
        self.current = None;
        let delay = if now.saturating_duration_since(started_at) >= HEALTHY_LIFE {
            self.backoff = SHORTEST_BACKOFF;
            Duration::ZERO
        } else {
            let longer = (self.backoff * 2).min(LONGEST_BACKOFF);
            std::mem::replace(&mut self.backoff, longer)
        };
        self.start_later(delay);
    }

    /// From now on no gateway is started in place of one that is gone.
    pub fn retire(&mut self) {
        self.current = None;
    }

    /// Asks the loop for a start after a while.
    pub fn start_later(&self, delay: Duration) {
        let incoming = self.incoming.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let _ = incoming.send(Incoming::StartGateway).await;
        });
    }

    /// Kills what is left of a gateway and removes its socket.
    pub fn clean_up(&self, id: GatewayId) {
        if let Ok(cgroup) = self.cgroup.child(&id.to_string())
            && let Err(error) = cgroup.kill()
        {
            tracing::error!("{id} cannot be killed: {error}");
        }
        let _ = fs::remove_file(self.handover_path(id));
        self.cgroup.sweep();
    }

    fn handover_path(&self, id: GatewayId) -> PathBuf {
        self.runtime_dir.join(format!("{id}.sock"))
    }

    fn handover_socket(&self, id: GatewayId) -> anyhow::Result<OwnedFd> {
        let path = self.handover_path(id);
        let _ = fs::remove_file(&path);
        let socket = seqpacket(SocketFlags::CLOEXEC)?;
        net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
        restrict(&path)?;
        net::listen(&socket, 4)?;
        Ok(socket)
    }
}

fn config_memfd(text: &str) -> io::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("enforcer-config", MemfdFlags::CLOEXEC)?;
    let mut file = fs::File::from(memfd);
    file.write_all(text.as_bytes())?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Only root may connect.
fn restrict(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
}
