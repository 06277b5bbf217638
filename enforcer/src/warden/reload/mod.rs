//! Another configuration for a running daemon, all or nothing.
//!
//! ```text
//!          order            read              weighed             ready           all sessions
//!   Idle ---------> Reading ------> Weighing ---------> Starting -------> Applying ----------> Keeping
//!    ^                 |               |                   |                                      |
//!    +--- refused -----+---------------+-------------------+              kept in the history ----+
//! ```
//!
//! Until a gateway with the new configuration is ready, nothing has changed: whatever goes wrong
//! before is told, recorded, and leaves no trace. From then on nothing can go wrong any more: the
//! old gateway drains, and the live sessions come under the new limits, a slice at a time.

mod history;
mod lock_out;
mod named;
mod order;
mod outcome;
mod read;
mod watching;
pub mod weigh;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::PathBuf,
    pin::Pin,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    task::{JoinHandle, spawn_blocking, yield_now},
    time::{Sleep, sleep},
};

pub use self::history::{FOLDER as HISTORY_FOLDER, Version, list as history, read as read_version};
use self::{
    history::digest,
    named::NamedFiles,
    read::{read_file, read_kept, read_text, read_watched},
    watching::Watching,
    weigh::Regime,
};
pub use self::{
    order::{Order, Origin},
    read::Read,
};
use super::{
    admin::{
        ConfigurationStatus, RefusalCode, RefusedConfiguration, ReloadOutcome, ReloadRefused,
        SimulateOutcome, SimulateRequest,
    },
    core::Core,
    gateways::GatewayId,
    listeners::Listeners,
    processes::Processes,
    relimit::Walk,
};
use crate::{
    audit::{Event, Record},
    clock::Now,
    config::{Config, differences},
};

/// How long a gateway may take to start with a new configuration.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A configuration that was read.
struct Candidate {
    order: Order,
    config: Config,
    text: String,
    path: PathBuf,
    /// What the daemon's file says, if the candidate comes from elsewhere.
    overruled: Option<String>,
    changes: Vec<String>,
    regime: Regime,
}

enum Stage {
    Idle,
    Reading(Order, JoinHandle<Read>),
    Weighing(Box<Candidate>, Walk),
    Starting(Box<Candidate>, Start),
    Applying(Box<Candidate>, Walk),
    Keeping(Box<Candidate>, Walk, JoinHandle<io::Result<u64>>),
}

/// A gateway that starts with a candidate.
struct Start {
    gateway: GatewayId,
    listeners: Listeners,
    timeout: Pin<Box<Sleep>>,
}

/// What happened.
pub enum Progress {
    /// An order waits.
    Next,
    /// It was read.
    Read(Box<Read>),
    /// It is time for the next slice.
    Slice,
    /// The new gateway takes too long.
    TimedOut,
    /// The version is in the history, or not.
    Kept(io::Result<u64>),
    /// The watched file was changed.
    FileChanged,
}

/// What a configuration is applied to.
pub struct House<'a> {
    /// Sessions and maps.
    pub core: &'a mut Core,
    /// Gateways.
    pub processes: &'a mut Processes,
    /// Listening sockets.
    pub listeners: &'a mut Listeners,
}

/// Takes orders, one after the other.
pub struct Reloads {
    queue: VecDeque<Order>,
    stage: Stage,
    path: PathBuf,
    text: String,
    config: Config,
    history: PathBuf,
    watching: Watching,
}

impl Reloads {
    /// The daemon has started with this configuration. Needs a tokio runtime.
    pub fn new(config: Config, path: PathBuf, text: String, core: &mut Core, now: Now) -> Self {
        let history = config.daemon.state_dir.join(HISTORY_FOLDER);
        let reloads = Self {
            queue: VecDeque::new(),
            stage: Stage::Idle,
            watching: Watching::new(&path, &text, config.daemon.watch),
            path,
            text,
            config,
            history,
        };
        core.configuration = ConfigurationStatus {
            path: reloads.path.clone(),
            sha256: digest(&reloads.text),
            applied_at: Some(now.wall),
            ..ConfigurationStatus::default()
        };
        let kept = reloads.keep_first(now);
        core.configuration.note_kept(kept);
        reloads
    }

    /// The history goes on with what the daemon starts with, if that is new to it.
    fn keep_first(&self, now: Now) -> io::Result<u64> {
        let versions = history::list(&self.history)?;
        let sha256 = digest(&self.text);
        match versions.last().filter(|last| last.sha256 == sha256) {
            Some(last) => Ok(last.version),
            None => history::keep(
                &self.history,
                Version {
                    version: 0,
                    applied_at: now.wall,
                    origin: "start".to_owned(),
                    uid: None,
                    sha256,
                    changes: versions
                        .last()
                        .and_then(|last| Config::parse(&last.text, &last.path).ok())
                        .map(|last| differences(&last, &self.config))
                        .unwrap_or_default(),
                    path: self.path.clone(),
                    text: self.text.clone(),
                },
            ),
        }
    }

    /// Watches what the configuration names by now. What has changed since it was read is looked
    /// for.
    fn watch_again(&mut self) {
        self.watching.start(&self.path, self.config.daemon.watch);
        if self.watching.is_on() {
            self.take(Order::of_watch());
        }
    }

    /// Puts an order in the queue.
    pub fn take(&mut self, order: Order) {
        self.queue.push_back(order);
    }

    /// A walk over the sessions is under way: the loop is to give it its share.
    pub fn is_walking(&self) -> bool {
        matches!(self.stage, Stage::Weighing(..) | Stage::Applying(..))
    }

    /// Waits for what is to be done next. May be given up and asked again.
    pub async fn progress(&mut self) -> Progress {
        let idle = self.queue.is_empty();
        let stage = async {
            match &mut self.stage {
                Stage::Idle if idle => std::future::pending().await,
                Stage::Idle => Progress::Next,
                Stage::Reading(_, reading) => {
                    let read = reading.await.unwrap_or_else(|error| {
                        let message = format!("reading the configuration failed: {error}");
                        Read::failed(self.path.clone(), message)
                    });
                    Progress::Read(Box::new(read))
                }
                Stage::Weighing(..) | Stage::Applying(..) => {
                    yield_now().await;
                    Progress::Slice
                }
                Stage::Starting(_, start) => {
                    start.timeout.as_mut().await;
                    Progress::TimedOut
                }
                Stage::Keeping(.., keeping) => {
                    Progress::Kept(keeping.await.unwrap_or_else(|error| Err(error.into())))
                }
            }
        };
        tokio::select! {
            biased;
            progress = stage => progress,
            () = self.watching.changed() => Progress::FileChanged,
        }
    }

    /// Does what is to be done next.
    pub fn advance(&mut self, progress: Progress, house: &mut House<'_>, now: Now) {
        if matches!(progress, Progress::FileChanged) {
            return self.take(Order::of_watch());
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        match (stage, progress) {
            (Stage::Idle, Progress::Next) => self.begin(house),
            (Stage::Reading(order, _), Progress::Read(read)) => {
                self.on_read(order, *read, house, now);
            }
            (Stage::Weighing(candidate, mut walk), Progress::Slice) => {
                if house.core.weigh_slice(&mut walk, &candidate.regime, now) {
                    self.on_weighed(candidate, walk, house, now);
                } else {
                    self.stage = Stage::Weighing(candidate, walk);
                }
            }
            (Stage::Starting(candidate, start), Progress::TimedOut) => {
                let seconds = START_TIMEOUT.as_secs();
                let message = format!("no gateway was ready with it within {seconds} s");
                self.abandon(candidate, &start, message, house, now);
            }
            (Stage::Applying(candidate, mut walk), Progress::Slice) => {
                if house.core.relimit_slice(&mut walk, &candidate.regime, now) {
                    self.keep(candidate, walk, now);
                } else {
                    self.stage = Stage::Applying(candidate, walk);
                }
            }
            (Stage::Keeping(candidate, walk, _), Progress::Kept(kept)) => {
                self.finish(*candidate, &walk, kept, house, now);
            }
            (stage, _) => self.stage = stage,
        }
    }

    fn begin(&mut self, house: &mut House<'_>) {
        let Some(order) = self.queue.pop_front() else {
            return;
        };
        let reading = match &order {
            Order::Apply {
                origin, request, ..
            } => {
                house.core.configuration.reloading = true;
                tell_reloading();
                let (path, history) = (self.path.clone(), self.history.clone());
                let overruled = self.watching.overruled().map(str::to_owned);
                match (request.version, origin, overruled) {
                    (Some(version), ..) => {
                        spawn_blocking(move || read_kept(&history, version, &path))
                    }
                    (None, Origin::Watch, Some(overruled)) => {
                        let in_force = self.text.clone();
                        spawn_blocking(move || read_watched(path, &overruled, in_force))
                    }
                    (None, ..) => spawn_blocking(move || read_file(path)),
                }
            }
            Order::Simulate { request, .. } => {
                let SimulateRequest { path, text } = request.clone();
                // The files that it names were looked at by who asks, with their own rights.
                spawn_blocking(move || read_text(path, text, Config::parse))
            }
        };
        self.stage = Stage::Reading(order, reading);
    }

    fn on_read(&mut self, order: Order, read: Read, house: &mut House<'_>, now: Now) {
        if let Order::Apply { origin, .. } = order
            && !self.watching.note_read(origin, &read)
        {
            house.core.configuration.reloading = false;
            return tell_ready();
        }
        let Read {
            path,
            outcome,
            overruled,
            ..
        } = read;
        let (config, text) = match outcome {
            Ok(read) => read,
            Err((text, refused)) => return self.refuse(order, text, refused, house, now),
        };
        let simulated = matches!(order, Order::Simulate { .. });
        let reloadable = config.check_reloadable(&self.config, &text, &path);
        if let (Err(error), false) = (&reloadable, simulated) {
            let refused = ReloadRefused::new(RefusalCode::NeedsRestart, error.to_string());
            return self.refuse(order, Some(text), refused, house, now);
        }
        let regime = Regime {
            policies: config.policies.clone(),
            retired_issuers: issuers(&self.config)
                .difference(&issuers(&config))
                .cloned()
                .collect(),
        };
        let concerned = regime.concerns(&self.config.policies);
        let walk = house.core.walk(concerned, simulated);
        let candidate = Candidate {
            changes: differences(&self.config, &config),
            order,
            config,
            text,
            path,
            overruled,
            regime,
        };
        self.stage = Stage::Weighing(Box::new(candidate), walk);
    }

    fn on_weighed(
        &mut self,
        candidate: Box<Candidate>,
        walk: Walk,
        house: &mut House<'_>,
        now: Now,
    ) {
        let impact = walk.impact();
        let reasons = lock_out::reasons(&self.config, &candidate.config, &impact);
        let locks_out = (!reasons.is_empty()).then(|| {
            let reasons = reasons.join("; ");
            ReloadRefused::new(
                RefusalCode::LocksOut,
                format!(
                    "this configuration would lock everyone out: {reasons}\n\
                     help: if that is meant, apply it with `enforcer reload --yes`"
                ),
            )
        });
        let (request, origin) = match candidate.order {
            Order::Simulate { .. } => {
                return self.tell(*candidate, walk, locks_out);
            }
            Order::Apply {
                ref request,
                origin,
                ..
            } => (request.clone(), origin),
        };
        let too_many = request.max_cut.filter(|most| impact.cut > *most);
        let refused = match (too_many, locks_out) {
            (Some(most), _) => Some(ReloadRefused::new(
                RefusalCode::TooManyCut,
                format!(
                    "this configuration would cut {} of {} live sessions, more than {most}\n\
                     help: `enforcer policy simulate` lists them; raise `--max-cut` if that is meant",
                    impact.cut, impact.sessions
                ),
            )),
            (None, Some(locks_out)) if !request.yes => Some(locks_out),
            (None, _) => None,
        };
        if let Some(refused) = refused {
            let Candidate { order, text, .. } = *candidate;
            return self.refuse(order, Some(text), refused, house, now);
        }
        tracing::info!(
            origin = origin.as_str(),
            "starting a gateway with the new configuration"
        );
        match start(&candidate, house) {
            Ok(start) => self.stage = Stage::Starting(candidate, start),
            Err(refused) => {
                let Candidate { order, text, .. } = *candidate;
                self.refuse(order, Some(text), refused, house, now);
            }
        }
    }

    /// A gateway is ready. If it is the one with the new configuration, that is the one from now on.
    pub fn on_ready(&mut self, ready: GatewayId, house: &mut House<'_>, now: Now) {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Starting(candidate, start) if start.gateway == ready => {
                let Candidate {
                    config,
                    text,
                    path,
                    overruled,
                    regime,
                    ..
                } = &*candidate;
                house.processes.promote(ready, path, text, now.boot);
                *house.listeners = start.listeners;
                house.core.adopt(
                    regime,
                    &issuers(config),
                    config.daemon.pre_authentication_timeout,
                );
                house.core.keep_audit(config);
                let concerned = regime.concerns(&self.config.policies);
                if concerned || config.monitoring != self.config.monitoring {
                    house.core.monitor(config, now);
                }
                self.config = config.clone();
                self.text.clone_from(text);
                self.watching.note_applied(overruled.clone());
                self.watch_again();
                let walk = house.core.walk(concerned, false);
                self.stage = Stage::Applying(candidate, walk);
            }
            stage => self.stage = stage,
        }
    }

    /// A gateway cannot start, or is gone. If it is the one with the new configuration, the old one
    /// goes on.
    pub fn on_failed(
        &mut self,
        failed: GatewayId,
        reason: Option<String>,
        house: &mut House<'_>,
        now: Now,
    ) {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Starting(candidate, start) if start.gateway == failed => {
                let reason = reason.unwrap_or_else(|| "it ended; the log says why".to_owned());
                let message = format!("no gateway starts with it: {reason}");
                self.abandon(candidate, &start, message, house, now);
            }
            stage => self.stage = stage,
        }
    }

    fn abandon(
        &mut self,
        candidate: Box<Candidate>,
        start: &Start,
        message: String,
        house: &mut House<'_>,
        now: Now,
    ) {
        house.core.gateways.remove(start.gateway);
        house.processes.clean_up(start.gateway);
        let Candidate { order, text, .. } = *candidate;
        let refused = ReloadRefused::new(RefusalCode::Gateway, message);
        self.refuse(order, Some(text), refused, house, now);
    }

    /// All live sessions are under the new limits. The history is written beside the loop: a slow
    /// or full disk holds nothing up.
    fn keep(&mut self, candidate: Box<Candidate>, walk: Walk, now: Now) {
        let origin = match candidate.order {
            Order::Apply { origin, .. } => origin,
            Order::Simulate { .. } => return,
        };
        let version = Version {
            version: 0,
            applied_at: now.wall,
            origin: origin.as_str().to_owned(),
            uid: origin.uid(),
            sha256: digest(&candidate.text),
            changes: candidate.changes.clone(),
            path: candidate.path.clone(),
            text: candidate.text.clone(),
        };
        let folder = self.history.clone();
        let keeping = spawn_blocking(move || history::keep(&folder, version));
        self.stage = Stage::Keeping(candidate, walk, keeping);
    }
}

/// Opens what is new among the listeners, and starts a gateway with the candidate. Listeners that
/// stay keep their sockets.
fn start(candidate: &Candidate, house: &mut House<'_>) -> Result<Start, ReloadRefused> {
    let refuse = |code, error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        ReloadRefused::new(code, format!("{error}{}", cause.unwrap_or_default()))
    };
    let (_, present) = house
        .listeners
        .duplicate()
        .map_err(|error| refuse(RefusalCode::Listener, &error))?;
    let listeners = Listeners::provide(&candidate.config, present)
        .map_err(|error| refuse(RefusalCode::Listener, &error))?;
    let gateway = house
        .processes
        .launch(
            &candidate.path,
            &candidate.text,
            &listeners,
            &mut house.core.gateways,
        )
        .map_err(|error| ReloadRefused::new(RefusalCode::Gateway, format!("{error:#}")))?;
    Ok(Start {
        gateway,
        listeners,
        timeout: Box::pin(sleep(START_TIMEOUT)),
    })
}

fn issuers(config: &Config) -> BTreeSet<String> {
    let identity = &config.identity;
    let signing = identity.jwt.iter().map(|issuer| &issuer.issuer);
    let asked = identity.introspection.iter().map(|issuer| &issuer.issuer);
    signing.chain(asked).cloned().collect()
}

/// To systemd, which then waits for [`tell_ready`].
fn tell_reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    let _ = sd_notify::notify(&states);
}

fn tell_ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}
