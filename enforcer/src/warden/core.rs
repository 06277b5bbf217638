//! The warden's state and its reactions: to the alarm, to gateways, to the kernel's events.
//!
//! One thread owns it; every reaction is short and waits for nothing. Order is the point of most
//! of them: a session is in the map before a socket is bound to it, and both before the gateway
//! hears of it; at the end the map comes first, then the resets, then the words.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use enforcer_abi as abi;

use super::{
    admin::ConfigurationStatus,
    alerts::Alerts,
    book::{Book, Live},
    canary::Canary,
    dismissing::Dismissal,
    ending::{Ending, Over},
    exports::Exports,
    gateways::Gateways,
    listing::Listings,
    queue::DeadlineQueue,
    recorder::Recorder,
    reload::weigh::Regime,
    store::{Bounds, StoreHandle, StoredSession},
};
use crate::{
    audit::{AuditSink, Detectors, Event, Record},
    channel::{SessionView, ToGateway},
    clock::{BootInstant, Now, WallInstant},
    config::Config,
    kernel::{maps::Maps, reset::Resetter},
    policy::{Mode, Policy, Terms},
    session::{CertificateId, Limit, SessionId, Step},
};

const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);

/// What the alarm may ring for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// Something is to be done with a session.
    Session(SessionId),
    /// An accepted socket has been without a session for too long.
    PreAuthentication(u64),
    /// The record of an ended session waits no longer for its sockets.
    EndRecord(SessionId),
}

/// Everything that the warden knows and may do.
pub struct Core {
    pub(super) policies: BTreeMap<String, Policy>,
    pub(super) pre_authentication_timeout: Duration,
    pub(super) maps: Maps,
    pub(super) resetter: Resetter,
    pub(super) audit: Recorder,
    pub(super) alerts: Alerts,
    pub(super) canary: Canary,
    /// Where the figures can be read; nobody authenticates there.
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) store: StoreHandle,
    pub(super) gateways: Gateways,
    pub(super) queue: DeadlineQueue<Due>,
    pub(super) book: Book,
    pub(super) unbound: HashMap<u64, abi::Connection>,
    /// The sessions of bound sockets, until they close.
    pub(super) owners: HashMap<u64, SessionId>,
    pub(super) ending: HashMap<SessionId, Ending>,
    /// Sockets that could not be reset: dropped meanwhile, and tried again.
    pub(super) stuck: HashMap<u64, abi::Connection>,
    pub(super) listings: Listings,
    pub(super) exports: Exports,
    pub(super) losses: abi::Stats,
    pub(super) purged_at: BootInstant,
    /// Issuers that an applied configuration has left out: nobody is let in on their word, whatever
    /// an old gateway says.
    pub(super) retired_issuers: BTreeSet<String>,
    /// What the latest revocation lists name.
    pub(super) revoked_certificates: HashSet<CertificateId>,
    /// What the daemon runs with, for its status.
    pub(super) configuration: ConfigurationStatus,
}

/// What a core is made of.
pub struct Parts {
    /// The configured policies.
    pub policies: BTreeMap<String, Policy>,
    /// How long an accepted connection may stay without a session.
    pub pre_authentication_timeout: Duration,
    /// The pinned maps.
    pub maps: Maps,
    /// Ends sockets.
    pub resetter: Resetter,
    /// Takes records.
    pub audit: AuditSink,
    /// Remembers sessions.
    pub store: StoreHandle,
}

impl Core {
    /// A core without sessions.
    pub fn new(parts: Parts) -> Self {
        let losses = parts.maps.stats();
        Self {
            policies: parts.policies,
            pre_authentication_timeout: parts.pre_authentication_timeout,
            maps: parts.maps,
            resetter: parts.resetter,
            audit: Recorder::new(parts.audit),
            alerts: Alerts::default(),
            canary: Canary::default(),
            metrics_address: None,
            store: parts.store,
            gateways: Gateways::default(),
            queue: DeadlineQueue::new(),
            book: Book::default(),
            unbound: HashMap::new(),
            owners: HashMap::new(),
            ending: HashMap::new(),
            stuck: HashMap::new(),
            listings: Listings::default(),
            exports: Exports::default(),
            losses,
            purged_at: BootInstant::from_nanos(0),
            retired_issuers: BTreeSet::new(),
            revoked_certificates: HashSet::new(),
            configuration: ConfigurationStatus::default(),
        }
    }

    /// Watches what happens as the configuration says: detectors, alerts, canaries, the
    /// metrics address.
    pub fn monitor(&mut self, config: &Config, now: Now) {
        let idle_timeouts = config
            .policies
            .iter()
            .filter_map(|(name, policy)| Some((name.clone(), policy.limits.idle_timeout?)));
        let monitoring = &config.monitoring;
        let detectors = Detectors::new(monitoring.detectors.clone(), idle_timeouts.collect());
        self.audit.detect_with(detectors);
        self.canary.schedule(monitoring.canary_interval, now.boot);
        self.metrics_address = monitoring.metrics_address;
        self.open_alerts(config);
    }

    /// When the alarm is to ring next.
    pub fn next_alarm(&self) -> Option<BootInstant> {
        self.queue.next_at()
    }

    /// The alarm rang: does all that is due.
    pub fn on_alarm(&mut self, now: Now) {
        let mut over = Vec::new();
        while let Some(due) = self.queue.pop_due(now.boot) {
            match due {
                Due::Session(id) => over.extend(self.advance(id, now)),
                Due::PreAuthentication(cookie) => self.end_unauthenticated(cookie, now),
                Due::EndRecord(id) => self.write_end_record(id, now),
            }
        }
        self.cut(over, now);
    }

    /// Does what is to be done with a session now, and sets its next instant. Returns a session
    /// that is over; the caller cuts all of them together.
    pub(super) fn advance(&mut self, id: SessionId, now: Now) -> Option<Over> {
        let payload = self.counted_payload(id);
        let live = self.book.get_mut(id)?;
        if let Some(Dismissal { limit, detail, .. }) = &live.dismissal {
            if now.boot < limit.at {
                self.queue.set(Due::Session(id), limit.at);
                return None;
            }
            return Some(Over {
                id,
                limit: *limit,
                detail: detail.clone(),
            });
        }
        match live.session.advance(now.boot, payload) {
            Step::Wait(until) => self.queue.set(Due::Session(id), until),
            Step::Warn(limit) => {
                let deadline = live.session.wall_limit(limit.at, now);
                let recorded = live.warned_for.replace(deadline);
                self.gateways.broadcast(ToGateway::Warning {
                    session: id,
                    reason: limit.reason,
                    limit: limit.at,
                });
                // An earlier warden may have.
                if !recorded.is_some_and(|recorded| is_same_end(recorded, deadline)) {
                    let mut record = self.session_record(Event::SessionWarned, id, now);
                    record.deadline = Some(deadline);
                    record.reason = Some(limit.reason.as_str().into());
                    self.audit.write(record);
                    self.save(id, now);
                }
                return self.advance(id, now);
            }
            Step::Farewell(limit) => {
                if live.session.limits.mode == Mode::Enforce {
                    self.gateways.broadcast(ToGateway::Farewell {
                        session: id,
                        reason: limit.reason,
                        limit: limit.at,
                    });
                }
                return self.advance(id, now);
            }
            Step::Observe(limit) => {
                self.record_observed(id, limit, now);
                return self.advance(id, now);
            }
            Step::End(limit) if now.boot < self.canary.reset_at(id, limit.at) => {
                let reset_at = self.canary.reset_at(id, limit.at);
                self.queue.set(Due::Session(id), reset_at);
            }
            Step::End(limit) => match live.session.limits.mode {
                Mode::Enforce => {
                    return Some(Over {
                        id,
                        limit,
                        detail: None,
                    });
                }
                Mode::Observe => self.observe_end(id, limit, now),
            },
        }
        None
    }

    /// A session that is only observed has met its limit: recorded once, and forgotten when its
    /// last connection is gone.
    fn observe_end(&mut self, id: SessionId, limit: Limit, now: Now) {
        let Some(live) = self.book.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut live.observed, true) {
            self.record_observed(id, limit, now);
        }
        if self.book.get(id).is_some_and(|live| live.legs.is_empty()) {
            // Its keys are refused nothing: that would be more than to observe.
            self.book.forget(id);
            self.maps.remove_session(id.as_u64());
            self.store.end(id, Vec::new(), limit.reason, now.wall);
            self.gateways.broadcast(ToGateway::Ended {
                session: id,
                reason: limit.reason,
            });
        }
    }

    fn record_observed(&self, id: SessionId, limit: Limit, now: Now) {
        let mut record = self.session_record(Event::SessionObserved, id, now);
        record.reason = Some(limit.reason.as_str().into());
        record.deadline = Some(now.wall_at(limit.at));
        self.audit.write(record);
    }

    /// The wall clock was set.
    pub fn on_wall_clock_step(&mut self, now: Now) {
        for id in self.book.ids() {
            let Some(live) = self.book.get_mut(id) else {
                continue;
            };
            let before = live.session.deadline();
            let terms = Terms::of_known(&live.session.policies, &self.policies, now.wall);
            let hours_end_at = terms.and_then(|terms| terms.hours_end_at);
            live.session.wall_clock_stepped(hours_end_at, now);
            if live.session.deadline() == before {
                continue;
            }
            if let Err(reason) = self.publish_limits(id, before.reason) {
                self.end(id, reason, now);
                continue;
            }
            self.reschedule(id, now);
            self.audit
                .write(self.session_record(Event::LimitsTightened, id, now));
        }
    }

    /// What is configured is this from now on. Live sessions come under it one by one.
    pub(super) fn adopt(
        &mut self,
        regime: &Regime,
        issuers: &BTreeSet<String>,
        pre_authentication_timeout: Duration,
    ) {
        self.policies.clone_from(&regime.policies);
        self.retired_issuers
            .extend(regime.retired_issuers.iter().cloned());
        self.retired_issuers
            .retain(|issuer| !issuers.contains(issuer));
        self.pre_authentication_timeout = pre_authentication_timeout;
        let control = abi::Control {
            pre_authentication_timeout_ns: u64::try_from(pre_authentication_timeout.as_nanos())
                .unwrap_or(u64::MAX),
            ..self.maps.control()
        };
        if let Err(error) = self.maps.set_control(control) {
            tracing::error!("pre_authentication_timeout stays as it was: {error}");
        }
    }

    /// Sets the instant at which the session is looked at next.
    pub(super) fn reschedule(&mut self, id: SessionId, now: Now) {
        // Looked at at once: `advance` knows the next instant.
        self.queue.set(Due::Session(id), now.boot);
    }

    /// What the kernel has seen of a session.
    pub(super) fn activity(&self, id: SessionId) -> abi::Activity {
        self.maps.activity(id.as_u64()).unwrap_or_default()
    }

    /// The last payload of the session's client, if there was any.
    pub(super) fn last_payload(&self, id: SessionId) -> Option<BootInstant> {
        payload_instant(&self.activity(id))
    }

    /// The same, where a limit of the session depends on it: other sessions are spared the look
    /// into the map.
    fn counted_payload(&self, id: SessionId) -> Option<BootInstant> {
        let counts = self.book.get(id)?.session.counts_payload();
        counts.then(|| self.last_payload(id)).flatten()
    }

    /// A record that carries the session's id, principal and policies.
    pub(super) fn session_record(&self, event: Event, id: SessionId, now: Now) -> Record {
        let record = Record::new(now.wall, event);
        match self.book.get(id) {
            Some(live) => {
                let mut record = record.of(id, &live.session.principal);
                record.policies.clone_from(&live.session.policies);
                record
            }
            None => record,
        }
    }

    /// What a gateway is told of a session.
    pub(super) fn view(&self, live: &Live) -> SessionView {
        let session = &live.session;
        SessionView {
            id: session.id,
            started_at: session.started_at,
            deadline: session.deadline().at,
            idle_timeout: session.limits.idle_timeout,
            warn_before: session.limits.warn_before,
            enforced: session.limits.mode == Mode::Enforce,
            token_expires_at: session.token_expires_at,
            policies: session.policies.clone(),
        }
    }

    /// Queues for the store when the session ends.
    pub(super) fn save_bounds(&self, id: SessionId, now: Now) {
        let Some(live) = self.book.get(id) else {
            return;
        };
        let session = &live.session;
        self.store.bound(
            id,
            Bounds {
                deadline: session.wall_limit(session.deadline().at, now),
                hours_end_at: session.hours_end_at(),
            },
        );
    }

    /// Queues the session for the store.
    pub(super) fn save(&self, id: SessionId, now: Now) {
        let Some(live) = self.book.get(id).filter(|it| it.dismissal.is_none()) else {
            return;
        };
        let session = &live.session;
        self.store.save(StoredSession {
            id,
            keys: session.keys.clone(),
            principal: session.principal.clone(),
            authorized_party: session.authorized_party.clone(),
            names_session: session.names_session,
            started_at: session.started_at,
            opened_at: live.opened_at,
            deadline: session.wall_limit(session.deadline().at, now),
            token_expires_at: session.token_expires_at,
            signing_key: session.voucher.map(|voucher| voucher.key),
            certificates: session.certificates.clone(),
            policies: session.policies.clone(),
            hours_end_at: session.hours_end_at(),
            first_address: session.first_address,
            last_activity: now.wall_at(session.last_activity()),
            warned_for: live.warned_for,
        });
    }
}

/// Whether two ends are one: translated between clocks that were read at different times, it differs
/// a little.
fn is_same_end(a: WallInstant, b: WallInstant) -> bool {
    a.max(b).saturating_duration_since(a.min(b)) < CLOCK_TOLERANCE
}

/// The client's last payload, if there was any.
pub(super) fn payload_instant(activity: &abi::Activity) -> Option<BootInstant> {
    match activity.last_client_payload_at_ns {
        0 => None,
        nanos => Some(BootInstant::from_nanos(nanos)),
    }
}
