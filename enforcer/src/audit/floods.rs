//! Records that anybody can cause, without a credential, as often as they like: of each kind from
//! each address a few are written as they are, and what follows within the minute becomes one
//! record with a count. Otherwise a client could fill the disk, or push out of the log what it did.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{Event, Record};
use crate::clock::BootInstant;

/// Records of a kind and address that are written as they are.
const BURST: u32 = 20;
/// In how long.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds and addresses that are told apart; the rest is counted together.
const MOST_KINDS: usize = 4_096;
/// Reasons that are longer are none of ours.
const LONGEST_REASON: usize = 64;

/// Whether anybody can cause such a record.
pub(super) fn is_anybodys(record: &Record) -> bool {
    match record.event {
        Event::SessionRefused => true,
        Event::ConnectionClosed => record.reason.as_deref() == Some("unauthenticated"),
        Event::Violation => record.reason.as_deref() == Some("pre_authentication_timeout"),
        _ => false,
    }
}

/// What makes records alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    event: Event,
    reason: String,
    /// The address, of IPv6 the /64; none if there are too many.
    network: Option<IpAddr>,
    subject: Option<String>,
}

impl Kind {
    fn of(record: &Record) -> Self {
        let reason = record.reason.as_deref().unwrap_or_default();
        let fits = reason.len() <= LONGEST_REASON;
        Self {
            event: record.event,
            reason: if fits { reason } else { "" }.to_owned(),
            network: record.client.map(|client| network(client.ip())),
            subject: record.subject.clone(),
        }
    }

    fn of_anybody(self) -> Self {
        Self {
            network: None,
            subject: None,
            ..self
        }
    }
}

/// One client has at least a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[derive(Debug)]
struct Window {
    ends_at: BootInstant,
    written: u32,
    /// The last one that was not written, with how many there were before it.
    held: Option<(Record, u64)>,
}

/// Counts what comes too often.
#[derive(Debug, Default)]
pub(super) struct Floods {
    windows: HashMap<Kind, Window>,
}

impl Floods {
    /// The record, unless it came too often and is counted instead.
    pub(super) fn admit(&mut self, record: Record, now: BootInstant) -> Option<Record> {
        if !is_anybodys(&record) {
            return Some(record);
        }
        let mut kind = Kind::of(&record);
        if self.windows.len() >= MOST_KINDS && !self.windows.contains_key(&kind) {
            kind = kind.of_anybody();
        }
        let window = self.windows.entry(kind).or_insert_with(|| Window {
            ends_at: now.saturating_add(WINDOW),
            written: 0,
            held: None,
        });
        if window.written < BURST {
            window.written += 1;
            return Some(record);
        }
        let before = window.held.take().map_or(0, |(_, before)| before + 1);
        window.held = Some((record, before));
        None
    }

    /// The records that stand for what was counted in windows that are over.
    pub(super) fn take_due(&mut self, now: BootInstant) -> Vec<Record> {
        self.take(|window| window.ends_at <= now)
    }

    /// The same for all windows.
    pub(super) fn take_all(&mut self) -> Vec<Record> {
        self.take(|_| true)
    }

    fn take(&mut self, over: impl Fn(&Window) -> bool) -> Vec<Record> {
        let ended = self.windows.extract_if(|_, window| over(window));
        let mut records: Vec<_> = ended.filter_map(|(_, window)| window.held).collect();
        records.sort_by_key(|(record, _)| record.time);
        records
            .into_iter()
            .map(|(mut record, before)| {
                record.repeated = (before > 0).then_some(before);
                record
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallInstant;

    const START: BootInstant = BootInstant::from_nanos(0);

    fn refused(address: &str, reason: &'static str) -> Record {
        let time = WallInstant::from_unix_seconds(0);
        let mut record = Record::new(time, Event::SessionRefused).because(reason);
        record.client = Some((address.parse::<IpAddr>().unwrap(), 1).into());
        record
    }

    #[test]
    fn what_comes_too_often_becomes_one_record_with_a_count() {
        let mut floods = Floods::default();
        let mut written = 0;
        for _ in 0..1_000 {
            written += u32::from(floods.admit(refused("192.0.2.1", "a"), START).is_some());
        }
        assert_eq!(written, BURST);
        assert!(floods.admit(refused("192.0.2.1", "b"), START).is_some());
        assert!(floods.admit(refused("192.0.2.2", "a"), START).is_some());
        assert_eq!(floods.take_due(START), []);
        let due = floods.take_due(START.saturating_add(WINDOW));
        assert_eq!(due.len(), 1);
        let stands_for = u64::from(BURST) + 1 + due[0].repeated.unwrap();
        assert_eq!(stands_for, 1_000);
        assert!(floods.admit(refused("192.0.2.1", "a"), START).is_some());
    }

    #[test]
    fn a_client_with_a_network_of_ipv6_is_one_and_so_are_too_many_clients() {
        let mut floods = Floods::default();
        let admitted = |floods: &mut Floods, address: &str| {
            floods.admit(refused(address, "a"), START).is_some()
        };
        for host in 0..BURST {
            assert!(admitted(&mut floods, &format!("2001:db8::{host:x}")));
        }
        assert!(!admitted(&mut floods, "2001:db8::ffff"));
        assert!(admitted(&mut floods, "2001:db8:0:1::1"));
        let mut written = 0;
        for number in 0..100_000_u32 {
            let address = std::net::Ipv4Addr::from(number).to_string();
            written += usize::from(admitted(&mut floods, &address));
        }
        assert!(written <= MOST_KINDS + BURST as usize, "{written}");
        assert!(floods.windows.len() <= MOST_KINDS + 1);
    }

    #[test]
    fn what_sessions_do_is_always_written() {
        let mut floods = Floods::default();
        for _ in 0..1_000 {
            let ended = Record::new(WallInstant::from_unix_seconds(0), Event::SessionEnded);
            assert!(floods.admit(ended, START).is_some());
        }
        assert_eq!(floods.take_all(), []);
    }
}
