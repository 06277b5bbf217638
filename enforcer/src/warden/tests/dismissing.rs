//! Sessions that are ended before any limit.

use super::*;
use crate::channel::EndCause;

/// A session under a policy with a farewell of its own.
fn open(bench: &mut Bench, cookie: u64, subject: &str, farewell: Duration) -> SessionId {
    bench.connect(cookie, abi::Role::Client);
    let id = bench.open(cookie, &credential(subject, 300)).unwrap().id;
    let live = bench.core.book.get_mut(id).unwrap();
    live.session.limits.farewell = farewell;
    id
}

#[test]
fn who_is_dismissed_says_goodbye_and_nothing_moves_the_end() {
    let mut bench = Bench::new();
    let id = open(&mut bench, 7, "alice", Duration::from_secs(1));
    let before = bench.core.maps.session(id.as_u64()).unwrap();
    let now = Now::read();
    let dismissed = bench
        .core
        .dismiss(&[id], EndReason::Revoked, Some("by user 0"), now);
    assert_eq!(dismissed.connections, 1);
    let limit = later(now, Duration::from_millis(250)).boot;
    let farewell = ToGateway::Farewell {
        session: id,
        reason: EndReason::Revoked,
        limit,
    };
    let told = std::iter::from_fn(|| bench.answers.try_recv().ok());
    assert!(told.map(|told| told.message).any(|told| told == farewell));
    let entry = bench.core.maps.session(id.as_u64()).unwrap();
    assert!(entry.deadline_ns == limit.as_nanos() && entry.deadline_ns < before.deadline_ns);

    // Neither activity nor a newer credential helps, here or elsewhere.
    let touch = ToWarden::Touch {
        session: id,
        at: now.boot,
    };
    bench.core.on_message(GATEWAY, touch, now);
    bench.connect(8, abi::Role::Client);
    let revoked = Refusal::SessionEnded(EndReason::Revoked);
    for cookie in [7, 8] {
        let again = bench.open(cookie, &credential("alice", 6000));
        assert_eq!(again, Err(revoked));
    }
    assert_eq!(bench.core.maps.session(id.as_u64()), Some(entry));
    bench.core.on_alarm(now);
    assert!(bench.core.book.get(id).is_some());

    bench.core.on_alarm(later(now, Duration::from_millis(250)));
    assert!(bench.core.book.get(id).is_none());
    assert_eq!(bench.core.maps.session(id.as_u64()), None);
    assert_eq!(bench.open(8, &credential("alice", 6000)), Err(revoked));
}

#[test]
fn without_a_farewell_or_a_connection_the_end_is_at_once() {
    let mut bench = Bench::new();
    let hasty = open(&mut bench, 7, "alice", Duration::ZERO);
    let alone = open(&mut bench, 8, "bob", Duration::from_secs(1));
    bench.core.book.get_mut(alone).unwrap().legs.clear();
    // Its answer is to get out all the same.
    let leaving = open(&mut bench, 9, "carol", Duration::ZERO);
    let now = Now::read();
    bench
        .core
        .dismiss(&[hasty, alone], EndReason::Revoked, None, now);
    bench.core.dismiss(&[leaving], EndReason::Logout, None, now);
    for id in [hasty, alone] {
        assert_eq!(bench.core.maps.session(id.as_u64()), None);
    }
    assert!(bench.core.book.get(leaving).is_some());
}

#[test]
fn who_logs_out_and_in_again_is_not_one_too_many() {
    let mut bench = Bench::new();
    let alone = ["alone".to_owned()];
    let log_in = |bench: &mut Bench, cookie, token: &[u8]| {
        bench.connect(cookie, abi::Role::Client);
        let credential = Credential {
            key: SessionKey::from_token(token),
            ..credential("alice", 300)
        };
        let opened = bench
            .core
            .open(cookie, &credential, &alone, None, Now::read());
        opened.map(|view| view.id)
    };
    let first = log_in(&mut bench, 7, b"first").unwrap();
    assert_eq!(
        log_in(&mut bench, 8, b"second"),
        Err(Refusal::TooManySessions)
    );
    let logout = ToWarden::End {
        session: first,
        cause: EndCause::Logout,
    };
    bench.core.on_message(GATEWAY, logout, Now::read());
    assert!(log_in(&mut bench, 9, b"third").is_ok());
}

#[test]
fn a_warden_that_ends_meanwhile_revives_nobody() {
    let mut bench = Bench::new();
    let id = open(&mut bench, 7, "alice", Duration::from_secs(1));
    let now = Now::read();
    bench.core.dismiss(&[id], EndReason::Revoked, None, now);
    let ended = bench.core.book.get(id).unwrap().session.keys.clone();
    bench.core.store.flush().wait().unwrap();
    let left = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(bench._state.path()).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name.starts_with(super::super::store::DATABASE_NAME) {
            std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
        }
    }
    let database = left.path().join(super::super::store::DATABASE_NAME);
    let (_, snapshot) = Store::open(&database, now.wall).unwrap();
    assert!(snapshot.sessions.is_empty());
    assert_eq!(snapshot.ended[0].key, ended[0].key);
}
