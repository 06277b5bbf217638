//! The canary: at an interval a short session of the daemon's own, on a connection of its own,
//! to see that the kernel cuts it.
//!
//! ```text
//!  warden                                      gateway
//!  a listener on loopback  ---- Canary ------> connects to it, accepts that connection
//!  a session of a second   <-- CanaryReady --- and names its socket
//!  bound to the socket     ---- Opened ------> sends payload both ways, stamped with the time
//!  ..
//!  the limit: the kernel drops
//!  a while later: the reset                    sees it
//!  judges                  <-- CanaryReport -- what came through, how it ended
//! ```
//!
//! The reset is held back on purpose: until then it is the kernel's programs alone that stop
//! payload. No token or certificate leads to the session, so nobody else can use it.

mod verdict;

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

use enforcer_abi as abi;
use serde::{Deserialize, Serialize};

pub use self::verdict::Failure;
use self::verdict::judge;
use super::{
    admin::{GatewayState, Reply},
    core::Core,
    gateways::GatewayId,
    listeners,
    requests::Told,
};
use crate::{
    audit::{Event, Record, rfc3339},
    channel::{BoundRole, CanaryReport, Refusal, SessionView, ToGateway},
    clock::{BootInstant, Now, WallInstant},
    kernel::maps::Endpoints,
    metrics::CanaryResult,
    policy::{ActivityKind, Applied, Limits, Mode, Terms},
    session::{Credential, Principal, Session, SessionId, SessionKey},
};

/// How long the session lives.
const LIFE: Duration = Duration::from_secs(1);
/// How long after its limit the reset is held back.
const HOLD: Duration = Duration::from_millis(250);
/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(6);
/// Issuer, subject and policy in the records of its session.
const ISSUER: &str = "enforcer";
const NAME: &str = "canary";

/// How the last canary went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// When it was over.
    #[serde(with = "rfc3339")]
    pub at: WallInstant,
    /// The kernel cut it as it should.
    pub passed: bool,
    /// How long after it was due the reset reached the client, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_us: Option<u64>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// When canaries run, and how they went.
#[derive(Default)]
pub struct Canary {
    interval: Option<Duration>,
    next_at: Option<BootInstant>,
    running: Option<Running>,
    /// Who asked for it and waits.
    waiting: Vec<Reply<CanaryStatus>>,
    last: Option<CanaryStatus>,
    passed: u64,
    failed: u64,
}

struct Running {
    gateway: GatewayId,
    address: SocketAddr,
    give_up_at: BootInstant,
    session: Option<(SessionId, BootInstant)>,
}

impl Canary {
    /// Runs every `interval` from now on, if there is one.
    pub fn schedule(&mut self, interval: Option<Duration>, now: BootInstant) {
        if self.interval != interval {
            self.interval = interval;
            self.next_at = interval.map(|interval| now.saturating_add(interval));
        }
    }

    /// How the last one went.
    pub fn last(&self) -> Option<&CanaryStatus> {
        self.last.as_ref()
    }

    /// The same, for the figures.
    pub fn last_result(&self) -> Option<CanaryResult> {
        self.last.as_ref().map(|last| CanaryResult {
            at: last.at,
            passed: last.passed,
        })
    }

    /// How many passed and how many failed.
    pub fn runs(&self) -> [u64; 2] {
        [self.passed, self.failed]
    }

    /// Whether the session is the canary's.
    pub fn is(&self, id: SessionId) -> bool {
        self.limit_of(id).is_some()
    }

    /// When the session's sockets are to be reset, which is at its limit for all but the canary's.
    pub fn reset_at(&self, id: SessionId, limit: BootInstant) -> BootInstant {
        match self.limit_of(id) {
            Some(planned) if planned == limit => limit.saturating_add(HOLD),
            _ => limit,
        }
    }

    fn limit_of(&self, id: SessionId) -> Option<BootInstant> {
        let (session, limit) = self.running.as_ref()?.session?;
        (session == id).then_some(limit)
    }
}

impl Core {
    /// Once a second: starts a canary that is due, gives up one that does not end.
    pub(super) fn tend_canary(&mut self, now: Now) {
        if let Some(running) = &self.canary.running {
            if now.boot >= running.give_up_at {
                self.finish_canary(Err(Failure::Silent), now);
            }
            return;
        }
        if self.canary.next_at.is_some_and(|at| now.boot >= at) {
            self.start_canary(now);
        }
    }

    /// Runs one now, or joins the one that runs.
    pub(super) fn canary_wanted(&mut self, reply: Reply<CanaryStatus>, now: Now) {
        self.canary.waiting.push(reply);
        if self.canary.running.is_none() {
            self.start_canary(now);
        }
    }

    fn start_canary(&mut self, now: Now) {
        let interval = self.canary.interval;
        self.canary.next_at = interval.map(|interval| now.boot.saturating_add(interval));
        let serving = self
            .gateways
            .iter()
            .find(|(_, state, _)| *state == GatewayState::Serving);
        let Some((gateway, ..)) = serving else {
            return self.finish_canary(Err(Failure::NoGateway), now);
        };
        match listeners::loopback() {
            Ok((listener, address)) => self.send_canary(gateway, listener, address, now),
            Err(error) => self.finish_canary(Err(Failure::Socket(error.to_string())), now),
        }
    }

    fn send_canary(
        &mut self,
        gateway: GatewayId,
        listener: OwnedFd,
        address: SocketAddr,
        now: Now,
    ) {
        self.canary.running = Some(Running {
            gateway,
            address,
            give_up_at: now.boot.saturating_add(TIMEOUT),
            session: None,
        });
        self.gateways
            .send_with_fds(gateway, ToGateway::Canary, vec![listener]);
    }

    /// The gateway has connected: opens the session, for this connection and no other.
    pub(super) fn open_canary(
        &mut self,
        from: GatewayId,
        cookie: u64,
        now: Now,
    ) -> Result<SessionView, Refusal> {
        let Some(running) = &self.canary.running else {
            return Err(Refusal::NoSession);
        };
        let connection = self.maps.connection(cookie);
        let ours = running.gateway == from
            && running.session.is_none()
            && connection.is_some_and(|connection: abi::Connection| {
                Endpoints::of(&connection).canonical().local == running.address
            });
        if !ours {
            return Err(Refusal::UnbindableSocket);
        }
        self.bindable(cookie, BoundRole::Client, None, now)?;
        let id = self.new_id()?;
        let session = Session::open(id, &credential(now)?, &terms(), None, now)
            .map_err(|_| Refusal::Unavailable)?;
        let limit = session.deadline().at;
        self.insert(session, now)?;
        if let Some(running) = &mut self.canary.running {
            running.session = Some((id, limit));
        }
        self.bind(cookie, id, BoundRole::Client, Told::default(), now)?;
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        Ok(self.view(live))
    }

    /// The gateway says how it went.
    pub(super) fn on_canary_report(&mut self, from: GatewayId, report: &CanaryReport, now: Now) {
        let Some(running) = &self.canary.running else {
            return;
        };
        if running.gateway != from {
            return;
        }
        let result = match running.session {
            Some((_, limit)) => judge(limit, limit.saturating_add(HOLD), report),
            None => Err(Failure::NotOpened),
        };
        self.finish_canary(result, now);
    }

    fn finish_canary(&mut self, result: Result<Duration, Failure>, now: Now) {
        let session = self.canary.running.take().and_then(|run| run.session);
        let lateness_us = result
            .as_ref()
            .ok()
            .map(|lateness| u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX));
        let event = match result {
            Ok(_) => Event::CanaryPassed,
            Err(_) => Event::CanaryFailed,
        };
        let mut record = Record::new(now.wall, event);
        record.session = session.map(|(id, _)| id);
        record.reset_lateness_us = lateness_us;
        if let Err(failure) = &result {
            record = record.because(failure.code());
            record.detail = Some(failure.to_string());
            self.canary.failed += 1;
        } else {
            self.canary.passed += 1;
        }
        self.audit.write(record);
        let status = CanaryStatus {
            at: now.wall,
            passed: result.is_ok(),
            lateness_us,
            failure: result.err().map(|failure| failure.to_string()),
        };
        for waiting in self.canary.waiting.drain(..) {
            // Who asked may have left.
            let _ = waiting.send(status.clone());
        }
        self.canary.last = Some(status);
    }
}

/// Nothing leads to it but its random key, which nobody is told.
fn credential(now: Now) -> Result<Credential, Refusal> {
    let mut key = [0; 32];
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
        .map_err(|_| Refusal::Unavailable)?;
    Ok(Credential {
        principal: Principal {
            issuer: ISSUER.to_owned(),
            subject: NAME.to_owned(),
        },
        key: SessionKey::from_bytes(key),
        names_session: true,
        authorized_party: None,
        authenticated_at: None,
        expires_at: now.wall.saturating_add(TIMEOUT),
        assumed_expiry: false,
        signing_key: None,
        certificate: None,
    })
}

fn terms() -> Terms<'static> {
    Terms {
        policies: vec![NAME.to_owned()].into(),
        applied: Applied::alone(&Limits {
            max_session: LIFE,
            idle_timeout: None,
            warn_before: Duration::ZERO,
            farewell: Duration::ZERO,
            activity: ActivityKind::Application,
            mode: Mode::Enforce,
            max_connections: None,
            sessions_per_subject: None,
            bind_network: None,
        }),
        hours_end_at: None,
    }
}
