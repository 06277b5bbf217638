//! Detectors: what in the records deserves somebody's attention. Pure: records in, alerts out.
//!
//! | detector | alert when |
//! | --- | --- |
//! | `refresh_storm` | a session is renewed `threshold` times within `window` |
//! | `idle_return` | a session that was idle past `threshold` percent of its idle timeout gets a connection from a network that its principal has not used within `window` |
//! | `address_burst` | an address causes `threshold` refusals and expiries within `window` |
//! | `many_networks` | a principal connects from `threshold` networks within `window` |
//! | `ended_token` | tokens of a principal whose sessions have ended are used `threshold` times within `window` |
//! | `clock_skew` | `threshold` tokens of an issuer are not valid yet within `window` |
//!
//! After an alert a detector is silent about the same key for its `window`. What is remembered is
//! bounded: of the keys that don't fit, those that were not heard of lately are forgotten.

mod burst;
mod networks;
mod settings;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use quick_cache::unsync::Cache;

pub use self::settings::{DetectorKind, DetectorSettings};
use self::{
    burst::Burst,
    networks::{Networks, network},
};
use super::{ConnectionRole, Event, Record};
use crate::{
    clock::WallInstant,
    session::{Principal, SessionId},
};

/// Keys that a detector remembers.
const KEYS: usize = 10_000;

/// Refusals that are not the client's doing.
const OUR_FAULTS: [&str; 5] = [
    "capacity",
    "internal",
    "unavailable",
    "unbindable_socket",
    "unknown_policy",
];

/// Something that deserves attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Who found it.
    pub detector: DetectorKind,
    /// What, in words.
    pub detail: String,
    /// The record that completed it.
    cause: Record,
}

impl Alert {
    /// The alert as a record of its own.
    pub fn into_record(self) -> Record {
        let mut record = Record::new(self.cause.time, Event::Alert).because(self.detector.as_str());
        record.client = origin(&self.cause);
        record.detail = Some(self.detail);
        record.session = self.cause.session;
        record.issuer = self.cause.issuer;
        record.subject = self.cause.subject;
        record.listener = self.cause.listener;
        record
    }
}

/// All detectors.
pub struct Detectors {
    settings: BTreeMap<DetectorKind, DetectorSettings>,
    idle_timeouts: BTreeMap<String, Duration>,
    renewals: Burst<SessionId>,
    addresses: Burst<std::net::IpAddr>,
    ended: Burst<Principal>,
    skew: Burst<String>,
    networks: Networks,
    familiar: Networks,
    /// Where the connections of sessions come from.
    origins: Cache<SessionId, SocketAddr>,
}

impl Detectors {
    /// Detectors that have seen nothing. `idle_timeouts` are those of the policies; a detector
    /// without settings is off.
    pub fn new(
        settings: BTreeMap<DetectorKind, DetectorSettings>,
        idle_timeouts: BTreeMap<String, Duration>,
    ) -> Self {
        Self {
            settings,
            idle_timeouts,
            renewals: Burst::new(KEYS),
            addresses: Burst::new(KEYS),
            ended: Burst::new(KEYS),
            skew: Burst::new(KEYS),
            networks: Networks::new(KEYS),
            familiar: Networks::new(KEYS),
            origins: Cache::new(KEYS),
        }
    }

    /// Looks at a record, at `now`.
    pub fn observe(&mut self, record: &Record, now: WallInstant) -> Vec<Alert> {
        let found = match record.event {
            Event::SessionRenewed => vec![self.refresh_storm(record, now)],
            Event::SessionRefused => vec![
                self.ended_token(record, now),
                self.clock_skew(record, now),
                self.address_burst(record, origin(record), now),
            ],
            Event::SessionEnded => vec![self.expiry(record, now)],
            Event::ConnectionOpened if record.role == Some(ConnectionRole::Client) => {
                if let (Some(session), Some(origin)) = (record.session, origin(record)) {
                    self.origins.insert(session, origin);
                }
                vec![
                    self.idle_return(record, now),
                    self.many_networks(record, now),
                ]
            }
            _ => Vec::new(),
        };
        let found = found.into_iter().flatten();
        found
            .map(|(detector, detail)| Alert {
                detector,
                detail,
                cause: record.clone(),
            })
            .collect()
    }

    fn refresh_storm(&mut self, record: &Record, now: WallInstant) -> Option<Found> {
        let settings = self.settings.get(&DetectorKind::RefreshStorm)?;
        self.renewals
            .count(record.session?, settings, now)
            .then(|| {
                let what = "the session was renewed";
                found(DetectorKind::RefreshStorm, what, settings)
            })
    }

    fn ended_token(&mut self, record: &Record, now: WallInstant) -> Option<Found> {
        let settings = self.settings.get(&DetectorKind::EndedToken)?;
        let ended = record.reason.as_deref() == Some("session_ended");
        let principal = principal(record).filter(|_| ended)?;
        self.ended.count(principal, settings, now).then(|| {
            let what = "tokens of ended sessions were used";
            found(DetectorKind::EndedToken, what, settings)
        })
    }

    fn clock_skew(&mut self, record: &Record, now: WallInstant) -> Option<Found> {
        let settings = self.settings.get(&DetectorKind::ClockSkew)?;
        let early = record.reason.as_deref() == Some("token_not_yet_valid");
        let issuer = record.issuer.clone().filter(|_| early)?;
        self.skew.count(issuer, settings, now).then(|| {
            let what = "the issuer's clock or this host's is wrong: tokens were not valid yet";
            let (detector, mut detail) = found(DetectorKind::ClockSkew, what, settings);
            if let Some(last) = &record.detail {
                detail = format!("{detail}; the last: {last}");
            }
            (detector, detail)
        })
    }

    /// Ends that nobody asked for.
    fn expiry(&mut self, record: &Record, now: WallInstant) -> Option<Found> {
        let expired = matches!(
            record.reason.as_deref(),
            Some("deadline" | "idle" | "token" | "hours")
        );
        let origin = self
            .origins
            .get(&record.session.filter(|_| expired)?)
            .copied();
        self.address_burst(record, origin, now)
    }

    fn address_burst(
        &mut self,
        record: &Record,
        origin: Option<SocketAddr>,
        now: WallInstant,
    ) -> Option<Found> {
        let settings = self.settings.get(&DetectorKind::AddressBurst)?;
        let ours = record
            .reason
            .as_deref()
            .is_some_and(|reason| OUR_FAULTS.contains(&reason));
        let address = origin.filter(|_| !ours)?.ip();
        self.addresses.count(address, settings, now).then(|| {
            let what = format!("refusals and expiries of {address}");
            found(DetectorKind::AddressBurst, &what, settings)
        })
    }

    fn many_networks(&mut self, record: &Record, now: WallInstant) -> Option<Found> {
        let settings = self.settings.get(&DetectorKind::ManyNetworks)?;
        let network = network(origin(record)?.ip());
        let seen = self
            .networks
            .visit(principal(record)?, network, settings, now);
        let many = seen.len() as u64 >= u64::from(settings.threshold);
        (many && self.networks.may_speak(&principal(record)?, settings, now)).then(|| {
            let list: Vec<_> = seen.iter().map(ToString::to_string).collect();
            let window = humantime::format_duration(settings.window);
            let detail = format!("connections from {} within {window}", list.join(", "));
            (DetectorKind::ManyNetworks, detail)
        })
    }

    fn idle_return(&mut self, record: &Record, now: WallInstant) -> Option<Found> {
        let settings = self.settings.get(&DetectorKind::IdleReturn)?;
        let principal = principal(record)?;
        let network = network(origin(record)?.ip());
        let familiar = self.familiar.knows(&principal, network, settings, now);
        let had_any = self.familiar.knows_any(&principal);
        self.familiar.visit(principal, network, settings, now);
        let timeouts = record.policies.iter();
        let idle_timeout = timeouts
            .filter_map(|name| self.idle_timeouts.get(name))
            .min()?;
        let idle = Duration::from_millis(record.idle_ms?);
        let long =
            idle.as_millis() * 100 >= idle_timeout.as_millis() * u128::from(settings.threshold);
        (long && had_any && !familiar).then(|| {
            let (idle, limit) = (
                whole_seconds(idle),
                humantime::format_duration(*idle_timeout),
            );
            let detail =
                format!("back from the unfamiliar network {network} after {idle} idle, of {limit}");
            (DetectorKind::IdleReturn, detail)
        })
    }
}

type Found = (DetectorKind, String);

fn found(detector: DetectorKind, what: &str, settings: &DetectorSettings) -> Found {
    let window = humantime::format_duration(settings.window);
    let detail = format!("{what}: {} within {window}", settings.threshold);
    (detector, detail)
}

fn principal(record: &Record) -> Option<Principal> {
    Some(Principal {
        issuer: record.issuer.clone()?,
        subject: record.subject.clone()?,
    })
}

/// Where a client is, behind its proxy if there is one.
fn origin(record: &Record) -> Option<SocketAddr> {
    record.proxied_client.or(record.client)
}

fn whole_seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}
