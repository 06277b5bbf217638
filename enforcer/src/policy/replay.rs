//! Recorded sessions under other limits: what would have ended, and how often people would have had
//! to log in again. Pure.
//!
//! Modes are left aside: to enforce or not is what the answer is to help with.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Applied, Limits, Mode, Policy};
use crate::{
    audit::{Event, Record},
    clock::WallInstant,
    session::{IdleGaps, SessionId, class, class_begin},
};

/// Timeouts that people choose from.
const IDLE_TIMEOUTS: [Duration; 8] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(4 * 3600),
];

/// A session as the audit records tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// Names of the policies that applied.
    pub policies: Vec<String>,
    /// How long it has lasted.
    pub lasted: Duration,
    /// Why it ended, if it has.
    pub reason: Option<String>,
    /// Its client's pauses.
    pub gaps: IdleGaps,
}

/// Puts records together to sessions. Those that live on last until `now`.
pub fn collect(records: impl IntoIterator<Item = Record>, now: WallInstant) -> Vec<Recorded> {
    let mut live: HashMap<SessionId, (Option<WallInstant>, Recorded)> = HashMap::new();
    let mut sessions = Vec::new();
    for record in records {
        let Some(id) = record.session else {
            continue;
        };
        match record.event {
            Event::SessionOpened
            | Event::SessionRenewed
            | Event::SessionActivity
            | Event::SessionEnded => {}
            _ => continue,
        }
        let (opened_at, session) = live.entry(id).or_default();
        if record.event == Event::SessionOpened {
            *opened_at = Some(record.time);
        }
        if !record.policies.is_empty() {
            session.policies = record.policies;
        }
        if let Some(gaps) = &record.idle_gaps {
            session.gaps.extend(gaps);
        }
        if record.event == Event::SessionEnded
            && let Some((_, mut ended)) = live.remove(&id)
        {
            ended.lasted = Duration::from_millis(record.duration_ms.unwrap_or(0));
            ended.reason = record.reason.map(Into::into);
            sessions.push(ended);
        }
    }
    let living = live.into_values().map(|(opened_at, session)| Recorded {
        lasted: opened_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
        ..session
    });
    sessions.extend(living);
    sessions
}

/// What other limits would have meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// All of them.
    pub total: Tally,
    /// By the policies that applied.
    pub by_policy: BTreeMap<String, Tally>,
    /// Sessions of policies that the configuration does not have: they are in no other number.
    pub without_policy: usize,
    /// The pauses by length.
    pub idle_gaps: Vec<GapClass>,
    /// What some idle timeouts would mean.
    pub idle_timeouts: Vec<TimeoutChoice>,
}

/// Sessions, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Recorded.
    pub sessions: usize,
    /// Would have been cut before they ended.
    pub cut: usize,
    /// Of these, at the idle timeout first.
    pub cut_idle: usize,
    /// Of these, at `max_session` first.
    pub cut_max_session: usize,
    /// Would have had to be opened again, all in all, at most.
    pub logins_again: u64,
    /// Ended at a limit that would be later: how long they would have gone on nobody knows.
    pub longer: usize,
}

/// Pauses of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapClass {
    /// From here on, in seconds.
    pub from_seconds: u64,
    /// How many.
    pub gaps: u64,
    /// Sessions with one as long or longer.
    pub sessions: usize,
}

/// What an idle timeout would mean, other limits aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutChoice {
    /// The timeout, in seconds.
    pub idle_timeout_seconds: u64,
    /// Sessions that it would have cut while their client came back later.
    pub sessions: usize,
    /// How often people would have had to log in again, at most.
    pub logins_again: u64,
}

/// Runs sessions against policies.
pub fn replay(sessions: &[Recorded], policies: &BTreeMap<String, Policy>) -> Replay {
    let mut replay = Replay {
        idle_gaps: gap_classes(sessions),
        idle_timeouts: IDLE_TIMEOUTS
            .map(|timeout| choice(sessions, timeout))
            .to_vec(),
        ..Replay::default()
    };
    for session in sessions {
        let names = session.policies.iter();
        let limits = names.filter_map(|name| Some(enforced(&policies.get(name)?.limits)));
        let Some(applied) = Applied::of(&limits.collect::<Vec<_>>()) else {
            replay.without_policy += 1;
            continue;
        };
        let names = session.policies.join(",");
        replay.total.count(session, &applied.limits);
        let tally = replay.by_policy.entry(names).or_default();
        tally.count(session, &applied.limits);
    }
    replay
}

fn enforced(limits: &Limits) -> Limits {
    Limits {
        mode: Mode::Enforce,
        ..limits.clone()
    }
}

impl Tally {
    fn count(&mut self, session: &Recorded, limits: &Limits) {
        self.sessions += 1;
        let old = (session.lasted > limits.max_session).then_some(limits.max_session);
        let idle = limits
            .idle_timeout
            .and_then(|timeout| idle_cut(session, timeout));
        match (idle, old) {
            (Some(idle), Some(old)) if old <= idle => self.cut_max_session += 1,
            (Some(_), _) => self.cut_idle += 1,
            (None, Some(_)) => self.cut_max_session += 1,
            (None, None) => {}
        }
        if idle.is_some() || old.is_some() {
            self.cut += 1;
        }
        let ages = session.lasted.as_nanos() / limits.max_session.as_nanos().max(1);
        let pauses = limits
            .idle_timeout
            .map_or(0, |timeout| session.gaps.longer_than(timeout));
        self.logins_again += pauses.saturating_add(u64::try_from(ages).unwrap_or(u64::MAX));
        let longer = match session.reason.as_deref() {
            Some("idle") => limits
                .idle_timeout
                .is_none_or(|timeout| timeout > Duration::from_millis(session.gaps.last_ms)),
            Some("deadline") => limits.max_session > session.lasted,
            _ => false,
        };
        self.longer += usize::from(longer);
    }
}

/// How long after its opening an idle timeout would have cut a session.
fn idle_cut(session: &Recorded, timeout: Duration) -> Option<Duration> {
    let last = Duration::from_millis(session.gaps.last_ms);
    let begin = match session.gaps.first_longer_than(timeout) {
        Some(gap) => Duration::from_millis(gap.began_ms),
        None if last > timeout => session.lasted.saturating_sub(last),
        None => return None,
    };
    Some(begin.saturating_add(timeout))
}

fn gap_classes(sessions: &[Recorded]) -> Vec<GapClass> {
    let mut gaps: BTreeMap<u8, u64> = BTreeMap::new();
    let mut longest: BTreeMap<u8, usize> = BTreeMap::new();
    for session in sessions.iter().filter(|session| !session.gaps.is_empty()) {
        for (class, count) in &session.gaps.classes {
            *gaps.entry(*class).or_default() += u64::from(*count);
        }
        let last = class(Duration::from_millis(session.gaps.longest_ms()));
        *longest.entry(last).or_default() += 1;
    }
    let classes = gaps.iter().map(|(class, gaps)| GapClass {
        from_seconds: class_begin(*class).as_secs(),
        gaps: *gaps,
        sessions: longest.range(class..).map(|(_, sessions)| sessions).sum(),
    });
    classes.collect()
}

fn choice(sessions: &[Recorded], timeout: Duration) -> TimeoutChoice {
    let gaps = sessions.iter().map(|session| &session.gaps);
    let returning = gaps.filter(|gaps| gaps.first_longer_than(timeout).is_some());
    let (mut sessions, mut logins_again) = (0, 0);
    for gaps in returning {
        sessions += 1;
        logins_again += gaps.longer_than(timeout);
    }
    TimeoutChoice {
        idle_timeout_seconds: timeout.as_secs(),
        sessions,
        logins_again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::plain, session::Principal};

    fn at(seconds: i64) -> WallInstant {
        WallInstant::from_unix_seconds(seconds)
    }

    fn record(seconds: i64, event: Event, session: u64) -> Record {
        let who = Principal {
            issuer: "iss".to_owned(),
            subject: "alice".to_owned(),
        };
        let id = SessionId::from_u64(session).unwrap();
        let mut record = Record::new(at(seconds), event).of(id, &who);
        record.policies = vec!["p".to_owned()];
        record
    }

    fn gaps(opened: &[(u64, u64)], last: u64) -> Option<IdleGaps> {
        let mut gaps = IdleGaps::default();
        for (began, lasted) in opened {
            let ended = Duration::from_secs(began + lasted);
            gaps.note(ended, Duration::from_secs(*lasted));
        }
        gaps.last_ms = last * 1_000;
        Some(gaps)
    }

    fn policies(max_session: u64, idle_timeout: Option<u64>) -> BTreeMap<String, Policy> {
        let limits = Limits {
            max_session: Duration::from_secs(max_session),
            idle_timeout: idle_timeout.map(Duration::from_secs),
            mode: Mode::Observe,
            ..plain()
        };
        BTreeMap::from([("p".to_owned(), Policy::from(limits))])
    }

    /// One that paused twice and was closed while idle, one that was busy and met its deadline, one
    /// that lives, and one of a policy that is gone.
    fn sessions() -> Vec<Recorded> {
        let mut records = vec![
            record(0, Event::SessionOpened, 1),
            record(0, Event::SessionOpened, 2),
            record(100, Event::SessionOpened, 3),
            record(0, Event::SessionOpened, 4),
            record(50, Event::ConnectionOpened, 1),
        ];
        let mut part = record(2_000, Event::SessionActivity, 1);
        part.idle_gaps = gaps(&[(100, 400)], 0);
        let mut ended = record(4_000, Event::SessionEnded, 1);
        ended.idle_gaps = gaps(&[(2_000, 900)], 1_000);
        ended.duration_ms = Some(4_000_000);
        ended.reason = Some("idle".into());
        let mut busy = record(3_600, Event::SessionEnded, 2);
        busy.idle_gaps = gaps(&[(0, 30)], 2);
        busy.duration_ms = Some(3_600_000);
        busy.reason = Some("deadline".into());
        let mut gone = record(10, Event::SessionEnded, 4);
        gone.policies = vec!["gone".to_owned()];
        gone.duration_ms = Some(10_000);
        records.extend([part, ended, busy, gone]);
        collect(records, at(1_100))
    }

    #[test]
    fn records_become_sessions() {
        let sessions = sessions();
        assert_eq!(sessions.len(), 4);
        let lasted: Vec<_> = sessions.iter().map(|s| s.lasted.as_secs()).collect();
        assert_eq!(lasted, [4_000, 3_600, 10, 1_000]);
        assert_eq!(sessions[0].gaps.longest.len(), 2);
        assert_eq!(sessions[0].gaps.last_ms, 1_000_000);
        assert_eq!(sessions[3].reason, None);
    }

    #[test]
    fn an_idle_timeout_cuts_those_who_paused_for_longer() {
        let replayed = |idle| replay(&sessions(), &policies(100_000, Some(idle)));
        let short = replayed(300);
        assert_eq!((short.total.sessions, short.without_policy), (3, 1));
        assert_eq!((short.total.cut, short.total.cut_idle), (1, 1));
        assert_eq!(short.total.logins_again, 2);
        assert_eq!(short.total.longer, 1, "the one with the deadline");
        let middle = replayed(500);
        assert_eq!((middle.total.cut, middle.total.logins_again), (1, 1));
        let at_the_end = replayed(950);
        assert_eq!(
            (at_the_end.total.cut, at_the_end.total.logins_again),
            (1, 0)
        );
        let long = replayed(1_001);
        assert_eq!((long.total.cut, long.total.longer), (0, 2));
        assert_eq!(long.by_policy["p"], long.total);
    }

    #[test]
    fn max_session_cuts_those_who_stayed_for_longer() {
        let replayed = replay(&sessions(), &policies(1_500, Some(2_000)));
        assert_eq!((replayed.total.cut, replayed.total.cut_max_session), (2, 2));
        assert_eq!(replayed.total.logins_again, 4);
        // Whichever comes first.
        let idle_first = replay(&sessions(), &policies(1_500, Some(300)));
        assert_eq!(
            (idle_first.total.cut_idle, idle_first.total.cut_max_session),
            (1, 1)
        );
    }

    #[test]
    fn pauses_are_shown_by_length() {
        let replayed = replay(&sessions(), &policies(1, None));
        let shown: Vec<_> = replayed
            .idle_gaps
            .iter()
            .map(|class| (class.from_seconds, class.gaps, class.sessions))
            .collect();
        assert_eq!(shown, [(22, 1, 2), (362, 1, 1), (724, 1, 1)]);
        let choices: Vec<_> = replayed
            .idle_timeouts
            .iter()
            .map(|choice| {
                (
                    choice.idle_timeout_seconds,
                    choice.sessions,
                    choice.logins_again,
                )
            })
            .take(4)
            .collect();
        assert_eq!(choices, [(60, 1, 2), (300, 1, 2), (600, 1, 1), (900, 0, 0)]);
    }
}
