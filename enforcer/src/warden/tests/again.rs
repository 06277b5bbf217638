//! Credentials that come again: in time, too late, and after their sessions' ends.

use super::*;

#[test]
fn a_renewal_that_is_published_too_late_ends_the_session() {
    for latched in [false, true] {
        let mut bench = Bench::new();
        bench.connect(7, abi::Role::Client);
        let token = credential("alice", 30);
        let view = bench.open(7, &token).unwrap();
        let id = view.id.as_u64();
        if latched {
            let activity = MapData::from_pin(bench.bpf_dir.join(map_name::ACTIVITY)).unwrap();
            let mut activity: HashMap<_, u64, abi::Activity> =
                Map::from_map_data(activity).unwrap().try_into().unwrap();
            let expired = abi::Activity {
                expired_at_ns: 1,
                ..abi::Activity::default()
            };
            activity.insert(id, expired, 0).unwrap();
        } else {
            let entry = abi::Session {
                deadline_ns: 1,
                ..bench.core.maps.session(id).unwrap()
            };
            bench.core.maps.set_session(id, entry).unwrap();
        }
        // On the session's own connection, which the kernel resets.
        let renewed = bench.open(7, &credential("alice", 6000));
        assert_eq!(
            renewed,
            Err(Refusal::SessionEnded(EndReason::Token)),
            "latched: {latched}"
        );
        assert_eq!(bench.core.maps.session(id), None);
        // Elsewhere the old token is as good as its session, and a newer one opens another.
        bench.connect(8, abi::Role::Client);
        let old = bench.open(8, &token);
        assert_eq!(old, Err(Refusal::SessionEnded(EndReason::Token)));
        let another = bench.open(8, &credential("alice", 6000)).unwrap();
        assert_ne!(another.id, view.id);
    }
}

#[test]
fn a_renewal_on_another_connection_that_is_published_too_late_opens_a_session() {
    let mut bench = Bench::new();
    for cookie in [7, 8] {
        bench.connect(cookie, abi::Role::Client);
    }
    let view = bench.open(7, &credential("alice", 30)).unwrap();
    let id = view.id.as_u64();
    let entry = abi::Session {
        deadline_ns: 1,
        ..bench.core.maps.session(id).unwrap()
    };
    bench.core.maps.set_session(id, entry).unwrap();
    // Longer than the longest session: the new deadline would have another reason.
    let another = bench.open(8, &credential("alice", 6000)).unwrap();
    assert_ne!(another.id, view.id);
    assert_eq!(bench.core.maps.session(id), None);
}

#[test]
fn a_token_that_does_not_tell_its_expiry_is_not_forgotten_when_it_was_assumed_to_expire() {
    let shown = |seconds| Credential {
        assumed_expiry: true,
        ..credential("alice", seconds)
    };
    let policies = ["normal".to_owned()];
    let now = Now::read();
    let later = Now {
        boot: now.boot.saturating_add(Duration::from_secs(1)),
        wall: now.wall.saturating_add(Duration::from_secs(1000)),
    };
    for (reason, opens) in [
        (EndReason::Deadline, false),
        (EndReason::Revoked, false),
        // Nobody has asked its issuer for a while.
        (EndReason::Token, true),
    ] {
        let mut bench = Bench::new();
        for cookie in [7, 8] {
            bench.connect(cookie, abi::Role::Client);
        }
        let view = bench.open(7, &shown(30)).unwrap();
        bench.core.end(view.id, reason, now);
        bench.core.book.purge_ended(later.wall);
        let again = bench.core.open(8, &shown(1600), &policies, None, later);
        assert_eq!(again.is_ok(), opens, "{reason:?}: {again:?}");
    }
}

#[test]
fn the_token_of_a_session_that_was_only_observed_opens_another() {
    let mut bench = Bench::new();
    let credential = credential("alice", 300);
    bench.connect(7, abi::Role::Client);
    let first = bench
        .core
        .open(7, &credential, &["observed".to_owned()], None, Now::read())
        .unwrap();
    bench.core.book.get_mut(first.id).unwrap().legs.clear();
    bench
        .core
        .on_alarm(later(Now::read(), Duration::from_secs(70)));
    assert!(bench.core.book.get(first.id).is_none());
    bench.connect(8, abi::Role::Client);
    let again = bench
        .core
        .open(8, &credential, &["observed".to_owned()], None, Now::read());
    assert_ne!(again.unwrap().id, first.id);
}

#[test]
fn what_was_revoked_stays_refused() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let alice = credential("alice", 30);
    let view = bench.open(7, &alice).unwrap();
    let ended = bench
        .core
        .end_all(&[view.id], EndReason::Revoked, None, Now::read());
    assert_eq!(ended, 1);
    assert_eq!(bench.core.maps.session(view.id.as_u64()), None);
    bench.connect(8, abi::Role::Client);
    assert_eq!(
        bench.open(8, &alice),
        Err(Refusal::SessionEnded(EndReason::Revoked))
    );
}

#[test]
fn a_certificate_opens_another_session_unless_it_was_sent_away() {
    let mut bench = Bench::new();
    let alice = Credential {
        key: SessionKey::from_certificate(b"alice's"),
        ..credential("alice", 30)
    };
    for (cookie, reason) in [
        (7, EndReason::Idle),
        (8, EndReason::Deadline),
        (9, EndReason::Logout),
    ] {
        bench.connect(cookie, abi::Role::Client);
        let view = bench.open(cookie, &alice).unwrap();
        bench.core.end(view.id, reason, Now::read());
    }
    bench.connect(10, abi::Role::Client);
    assert_eq!(
        bench.open(10, &alice),
        Err(Refusal::SessionEnded(EndReason::Logout))
    );
}
