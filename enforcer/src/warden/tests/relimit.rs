//! Live sessions under a changed configuration, on the real maps.

use std::collections::BTreeSet;

use super::*;
use crate::warden::{admin::Impact, reload::weigh::Regime};

/// The policies of the bench, one of them changed.
fn regime(bench: &Bench, name: &str, change: impl FnOnce(&mut Limits)) -> Regime {
    let mut policies = bench.core.policies.clone();
    change(&mut policies.get_mut(name).unwrap().limits);
    Regime {
        policies,
        ..Regime::default()
    }
}

/// Applies it to all live sessions, as weighed before.
fn apply(bench: &mut Bench, regime: &Regime) -> Impact {
    let mut weighed = bench.core.walk(true, true);
    while !bench.core.weigh_slice(&mut weighed, regime, Now::read()) {}
    let timeout = Duration::from_secs(10);
    bench.core.adopt(regime, &BTreeSet::new(), timeout);
    let mut walk = bench.core.walk(true, false);
    while !bench.core.relimit_slice(&mut walk, regime, Now::read()) {}
    assert_eq!(walk.impact(), weighed.impact());
    walk.impact()
}

#[test]
fn other_limits_reach_live_sessions_in_the_map_and_the_gateways() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let before = bench.open(7, &credential("alice", 5_000)).unwrap();
    let longer = regime(&bench, "normal", |limits| {
        limits.max_session = Duration::from_secs(1_000);
        limits.idle_timeout = None;
    });
    let impact = apply(&mut bench, &longer);
    assert_eq!((impact.lengthened, impact.cut), (1, 0));
    let entry = bench.core.maps.session(before.id.as_u64()).unwrap();
    let later = entry.deadline_ns - before.deadline.as_nanos();
    assert!(
        (399_900_000_000..=400_000_000_000).contains(&later),
        "{later}"
    );
    assert_eq!(entry.idle_timeout_ns, 0);
    let told = std::iter::from_fn(|| bench.answers.try_recv().ok())
        .last()
        .unwrap();
    let ToGateway::Relimited { sessions } = told.message else {
        panic!("{told:?}")
    };
    assert_eq!(sessions[0].deadline.as_nanos(), entry.deadline_ns);

    let shorter = regime(&bench, "normal", |limits| {
        limits.max_session = Duration::from_secs(30);
    });
    assert_eq!(apply(&mut bench, &shorter).shortened, 1);
    let entry = bench.core.maps.session(before.id.as_u64()).unwrap();
    assert!(entry.deadline_ns < before.deadline.as_nanos() - 569_000_000_000);

    let none = regime(&bench, "normal", |limits| {
        limits.max_session = Duration::from_nanos(1);
    });
    assert_eq!(apply(&mut bench, &none).cut, 1);
    assert!(bench.core.maps.session(before.id.as_u64()).is_none());
    bench.connect(8, abi::Role::Client);
    assert_eq!(
        bench.open(8, &credential("alice", 5_000)),
        Err(Refusal::SessionEnded(EndReason::Policy))
    );
}

#[test]
fn a_session_that_has_expired_stays_so_under_longer_limits() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let short = regime(&bench, "normal", |limits| {
        limits.max_session = Duration::from_millis(50);
    });
    bench.core.policies = short.policies;
    let view = bench.open(7, &credential("alice", 5_000)).unwrap();
    while Now::read().boot < view.deadline {
        std::thread::yield_now();
    }
    let longer = regime(&bench, "normal", |limits| {
        limits.max_session = Duration::from_secs(1_000);
    });
    apply(&mut bench, &longer);
    assert!(bench.core.maps.session(view.id.as_u64()).is_none());
}

#[test]
fn what_an_observed_session_met_counts_when_it_is_enforced_only_if_it_is_past_then() {
    let mut bench = Bench::new();
    for (cookie, subject) in [(7, "alice"), (8, "bob")] {
        bench.connect(cookie, abi::Role::Client);
        let observed = ["observed".to_owned()];
        let credential = credential(subject, 5_000);
        let opened = bench
            .core
            .open(cookie, &credential, &observed, None, Now::read());
        let entry = bench
            .core
            .maps
            .session(opened.unwrap().id.as_u64())
            .unwrap();
        assert_eq!(entry.mode, abi::Mode::Observe.code());
    }
    let later = |seconds| later(Now::read(), Duration::from_secs(seconds));
    // Both pass their idle limit of 10 s, observed; then one is active again.
    bench.core.on_alarm(later(20));
    let ids: Vec<_> = bench
        .core
        .book
        .iter()
        .map(|live| (live.session.principal.subject.clone(), live.session.id))
        .collect();
    let id = |subject: &str| ids.iter().find(|(of, _)| of == subject).unwrap().1;
    let touch = ToWarden::Touch {
        session: id("bob"),
        at: later(25).boot,
    };
    bench.core.on_message(GATEWAY, touch, later(25));
    let enforced = regime(&bench, "observed", |limits| limits.mode = Mode::Enforce);
    bench
        .core
        .adopt(&enforced, &BTreeSet::new(), Duration::from_secs(10));
    let mut walk = bench.core.walk(true, false);
    while !bench.core.relimit_slice(&mut walk, &enforced, later(30)) {}
    assert_eq!((walk.impact().cut, walk.impact().shortened), (1, 1));
    assert!(bench.core.maps.session(id("alice").as_u64()).is_none());
    let entry = bench.core.maps.session(id("bob").as_u64()).unwrap();
    assert_eq!(entry.mode, abi::Mode::Enforce.code());
}

#[test]
fn an_issuer_that_is_left_out_opens_nothing_even_through_an_old_gateway() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    bench.open(7, &credential("alice", 5_000)).unwrap();
    let retired = Regime {
        policies: bench.core.policies.clone(),
        retired_issuers: ["iss".to_owned()].into(),
    };
    assert_eq!(apply(&mut bench, &retired).cut, 1);
    bench.connect(8, abi::Role::Client);
    assert_eq!(
        bench.open(8, &credential("bob", 5_000)),
        Err(Refusal::SessionEnded(EndReason::Policy))
    );
    let back = Regime {
        retired_issuers: BTreeSet::new(),
        ..retired
    };
    let timeout = Duration::from_secs(10);
    bench.core.adopt(&back, &["iss".to_owned()].into(), timeout);
    assert!(bench.open(8, &credential("bob", 5_000)).is_ok());
}

#[test]
fn a_policy_in_observe_mode_tightens_nothing_that_is_enforced() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let alice = credential("alice", 5_000);
    let view = bench.open(7, &alice).unwrap();
    let both = ["observed".to_owned()];
    let joined = bench
        .core
        .open(7, &alice, &both, None, Now::read())
        .unwrap();
    assert_eq!((joined.deadline, joined.enforced), (view.deadline, true));
    let entry = bench.core.maps.session(view.id.as_u64()).unwrap();
    assert_eq!(entry.idle_timeout_ns, 60_000_000_000);
    assert_eq!(entry.mode, abi::Mode::Enforce.code());
    // And strict ones joined to an observed session are enforced, with their own limits.
    bench.connect(8, abi::Role::Client);
    let bob = credential("bob", 5_000);
    bench.core.open(8, &bob, &both, None, Now::read()).unwrap();
    let joined = bench
        .core
        .open(8, &bob, &["normal".to_owned()], None, Now::read())
        .unwrap();
    assert!(joined.enforced);
    let left = joined.deadline.saturating_duration_since(Now::read().boot);
    assert!(left > Duration::from_secs(590), "{left:?}");
}
