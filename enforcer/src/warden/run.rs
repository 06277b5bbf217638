//! The warden's life: start, loop, stop.
//!
//! Order of the start: what the machine offers, programs attached, sessions recovered (what is
//! over is cut), listeners taken over or opened, a gateway started, and only when it is ready are
//! the old ones told to drain.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use enforcer_abi as abi;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::LocalSet,
};

use super::{
    admin::{
        AdminCommand, AdminServer, GatewayState, ReloadRequest, Settings, UnloadOutcome, socket_in,
    },
    answers::{Asked, Whereabouts},
    core::{Core, Parts},
    exports::Exports,
    gateways::GatewayId,
    listeners::Listeners,
    processes::{Incoming, Processes},
    reload::{HISTORY_FOLDER, House, Order, Origin, Reloads},
    store::{DATABASE_NAME, Store},
};
use crate::{
    audit::{AuditLog, AuditSettings, Event, Record},
    channel::{ToGateway, ToWarden},
    clock::Now,
    config::Config,
    kernel::{
        attach::{self, Sizes},
        cgroup::DaemonCgroup,
        events::Events,
        log::ProgramLog,
        maps::Maps,
        probe,
        reset::Resetter,
        timer::{Alarm, WallClockWatch},
    },
    session::EndReason,
};

const TICK: Duration = Duration::from_secs(1);
/// How long gateways may take to finish when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Events read from the ring buffer before the alarm is looked at again.
const EVENTS_AT_ONCE: usize = 256;
const QUEUE: usize = 1024;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// If the configuration or the machine doesn't allow it to start.
pub fn run(config_path: &Path) -> Result<()> {
    crate::logging::init();
    let config_path = std::path::absolute(config_path)?;
    let text = fs::read_to_string(&config_path)
        .with_context(|| format!("cannot read {}", config_path.display()))?;
    let config = Config::parse_with_files(&text, &config_path)?;
    probe::check(&config.daemon.bpf_dir)?;
    raise_descriptor_limit();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut warden = Warden::start(config, config_path, text).await?;
        warden.serve().await
    })
}

struct Warden {
    core: Core,
    processes: Processes,
    listeners: Listeners,
    place: Whereabouts,
    alarm: Alarm,
    wall_clock: WallClockWatch,
    events: Events,
    incoming: mpsc::Receiver<Incoming>,
    commands: mpsc::Receiver<AdminCommand>,
    admin: Option<AdminServer>,
    audit: Option<AuditLog>,
    stop: StopSignals,
    hangup: Signal,
    reloads: Reloads,
    /// Of a walk over the sessions it is the next slice's turn, and not a request's.
    slice_due: bool,
    stopping: bool,
    _lock: fs::File,
}

enum Next {
    GoOn,
    Stop,
    Unload(AdminCommand),
}

impl Warden {
    async fn start(config: Config, config_path: PathBuf, text: String) -> Result<Self> {
        let daemon = &config.daemon;
        let now = Now::read();
        make_dir(&daemon.runtime_dir, 0o755)?;
        let lock = lock(&daemon.runtime_dir)?;
        // Without the ended keys a revoked token would be let in again: nothing starts.
        make_dir(&daemon.state_dir, 0o750)?;
        let (store, snapshot) = Store::open(&daemon.state_dir.join(DATABASE_NAME), now.wall)?;
        let cgroup = DaemonCgroup::locate(daemon.cgroup.as_deref())?;
        cgroup.enter()?;
        cgroup.sweep();

        let sizes = Sizes {
            sessions: daemon.max_sessions,
            connections: daemon.max_connections,
        };
        let programs = attach::attach(&daemon.bpf_dir, &cgroup, sizes)?;
        ProgramLog::forward(programs);
        let mut maps = Maps::open(&daemon.bpf_dir).context("the pinned maps cannot be opened")?;
        maps.set_control(abi::Control {
            abi_version: abi::ABI_VERSION,
            mode: abi::Mode::Enforce.code(),
            pre_authentication_timeout_ns: u64::try_from(
                daemon.pre_authentication_timeout.as_nanos(),
            )?,
        })?;

        let audit_settings = AuditSettings::of(&config);
        let audit_path = audit_settings.database();
        let audit = AuditLog::open(audit_settings)?;

        let mut core = Core::new(Parts {
            policies: config.policies.clone(),
            pre_authentication_timeout: daemon.pre_authentication_timeout,
            maps,
            resetter: Resetter::open()?,
            audit: audit.sink(),
            store,
        });
        core.monitor(&config, now);
        let mut started = Record::new(now.wall, Event::DaemonStarted);
        started.pid = Some(std::process::id());
        core.audit.write(started);
        let events = Events::open(&daemon.bpf_dir)?;
        let recovered = core.recover(snapshot, Now::read());
        tracing::info!(
            sessions = recovered.sessions,
            cut = recovered.cut,
            "recovered"
        );

        let (to_loop, incoming) = mpsc::channel(QUEUE);
        core.exports = Exports::start(&config, &to_loop)?;
        let mut processes = Processes::new(
            config_path.clone(),
            text.clone(),
            daemon.runtime_dir.clone(),
            cgroup.clone(),
            to_loop,
        );
        let inherited = processes.adopt(&mut core.gateways).await;
        let listeners = Listeners::provide(&config, inherited)?;
        let reloads = Reloads::new(config.clone(), config_path, text, &mut core, now);
        processes.start(&listeners, &mut core.gateways, Now::read().boot)?;

        let (to_core, commands) = mpsc::channel(QUEUE);
        let settings = Settings {
            socket: socket_in(&daemon.runtime_dir),
            group: daemon.admin_group.clone(),
            audit_log: audit_path,
            history: daemon.state_dir.join(HISTORY_FOLDER),
        };
        Ok(Self {
            core,
            processes,
            listeners,
            place: Whereabouts {
                bpf_dir: daemon.bpf_dir.clone(),
                cgroup,
                started_at: now.boot,
                started_at_wall: now.wall,
            },
            alarm: Alarm::new()?,
            wall_clock: WallClockWatch::new()?,
            events,
            incoming,
            commands,
            admin: Some(AdminServer::start(settings, to_core)?),
            audit: Some(audit),
            stop: StopSignals::new()?,
            hangup: signal(SignalKind::hangup())?,
            reloads,
            slice_due: false,
            stopping: false,
            _lock: lock,
        })
    }

    async fn serve(&mut self) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        let mut reports = Vec::new();
        loop {
            match self.react(&mut tick, &mut reports).await? {
                Next::GoOn => {}
                Next::Stop => break,
                Next::Unload(command) => return self.unload(command).await,
            }
        }
        tracing::info!("stopping; the limits of live sessions stay in force");
        self.end_gateways(&mut tick, &mut reports).await?;
        self.say_goodbye().await;
        Ok(())
    }

    /// Waits for one thing and reacts to it. What is listed first goes first.
    async fn react(
        &mut self,
        tick: &mut tokio::time::Interval,
        reports: &mut Vec<abi::Event>,
    ) -> Result<Next> {
        self.alarm.set(self.core.next_alarm())?;
        tokio::select! {
            biased;
            rang = self.alarm.rang() => {
                rang?;
                self.core.on_alarm(Now::read());
            }
            stepped = self.wall_clock.stepped() => {
                stepped?;
                self.core.on_wall_clock_step(Now::read());
            }
            read = self.events.read(reports, EVENTS_AT_ONCE) => {
                read?;
                let now = Now::read();
                for event in reports.drain(..) {
                    self.core.on_event(&event, now);
                }
            }
            () = self.stop.received() => return Ok(Next::Stop),
            _ = tick.tick() => {
                self.core.on_tick(Now::read());
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
            Some(()) = self.hangup.recv() => self.reloads.take(Order::Apply {
                origin: Origin::Signal,
                request: ReloadRequest::default(),
                reply: None,
            }),
            Some(command) = self.commands.recv(), if !self.slice_due => {
                self.slice_due = self.reloads.is_walking() && !self.stopping;
                match self.core.on_command(command, &self.place, Now::read()) {
                    Asked::Done => {}
                    Asked::Unload(command) => return Ok(Next::Unload(command)),
                    Asked::Configuration(order) => self.reloads.take(order),
                }
            }
            Some(incoming) = self.incoming.recv(), if !self.slice_due => {
                self.slice_due = self.reloads.is_walking() && !self.stopping;
                self.on_incoming(incoming);
            }
            () = tokio::task::yield_now(), if self.core.is_listing() => self.core.list_on(Now::read()),
            progress = self.reloads.progress(), if !self.stopping => {
                self.slice_due = false;
                let (reloads, mut house) = self.reloading();
                reloads.advance(progress, &mut house, Now::read());
            }
        }
        for id in self.core.gateways.take_wedged() {
            tracing::error!("{id} has not read its messages for too long: it is killed");
            self.processes.clean_up(id);
        }
        Ok(Next::GoOn)
    }

    /// Reloading, and what it works on.
    fn reloading(&mut self) -> (&mut Reloads, House<'_>) {
        let house = House {
            core: &mut self.core,
            processes: &mut self.processes,
            listeners: &mut self.listeners,
        };
        (&mut self.reloads, house)
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let now = Now::read();
        match incoming {
            Incoming::Message(id, ToWarden::Ready) => {
                let (reloads, mut house) = self.reloading();
                reloads.on_ready(id, &mut house, now);
                if self.processes.is_current(id) {
                    self.on_ready(id, now);
                }
            }
            Incoming::Message(id, ToWarden::CannotStart { reason }) => {
                tracing::error!("{id} cannot start: {reason}");
                let (reloads, mut house) = self.reloading();
                reloads.on_failed(id, Some(reason), &mut house, now);
            }
            Incoming::Message(id, ToWarden::Scraped { request }) => {
                self.core.on_scrape(id, request, &self.place);
            }
            Incoming::Message(id, message) => self.core.on_message(id, message, now),
            Incoming::Gone(id) => {
                if self.processes.is_current(id) {
                    tracing::error!("{id} has died; another is started");
                    self.record_gateway(Event::GatewayDied, id, now);
                }
                self.core.gateways.remove(id);
                self.processes.on_gone(id, now.boot);
                let (reloads, mut house) = self.reloading();
                reloads.on_failed(id, None, &mut house, now);
            }
            Incoming::Export(batch) => self.core.export(batch),
            Incoming::StartGateway if self.stopping => {}
            Incoming::StartGateway => {
                let started =
                    self.processes
                        .start(&self.listeners, &mut self.core.gateways, now.boot);
                if let Err(error) = started {
                    tracing::error!("a gateway cannot be started: {error:#}");
                    self.processes.start_later(TICK);
                }
            }
        }
    }

    /// A gateway is sealed and accepts: the old ones may go when they are done.
    fn on_ready(&mut self, ready: GatewayId, now: Now) {
        self.core.gateways.set_state(ready, GatewayState::Serving);
        self.record_gateway(Event::GatewayStarted, ready, now);
        let others: Vec<_> = self
            .core
            .gateways
            .iter()
            .map(|(id, ..)| id)
            .filter(|id| *id != ready)
            .collect();
        for old in others {
            self.core.gateways.set_state(old, GatewayState::Draining);
            self.core.gateways.send(old, ToGateway::Drain);
        }
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("enforcing")]);
        tracing::info!("{ready} serves");
    }

    fn record_gateway(&self, event: Event, id: GatewayId, now: Now) {
        let mut record = Record::new(now.wall, event);
        record.pid = self
            .core
            .gateways
            .iter()
            .find(|(other, ..)| *other == id)
            .map(|(.., pid)| pid);
        self.core.audit.write(record);
    }

    /// Lets the gateways finish for a moment, then kills them. Cuts go on meanwhile.
    async fn end_gateways(
        &mut self,
        tick: &mut tokio::time::Interval,
        reports: &mut Vec<abi::Event>,
    ) -> Result<()> {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        self.core.gateways.broadcast(ToGateway::Drain);
        self.processes.retire();
        self.stopping = true;
        self.slice_due = false;
        let timeout = tokio::time::sleep(STOP_TIMEOUT);
        tokio::pin!(timeout);
        while self.core.gateways.iter().next().is_some() {
            tokio::select! {
                () = &mut timeout => break,
                next = self.react(tick, reports) => drop(next?),
            }
        }
        let left: Vec<_> = self.core.gateways.iter().map(|(id, ..)| id).collect();
        for id in left {
            self.core.gateways.remove(id);
            self.processes.clean_up(id);
        }
        Ok(())
    }

    async fn unload(&mut self, command: AdminCommand) -> Result<()> {
        let AdminCommand::Unload { peer, reply } = command else {
            return Ok(());
        };
        tracing::info!(uid = peer.uid, "unloading");
        let now = Now::read();
        let ids: Vec<_> = self.core.book.ids();
        let connections = self
            .core
            .end_all(&ids, EndReason::Revoked, Some("unloaded"), now);
        let gateways: Vec<_> = self.core.gateways.iter().map(|(id, ..)| id).collect();
        for id in gateways {
            self.core.gateways.remove(id);
            self.processes.clean_up(id);
        }
        let removed = attach::remove(&self.place.bpf_dir);
        let answer = match &removed {
            Ok(()) => Ok(UnloadOutcome {
                sessions: ids.len(),
                connections,
            }),
            Err(error) => Err(super::admin::CommandFailed(error.to_string())),
        };
        let _ = reply.send(answer);
        self.say_goodbye().await;
        self.place.cgroup.leave();
        self.place.cgroup.remove();
        removed.map_err(Into::into)
    }

    async fn say_goodbye(&mut self) {
        self.core.record_all_pauses(Now::read());
        let mut stopped = Record::new(Now::read().wall, Event::DaemonStopped);
        stopped.pid = Some(std::process::id());
        self.core.audit.write(stopped);
        if let Err(error) = self.core.store.flush().await {
            tracing::error!("{error}");
        }
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        if let Some(audit) = self.audit.take() {
            audit.close();
        }
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    // A folder that somebody made with looser rights than the sockets and the log need.
    let permissions = fs::metadata(path)
        .with_context(|| format!("cannot use {}", path.display()))?
        .permissions();
    if permissions.mode() & 0o022 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot change the mode of {}", path.display()))?;
    }
    Ok(())
}

/// Keeps a second daemon with the same folders from starting.
fn lock(runtime_dir: &Path) -> Result<fs::File> {
    let path = runtime_dir.join("warden.lock");
    let file =
        fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(
        || {
            format!(
                "another enforcer runs with {}: stop it first",
                runtime_dir.display()
            )
        },
    )?;
    Ok(file)
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the descriptor limit cannot be raised: {error}");
    }
}
