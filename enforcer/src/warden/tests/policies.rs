//! Hours, concurrency and networks, as the policies of a session have them.

use super::*;

/// A credential with a session of its own.
fn login(subject: &str, number: u8) -> Credential {
    Credential {
        key: SessionKey::from_token(&[number]),
        ..credential(subject, 500)
    }
}

#[test]
fn one_session_too_many_is_refused() {
    let mut bench = Bench::new();
    let mut open = |number: u8, subject, policy: &str| {
        let cookie = u64::from(number);
        bench.connect(cookie, abi::Role::Client);
        let policies = [policy.to_owned()];
        let opened = bench.core.open(
            cookie,
            &login(subject, number),
            &policies,
            None,
            Now::read(),
        );
        opened.map(|view| view.id)
    };
    let first = open(1, "alice", "alone").unwrap();
    assert_eq!(open(2, "alice", "alone"), Err(Refusal::TooManySessions));
    assert!(open(3, "bob", "alone").is_ok());
    // A laxer policy has room; but then the session can't come under the stricter one.
    assert!(open(4, "alice", "normal").is_ok());
    let joining = bench.core.open(
        4,
        &login("alice", 4),
        &["alone".to_owned()],
        None,
        Now::read(),
    );
    assert_eq!(joining.unwrap_err(), Refusal::TooManySessions);
    bench.core.end(first, EndReason::Logout, Now::read());
    let joining = bench.core.open(
        4,
        &login("alice", 4),
        &["alone".to_owned()],
        None,
        Now::read(),
    );
    assert!(joining.is_ok());
}

#[test]
fn the_oldest_session_makes_room() {
    let mut bench = Bench::new();
    let mut ids = Vec::new();
    for number in 1..=3 {
        let cookie = u64::from(number);
        bench.connect(cookie, abi::Role::Client);
        let policies = ["latest".to_owned()];
        let login = login("alice", number);
        let opened = bench
            .core
            .open(cookie, &login, &policies, None, Now::read());
        ids.push(opened.unwrap().id);
    }
    assert!(bench.core.book.get(ids[0]).is_none());
    assert!(bench.core.book.get(ids[1]).is_some());
    bench.connect(9, abi::Role::Client);
    let again = bench.open(9, &login("alice", 1));
    assert_eq!(
        again.unwrap_err(),
        Refusal::SessionEnded(EndReason::Displaced)
    );
}

#[test]
fn connections_are_counted_and_come_from_one_network() {
    let mut bench = Bench::new();
    let policies = ["bound".to_owned()];
    let alice = login("alice", 1);
    let mut open = |cookie, from: &str| {
        bench.connect(cookie, abi::Role::Client);
        let from = format!("{from}:1000").parse().unwrap();
        let opened = bench
            .core
            .open(cookie, &alice, &policies, Some(from), Now::read());
        opened.map(|view| view.id)
    };
    let first = open(1, "192.0.2.1").unwrap();
    assert_eq!(open(2, "192.0.3.1"), Err(Refusal::AnotherNetwork));
    assert_eq!(open(3, "[2001:db8::1]"), Err(Refusal::AnotherNetwork));
    assert_eq!(open(4, "192.0.2.200"), Ok(first));
    assert_eq!(open(5, "192.0.2.3"), Err(Refusal::TooManyConnections));
    // What is bound already is not counted again.
    assert_eq!(open(1, "192.0.2.1"), Ok(first));
    // From elsewhere a newer token renews nothing either.
    let before = bench.core.book.get(first).unwrap().session.deadline();
    bench.connect(6, abi::Role::Client);
    let newer = Credential {
        expires_at: alice.expires_at.saturating_add(Duration::from_secs(60)),
        ..alice.clone()
    };
    let elsewhere = Some("192.0.3.1:1000".parse().unwrap());
    let refused = bench
        .core
        .open(6, &newer, &policies, elsewhere, Now::read());
    assert_eq!(refused, Err(Refusal::AnotherNetwork));
    let session = &bench.core.book.get(first).unwrap().session;
    assert_eq!(session.deadline(), before);
    assert_eq!(session.token_expires_at, alice.expires_at);
}

#[test]
fn a_session_that_is_spread_does_not_come_under_one_network() {
    let mut bench = Bench::new();
    let alice = login("alice", 1);
    let mut open = |cookie, from: &str, policy: &str| {
        if bench.connections.get(&cookie, 0).is_err() {
            bench.connect(cookie, abi::Role::Client);
        }
        let from = format!("{from}:1000").parse().unwrap();
        let policies = [policy.to_owned()];
        let opened = bench
            .core
            .open(cookie, &alice, &policies, Some(from), Now::read());
        opened.map(|view| view.policies)
    };
    assert!(open(1, "192.0.2.1", "normal").is_ok());
    assert!(open(2, "192.0.3.1", "normal").is_ok());
    assert_eq!(open(1, "192.0.2.1", "bound"), Err(Refusal::AnotherNetwork));
    assert_eq!(open(1, "192.0.2.1", "normal").unwrap(), ["normal"]);
}

#[test]
fn outside_of_hours_nothing_is_opened_or_joined() {
    let mut bench = Bench::new();
    bench.connect(1, abi::Role::Client);
    let alice = login("alice", 1);
    let closed = ["closed".to_owned()];
    let refused = bench.core.open(1, &alice, &closed, None, Now::read());
    assert_eq!(refused.unwrap_err(), Refusal::OutsideHours);
    bench.open(1, &alice).unwrap();
    let refused = bench.core.open(1, &alice, &closed, None, Now::read());
    assert_eq!(refused.unwrap_err(), Refusal::OutsideHours);
}

#[test]
fn a_session_whose_hours_ended_meanwhile_is_ended_by_recovery() {
    let mut bench = Bench::new();
    let now = Now::read();
    let past = now.wall.saturating_sub(Duration::from_secs(1));
    let stored = StoredSession {
        hours_end_at: Some(past),
        ..stored(5, now.wall)
    };
    let snapshot = Snapshot {
        sessions: vec![stored],
        ..Snapshot::default()
    };
    let recovered = bench.core.recover(snapshot, now);
    assert_eq!(recovered.cut, 1);
    let ended = bench.open(9, &credential("alice", 500));
    assert_eq!(ended, Err(Refusal::SessionEnded(EndReason::Hours)));
}
