//! Answers to the admin API.

use std::path::PathBuf;

use enforcer_abi::{ABI_VERSION, map_name};

use super::{
    admin::{
        AdminCommand, ConfigurationStatus, ConnectionInfo, DaemonStatus, GatewayState,
        GatewayStatus, Reply, RevokeOutcome, Selector, SessionDetail, SessionInfo, SessionState,
        StatusReport, map_statuses, missing_parts, program_statuses,
    },
    book::Live,
    core::Core,
    reload::{Order, Origin},
    store::StoreHealth,
};
use crate::{
    audit::ExporterHealth,
    clock::{BootInstant, Now, WallInstant},
    kernel::{
        attach,
        cgroup::DaemonCgroup,
        maps::{Endpoints, Fill},
    },
    session::{EndReason, Phase, SessionId},
};

/// Where the daemon is, for its own status.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    /// Folder of the pins.
    pub bpf_dir: PathBuf,
    /// The daemon's cgroup.
    pub cgroup: DaemonCgroup,
    /// When it started.
    pub started_at: BootInstant,
    /// The same, by the wall clock.
    pub started_at_wall: WallInstant,
}

/// What the loop must do itself.
pub enum Asked {
    /// Nothing more.
    Done,
    /// Remove everything and stop, then answer.
    Unload(AdminCommand),
    /// Look at another configuration.
    Configuration(Order),
}

impl Core {
    /// Answers a command. Who asked may have left: then nobody hears the answer.
    pub fn on_command(&mut self, command: AdminCommand, place: &Whereabouts, now: Now) -> Asked {
        match command {
            AdminCommand::Status { reply } => drop(reply.send(self.status(place, now))),
            AdminCommand::Sessions { reply } => self.begin_listing(reply),
            AdminCommand::Session { id, reply } => {
                let _ = reply.send(self.book.get(id).map(|live| self.detail(live, now)));
            }
            AdminCommand::Revoke {
                selector,
                reason,
                peer,
                reply,
            } => {
                tracing::info!(uid = peer.uid, ?selector, reason, "revoking");
                let by = format!("revoked by user {}", peer.uid);
                let detail = reason.map_or(by.clone(), |reason| format!("{by}: {reason}"));
                self.revoke(&selector, &detail, reply, now);
            }
            AdminCommand::Reload {
                request,
                peer,
                reply,
            } => {
                let origin = match request.version {
                    Some(_) => Origin::Rollback(peer.uid),
                    None => Origin::Reload(peer.uid),
                };
                return Asked::Configuration(Order::Apply {
                    origin,
                    request,
                    reply: Some(reply),
                });
            }
            AdminCommand::Simulate { request, reply } => {
                return Asked::Configuration(Order::Simulate { request, reply });
            }
            AdminCommand::Metrics { reply } => self.figures_wanted(reply, place),
            AdminCommand::Canary { reply } => self.canary_wanted(reply, now),
            command @ AdminCommand::Unload { .. } => return Asked::Unload(command),
        }
        Asked::Done
    }

    /// Ends sessions, and answers when they are over and their keys' end is on the disk.
    fn revoke(&mut self, selector: &Selector, detail: &str, reply: Reply<RevokeOutcome>, now: Now) {
        let chosen: Vec<SessionId> = self
            .book
            .iter()
            .filter(|live| !self.canary.is(live.session.id))
            .filter(|live| match selector {
                Selector::Id(id) => live.session.id == *id,
                Selector::Subject(subject) => live.session.principal.subject == *subject,
                Selector::All => true,
            })
            .map(|live| live.session.id)
            .collect();
        let dismissed = self.dismiss(&chosen, EndReason::Revoked, Some(detail), now);
        let flush = self.store.flush();
        let (sessions, connections) = (chosen.len(), dismissed.connections);
        tokio::task::spawn_local(async move {
            dismissed.over().await;
            let durable = flush.await.is_ok();
            let _ = reply.send(RevokeOutcome {
                sessions,
                connections,
                durable,
            });
        });
    }

    fn status(&self, place: &Whereabouts, now: Now) -> StatusReport {
        let inspection = attach::inspect(&place.bpf_dir, &place.cgroup);
        let programs = program_statuses(&inspection);
        let maps = map_statuses(&inspection, |name| self.fill(name));
        let mut problems = missing_parts(&programs, &maps);
        let gateways = self.gateway_statuses();
        if !gateways
            .iter()
            .any(|gateway| gateway.state == GatewayState::Serving)
        {
            problems.push("no gateway serves".to_owned());
        }
        let enforcing = problems.is_empty();
        problems.extend(store_problem(&self.store.health()));
        let audit = self.audit.health();
        problems.extend(
            audit
                .last_error
                .as_ref()
                .map(|error| format!("the audit log cannot be written: {error}")),
        );
        problems.extend(audit.upkeep_error.clone());
        let exports = self.exports.health();
        problems.extend(exports.iter().filter_map(export_problem));
        problems.extend(configuration_problems(&self.configuration));
        let canary = self.canary.last();
        problems.extend(
            canary
                .and_then(|last| last.failure.as_ref())
                .map(|failure| format!("the last canary failed: {failure}")),
        );
        let connections = self.book.iter().map(|live| live.legs.len()).sum();
        StatusReport {
            enforcing,
            problems,
            kernel_release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            abi_version: ABI_VERSION,
            programs,
            maps,
            daemon: Some(DaemonStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_seconds: now
                    .boot
                    .saturating_duration_since(place.started_at)
                    .as_secs(),
                sessions: self.book.iter().count(),
                connections,
                gateways,
                store: self.store.health(),
                audit,
                exports,
                configuration: self.configuration.clone(),
                canary: canary.cloned(),
            }),
        }
    }

    /// How full a map is, from what is known here: counting a big map's entries would hold up cuts.
    pub(super) fn fill(&self, name: &str) -> Option<Fill> {
        let legs = || self.book.iter().map(|live| live.legs.len() as u64).sum();
        let (entries, capacity) = match name {
            map_name::SESSIONS | map_name::ACTIVITY => (
                self.book.iter().count() as u64,
                self.maps.sessions_capacity(),
            ),
            map_name::BINDINGS => (legs(), self.maps.connections_capacity()),
            map_name::CONNECTIONS => {
                let stats = self.maps.stats();
                let open = stats
                    .connections_opened
                    .saturating_sub(stats.connections_closed);
                (open, self.maps.connections_capacity())
            }
            _ => return None,
        };
        Some(Fill { entries, capacity })
    }

    fn gateway_statuses(&self) -> Vec<GatewayStatus> {
        self.gateways
            .iter()
            .map(|(_, state, pid)| GatewayStatus {
                pid,
                state,
                // It says `Ready`, which ends `Starting`, only after it has sealed itself.
                sealed: state != GatewayState::Starting,
            })
            .collect()
    }

    pub(super) fn info(&self, live: &Live, now: Now) -> SessionInfo {
        let session = &live.session;
        let payload = self.last_payload(session.id);
        let limit = session.limit(payload);
        let seconds_to = |at: BootInstant| at.saturating_duration_since(now.boot).as_secs();
        SessionInfo {
            id: session.id,
            issuer: session.principal.issuer.clone(),
            subject: session.principal.subject.clone(),
            policies: session.policies.clone(),
            mode: session.limits.mode,
            state: match session.phase() {
                _ if limit.at <= now.boot => SessionState::Expired,
                Phase::Alive => SessionState::Active,
                Phase::Warned | Phase::Leaving => SessionState::Expiring,
            },
            age_seconds: now
                .wall
                .saturating_duration_since(session.started_at)
                .as_secs(),
            expires_in_seconds: seconds_to(session.deadline().at),
            idle_in_seconds: session.idle_at(payload).map(seconds_to),
            idle_timeout_seconds: session.limits.idle_timeout.map(|timeout| timeout.as_secs()),
            deadline: session.wall_limit(session.deadline().at, now),
            connections: live.legs.len(),
        }
    }

    fn detail(&self, live: &Live, now: Now) -> SessionDetail {
        let connections = live
            .legs
            .iter()
            .map(|(cookie, leg)| {
                let ends = Endpoints::of(&leg.connection).canonical();
                ConnectionInfo {
                    cookie: *cookie,
                    role: leg.role.into(),
                    remote: ends.remote,
                    local: ends.local,
                    opened_at: now.wall_at(BootInstant::from_nanos(leg.connection.opened_at_ns)),
                }
            })
            .collect();
        SessionDetail {
            info: self.info(live, now),
            connections,
        }
    }
}

fn export_problem(exporter: &ExporterHealth) -> Option<String> {
    let ExporterHealth {
        name, last_error, ..
    } = exporter;
    let error = last_error.as_ref()?;
    Some(format!("audit export {name} does not deliver: {error}"))
}

fn configuration_problems(configuration: &ConfigurationStatus) -> Vec<String> {
    let refused = configuration.refused.as_ref().map(|refused| {
        let reason = refused.refused.message.replace('\n', " ");
        format!("the last configuration was refused: {reason}")
    });
    let history = configuration
        .history_error
        .as_ref()
        .map(|error| format!("the configuration is not in the history: {error}"));
    refused.into_iter().chain(history).collect()
}

fn store_problem(store: &StoreHealth) -> Option<String> {
    let error = store.last_error.as_ref()?;
    Some(format!(
        "{} cannot be written: {error}",
        store.path.display()
    ))
}
