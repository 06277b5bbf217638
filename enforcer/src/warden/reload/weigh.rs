//! What a configuration means for a session that lives already. Pure: telling beforehand and
//! applying are the same function.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    clock::{BootInstant, Now},
    policy::{Mode, Policy, Terms},
    session::{Course, EndReason, Limit, Session},
};

/// What of a configuration concerns sessions.
#[derive(Clone, Debug, Default)]
pub struct Regime {
    /// The policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// Issuers whose sessions live and that are configured no longer.
    pub retired_issuers: BTreeSet<String>,
}

impl Regime {
    /// Whether sessions that live under `policies` can be concerned at all.
    pub fn concerns(&self, policies: &BTreeMap<String, Policy>) -> bool {
        self.policies != *policies || !self.retired_issuers.is_empty()
    }

    /// Whether what the kernel sees of clients' payload matters under it.
    pub fn counts_payload(&self) -> bool {
        let mut policies = self.policies.values();
        policies.any(|policy| policy.limits.count_payload())
    }
}

/// What becomes of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing.
    Unchanged,
    /// Other limits.
    Relimited {
        /// Where they put its end.
        course: Box<Course>,
        /// Which way its end moves.
        moved: Moved,
    },
    /// It ends at once.
    Cut(Why),
}

/// Which way the end of a session moves, as things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// To an earlier instant.
    Earlier,
    /// To a later one, or away.
    Later,
    /// It stays; something else of its limits has changed.
    Not,
}

/// Why a configuration ends a session at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its issuer is not in the configuration any more.
    Issuer,
    /// None of its policies is.
    Policies,
    /// It is older than the new `max_session`.
    Old,
    /// It has been idle for longer than the new `idle_timeout`.
    Idle,
    /// It is outside the new hours.
    Hours,
}

impl Why {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "its issuer is no longer configured",
            Self::Policies => "none of its policies is configured any more",
            Self::Old => "it is older than max_session",
            Self::Idle => "it has been idle for longer than idle_timeout",
            Self::Hours => "it is outside the hours",
        }
    }
}

/// What `regime` makes of a session. `payload` is its client's last payload, as the kernel saw it.
///
/// A policy that is no longer configured leaves the others; it stays noted with the session, in
/// case it comes back.
pub fn weigh(session: &Session, regime: &Regime, payload: Option<BootInstant>, now: Now) -> Change {
    if regime.retired_issuers.contains(&session.principal.issuer) {
        return Change::Cut(Why::Issuer);
    }
    let Some(terms) = Terms::of_known(&session.policies, &regime.policies, now.wall) else {
        return Change::Cut(Why::Policies);
    };
    if terms.applied == session.applied() && terms.hours_end_at == session.hours_end_at() {
        return Change::Unchanged;
    }
    let course = session.relimited(&terms, now);
    let limit = course.limit(payload);
    if course.limits.mode == Mode::Enforce && limit.at <= now.boot {
        return Change::Cut(match limit.reason {
            EndReason::Idle => Why::Idle,
            EndReason::Hours => Why::Hours,
            _ => Why::Old,
        });
    }
    let before = in_force(session.limits.mode, session.limit(payload));
    let moved = match (before, in_force(course.limits.mode, limit)) {
        (Some(before), Some(after)) if after.at < before.at => Moved::Earlier,
        (Some(before), Some(after)) if after.at > before.at => Moved::Later,
        (None, Some(_)) => Moved::Earlier,
        (Some(_), None) => Moved::Later,
        _ => Moved::Not,
    };
    Change::Relimited {
        course: Box::new(course),
        moved,
    }
}

/// The limit, if it is not only observed.
pub fn in_force(mode: Mode, limit: Limit) -> Option<Limit> {
    (mode == Mode::Enforce).then_some(limit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::WallInstant,
        policy::{Applied, Limits, plain},
        session::{Credential, Principal, SessionId, SessionKey},
    };

    const START: Now = Now {
        boot: BootInstant::from_nanos(1_000_000_000_000),
        wall: WallInstant::from_unix_seconds(1_700_000_000),
    };

    fn after(seconds: u64) -> Now {
        let passed = Duration::from_secs(seconds);
        Now {
            boot: START.boot.saturating_add(passed),
            wall: START.wall.saturating_add(passed),
        }
    }

    fn limits(max_session: u64, idle_timeout: Option<u64>, mode: Mode) -> Limits {
        Limits {
            max_session: Duration::from_secs(max_session),
            idle_timeout: idle_timeout.map(Duration::from_secs),
            mode,
            ..plain()
        }
    }

    fn regime(policies: &[(&str, Limits)]) -> Regime {
        let policies = policies
            .iter()
            .map(|(name, limits)| ((*name).to_owned(), Policy::from(limits.clone())));
        Regime {
            policies: policies.collect(),
            retired_issuers: BTreeSet::new(),
        }
    }

    /// Opened at the start, under policies of these limits.
    fn session(policies: &[(&str, Limits)], expires_in: u64) -> Session {
        let credential = Credential {
            principal: Principal {
                issuer: "iss".to_owned(),
                subject: "alice".to_owned(),
            },
            key: SessionKey::from_token(b"t"),
            names_session: false,
            authorized_party: None,
            authenticated_at: None,
            expires_at: after(expires_in).wall,
            assumed_expiry: false,
            signing_key: None,
            certificate: None,
        };
        let names: Vec<_> = policies
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let configured = regime(policies).policies;
        let terms = Terms::of(&names, &configured, START.wall).unwrap();
        let id = SessionId::from_u64(1).unwrap();
        Session::open(id, &credential, &terms, None, START).unwrap()
    }

    const ENFORCE: Mode = Mode::Enforce;
    const OBSERVE: Mode = Mode::Observe;

    fn end(change: &Change) -> Option<u64> {
        match change {
            Change::Relimited { course, .. } => {
                let left = course.limit(None).at.saturating_duration_since(START.boot);
                Some(left.as_secs())
            }
            _ => None,
        }
    }

    #[test]
    fn a_session_is_shortened_lengthened_or_cut_as_the_new_limits_say() {
        let alice = session(&[("p", limits(100, Some(50), ENFORCE))], 1_000);
        let weigh = |max, idle| {
            let regime = regime(&[("p", limits(max, idle, ENFORCE))]);
            weigh(&alice, &regime, None, after(30))
        };
        assert_eq!(weigh(100, Some(50)), Change::Unchanged);
        let shorter = weigh(40, None);
        assert_eq!(end(&shorter), Some(40));
        assert!(matches!(
            shorter,
            Change::Relimited {
                moved: Moved::Earlier,
                ..
            }
        ));
        let longer = weigh(500, None);
        assert_eq!(end(&longer), Some(500));
        assert!(matches!(
            longer,
            Change::Relimited {
                moved: Moved::Later,
                ..
            }
        ));
        assert_eq!(
            end(&weigh(5_000, None)),
            Some(1_000),
            "the token's end stays"
        );
        assert_eq!(weigh(30, None), Change::Cut(Why::Old));
        assert_eq!(weigh(100, Some(30)), Change::Cut(Why::Idle));
        let idle = weigh(200, Some(50));
        assert!(matches!(
            idle,
            Change::Relimited {
                moved: Moved::Not,
                ..
            }
        ));
    }

    #[test]
    fn what_vanishes_ends_sessions_that_nothing_is_left_of() {
        let p = ("p", limits(100, None, ENFORCE));
        let q = ("q", limits(50, None, ENFORCE));
        let alice = session(&[p.clone(), q.clone()], 1_000);
        let without = weigh(&alice, &regime(std::slice::from_ref(&p)), None, after(10));
        assert_eq!(end(&without), Some(100));
        let Change::Relimited { course, .. } = without else {
            panic!("{without:?}")
        };
        let mut left = alice.clone();
        left.relimit(*course);
        let back = weigh(&left, &regime(&[p.clone(), q]), None, after(10));
        assert_eq!(end(&back), Some(50), "it is still noted");
        let nothing = weigh(&alice, &regime(&[("r", p.1.clone())]), None, after(10));
        assert_eq!(nothing, Change::Cut(Why::Policies));
        let retired = Regime {
            retired_issuers: ["iss".to_owned()].into(),
            ..regime(&[p])
        };
        let cut = weigh(&alice, &retired, None, after(10));
        assert_eq!(cut, Change::Cut(Why::Issuer));
    }

    #[test]
    fn a_limit_that_was_met_under_observation_counts_only_if_it_is_past_now() {
        let alice = session(&[("p", limits(1_000, Some(20), OBSERVE))], 5_000);
        let enforced = regime(&[("p", limits(1_000, Some(20), ENFORCE))]);
        assert_eq!(
            weigh(&alice, &enforced, None, after(100)),
            Change::Cut(Why::Idle)
        );
        // Idle for 80 s once, and active since.
        let mut active = alice.clone();
        active.touch(after(95).boot);
        let goes_on = weigh(&active, &enforced, None, after(100));
        assert_eq!(end(&goes_on), Some(115));
        assert!(matches!(
            goes_on,
            Change::Relimited {
                moved: Moved::Earlier,
                ..
            }
        ));
    }

    proptest! {
        /// What is told beforehand is what the machine then does.
        #[test]
        fn what_is_weighed_is_what_happens(
            before in (1_u64..200, proptest::option::of(1_u64..100), any::<bool>()),
            then in (1_u64..200, proptest::option::of(1_u64..100), any::<bool>()),
            passed in 0_u64..150,
            touched in 0_u64..150,
        ) {
            use crate::session::Step;

            let mode = |observe| if observe { OBSERVE } else { ENFORCE };
            let mut alice = session(&[("p", limits(before.0, before.1, mode(before.2)))], 10_000);
            alice.touch(after(touched.min(passed)).boot);
            let new = limits(then.0, then.1, mode(then.2));
            let now = after(passed);
            let change = weigh(&alice, &regime(&[("p", new.clone())]), None, now);
            let terms = Terms {
                policies: alice.policies.clone().into(),
                applied: Applied::alone(&new),
                hours_end_at: None,
            };
            let mut applied = alice.clone();
            applied.relimit(alice.relimited(&terms, now));
            let step = loop {
                match applied.advance(now.boot, None) {
                    Step::Warn(_) | Step::Farewell(_) | Step::Observe(_) => {}
                    step => break step,
                }
            };
            let over = matches!(step, Step::End(_)) && new.mode == ENFORCE;
            match change {
                Change::Unchanged => prop_assert_eq!(alice.applied(), Applied::alone(&new)),
                Change::Cut(_) => prop_assert!(over),
                Change::Relimited { course, .. } => {
                    prop_assert!(!over);
                    prop_assert_eq!(course.limit(None), applied.limit(None));
                    let latest = after(new.max_session.as_secs()).boot;
                    prop_assert!(course.limit(None).at <= latest);
                }
            }
        }
    }
}
