use std::{fs, path::Path, time::Duration};

use super::*;

const NOW: WallInstant = WallInstant::from_unix_seconds(1_700_000_000);

fn id(number: u64) -> SessionId {
    SessionId::from_u64(number).unwrap()
}

fn later(seconds: u64) -> WallInstant {
    NOW.saturating_add(Duration::from_secs(seconds))
}

fn key(number: u8, until: WallInstant) -> KeyUse {
    KeyUse {
        key: SessionKey::from_bytes([number; 32]),
        until,
    }
}

fn session(number: u64) -> StoredSession {
    StoredSession {
        id: id(number),
        keys: vec![key(1, later(60)), key(2, later(90))],
        principal: Principal {
            issuer: "https://idp.example".to_owned(),
            subject: "alice".to_owned(),
        },
        authorized_party: Some("app".to_owned()),
        names_session: true,
        started_at: NOW,
        opened_at: later(1),
        deadline: later(900),
        token_expires_at: later(90),
        signing_key: Some(KeyThumbprint::from_bytes([9; 32])),
        certificates: [8, 9].map(|id| CertificateId::from_bytes([id; 32])).into(),
        policies: vec!["default".to_owned(), "pci, \"dss\"".to_owned()],
        hours_end_at: Some(later(700)),
        first_address: Some("2001:db8::7".parse().unwrap()),
        last_activity: later(2),
        warned_for: Some(later(80)),
    }
}

/// Waits for the writer of a store that was just dropped.
fn open(path: &Path, now: WallInstant) -> (StoreHandle, Snapshot) {
    Store::open(path, now).unwrap()
}

fn reopen(path: &Path, store: StoreHandle, now: WallInstant) -> (StoreHandle, Snapshot) {
    drop(store);
    open(path, now)
}

#[test]
fn an_end_moves_with_a_changed_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (store, _) = open(&path, NOW);
    let (mut known, mut queued) = (session(1), session(2));
    queued.keys = vec![key(3, later(60))];
    store.save(known.clone());
    let (store, _) = reopen(&path, store, NOW);
    let bounds = Bounds {
        deadline: later(100),
        hours_end_at: None,
    };
    store.save(queued.clone());
    store.touch(known.id, later(20));
    for id in [known.id, queued.id, id(3)] {
        store.bound(id, bounds);
    }
    let (_store, snapshot) = reopen(&path, store, NOW);
    for session in [&mut known, &mut queued] {
        session.deadline = bounds.deadline;
        session.hours_end_at = bounds.hours_end_at;
    }
    known.last_activity = later(20);
    assert_eq!(snapshot.sessions, [known, queued]);
}

#[test]
fn sessions_are_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (store, snapshot) = open(&path, NOW);
    assert_eq!(snapshot, Snapshot::default());

    let first = session(u64::MAX);
    let mut second = session(2);
    second.keys = vec![key(3, later(60))];
    second.authorized_party = None;
    second.signing_key = None;
    second.certificates.clear();
    second.warned_for = None;
    second.hours_end_at = None;
    second.first_address = None;
    second.opened_at = later(5);
    store.save(first.clone());
    store.save(second.clone());
    let (store, snapshot) = reopen(&path, store, NOW);
    assert_eq!(snapshot.sessions, [first.clone(), second.clone()]);

    second.keys.push(key(4, later(120)));
    second.deadline = later(1_000);
    store.touch(first.id, later(10));
    store.save(second.clone());
    store.touch(second.id, later(20));
    let (_store, snapshot) = reopen(&path, store, NOW);
    let touched = |mut session: StoredSession, at| {
        session.last_activity = at;
        session
    };
    let expected = [touched(first, later(10)), touched(second, later(20))];
    assert_eq!(snapshot.sessions, expected);
}

#[test]
fn ended_keys_are_refused_until_they_expire() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (store, _) = open(&path, NOW);
    let session = session(1);
    store.save(session.clone());
    store.flush().wait().unwrap();
    store.end(session.id, session.keys, EndReason::Revoked, later(10));
    let (store, snapshot) = reopen(&path, store, later(20));
    assert_eq!(snapshot.sessions, []);
    let ended = |KeyUse { key, until }| EndedKey {
        key,
        reason: EndReason::Revoked,
        ended_at: later(10),
        until,
    };
    assert_eq!(
        snapshot.ended,
        [ended(key(1, later(60))), ended(key(2, later(90)))]
    );

    let (store, snapshot) = reopen(&path, store, later(60));
    assert_eq!(snapshot.ended, [ended(key(2, later(90)))]);

    // The next end takes expired ones along.
    store.end(id(9), vec![key(9, later(300))], EndReason::Idle, later(200));
    let (_store, snapshot) = reopen(&path, store, NOW);
    assert_eq!(snapshot.ended.len(), 1);
    assert_eq!(snapshot.ended[0].reason, EndReason::Idle);
}

#[test]
fn a_session_that_ended_in_the_same_commit_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (store, _) = open(&path, NOW);
    store.save(session(1));
    store.end(id(1), vec![key(1, later(60))], EndReason::Logout, NOW);
    store.touch(id(1), later(3));
    let (_store, snapshot) = reopen(&path, store, NOW);
    assert_eq!(snapshot.sessions, []);
    assert_eq!(snapshot.ended.len(), 1);
}

#[test]
fn a_damaged_database_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    fs::write(
        &path,
        "not a database, but long enough to look like one".repeat(99),
    )
    .unwrap();
    let (store, snapshot) = open(&path, NOW);
    let aside = folder.path().join("enforcer.db.corrupt-1700000000");
    assert_eq!(snapshot.set_aside.as_deref(), Some(&*aside));
    assert!(fs::read(&aside).unwrap().starts_with(b"not a database"));
    store.save(session(1));
    store.flush().wait().unwrap();
}

#[test]
fn a_page_of_garbage_in_a_database_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (store, _) = open(&path, NOW);
    for number in 1..200 {
        let mut session = session(number);
        session.keys = Vec::new();
        store.save(session);
    }
    let (store, snapshot) = reopen(&path, store, NOW);
    assert_eq!(snapshot.sessions.len(), 199);
    drop(reopen(&path, store, NOW));
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 5 * 4096, "{}", bytes.len());
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..64].fill(0xa5);
    }
    fs::write(&path, bytes).unwrap();
    let (_store, snapshot) = open(&path, NOW);
    assert!(snapshot.set_aside.is_some());
    assert_eq!(snapshot.sessions, []);
}

#[test]
fn rows_that_are_not_ours_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (store, _) = open(&path, NOW);
    store.end(id(1), vec![key(1, later(60))], EndReason::Logout, NOW);
    drop(reopen(&path, store, NOW));
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute("UPDATE ended_keys SET reason = 'boredom'", [])
        .unwrap();
    drop(connection);
    let (_store, snapshot) = open(&path, NOW);
    assert!(snapshot.set_aside.is_some());
}

#[test]
fn a_place_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("enforcer.db"), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

#[test]
fn a_store_has_one_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (_store, _) = open(&path, NOW);
    let error = Store::open(&path, NOW).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&path, NOW).unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn commits_that_fail_are_counted_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (mut connection, _) = database::open(&path, NOW).unwrap();
    connection.pragma_update(None, "query_only", true).unwrap();
    let mut batch = batch::Batch::default();
    batch.save(session(1));
    assert!(rows::commit(&mut connection, &batch).is_err());
    connection.pragma_update(None, "query_only", false).unwrap();
    rows::commit(&mut connection, &batch).unwrap();
    assert_eq!(rows::load(&connection).unwrap().sessions, [session(1)]);
}

#[test]
fn a_store_that_cannot_be_written_says_so_to_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let (connection, _) = database::open(&path, NOW).unwrap();
    connection.pragma_update(None, "query_only", true).unwrap();
    let store = writer::start(connection, StoreHealth::default()).unwrap();
    store.save(session(1));
    store.end(id(2), Vec::new(), EndReason::Idle, NOW);
    let error = store.flush().wait().unwrap_err();
    assert!(matches!(error, FlushError::Failed(_)), "{error}");
    let health = store.health();
    assert!(health.errors > 0 && health.last_error.is_some() && health.queued == 2);
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enforcer.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(database::SCHEMA).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let row = "INSERT INTO sessions VALUES
        (7, 'https://idp', 'alice', NULL, 1, 1, 2, 3, 4, 'boot', 5, '[\"default\"]', NULL, 6)";
    connection.execute(row, []).unwrap();
    drop(connection);
    let (store, snapshot) = open(&path, NOW);
    let [old] = &snapshot.sessions[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!(old.signing_key, None);
    assert_eq!((old.hours_end_at, old.first_address), (None, None));
    let new = session(2);
    store.save(new.clone());
    let (_store, snapshot) = reopen(&path, store, NOW);
    assert_eq!(snapshot.sessions, [old.clone(), new]);
}
