use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::*;
use crate::{
    audit::{AuditReader, Evidence, Filter, PublicKey, verify},
    clock::WallInstant,
};

fn record(second: i64) -> Record {
    Record::new(WallInstant::from_unix_seconds(second), Event::SessionOpened)
}

fn read(settings: &AuditSettings, event: Event) -> Vec<Record> {
    let filter = Filter {
        event: Some(event),
        ..Filter::default()
    };
    let reader = AuditReader::open(&settings.database(), filter).unwrap();
    reader
        .records()
        .map(|stored| serde_json::from_str(&stored.unwrap().text).unwrap())
        .collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not happen");
}

fn check_intact(settings: &AuditSettings) {
    let evidence = Evidence {
        heads: Some(settings.heads_file.clone()),
        public_key: Some(PublicKey::read(&settings.public_key()).unwrap()),
    };
    let verification = verify(&settings.database(), &evidence).unwrap();
    assert!(verification.intact, "{verification:#?}");
    assert_eq!(verification.vouched_for, verification.last);
}

fn overwrite(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::write(path, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
}

#[test]
fn records_are_kept_in_order_in_a_private_file_and_a_signed_head_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let log = AuditLog::open(settings.clone()).unwrap();
    for second in 0..5_000 {
        log.sink().write(record(second));
    }
    let health = log.close();
    assert_eq!((health.written, health.queued, health.lost), (5_000, 0, 0));
    let records = read(&settings, Event::SessionOpened);
    let seconds = records.iter().map(|record| record.time.as_unix_seconds());
    assert!(seconds.eq(0..5_000));
    let mode = fs::metadata(settings.database())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let begun = read(&settings, Event::AuditChainStarted);
    assert_eq!(begun[0].reason.as_deref(), Some("first"));
    check_intact(&settings);
}

#[test]
fn a_log_that_cannot_be_opened_blocks_nobody_and_says_later_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(&folder.path().join("missing"));
    let log = AuditLog::open(settings.clone()).unwrap();
    let sink = log.sink();
    sink.write(record(0));
    wait_until("the failure", || !sink.health().works());
    let capacity = QUEUE_CAPACITY as u64 + BATCH as u64;
    for second in 1..=capacity.cast_signed() + 7 {
        sink.write(record(second));
    }
    let lost = sink.health().lost;
    assert!(lost >= 7, "{lost}");
    fs::create_dir(folder.path().join("missing")).unwrap();
    wait_until("the recovery", || sink.health().works());
    let health = log.close();
    assert_eq!(health.written + health.lost, capacity + 8);
    let said = read(&settings, Event::AuditLost);
    assert_eq!(
        said.iter().filter_map(|record| record.lost).sum::<u64>(),
        health.lost
    );
    check_intact(&settings);
}

#[test]
fn a_damaged_database_is_moved_aside_and_the_next_says_which_head_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let log = AuditLog::open(settings.clone()).unwrap();
    log.sink().write(record(0));
    let sequence = log.close().sequence;
    overwrite(&settings.database());

    let log = AuditLog::open(settings.clone()).unwrap();
    log.sink().write(record(1));
    log.close();
    let begun = &read(&settings, Event::AuditChainStarted)[0];
    assert_eq!(begun.reason.as_deref(), Some("corrupt"));
    assert!(
        begun.through.is_some_and(|through| through <= sequence),
        "{begun:?}"
    );
    assert!(begun.chain.is_some() && begun.hash.is_some(), "{begun:?}");
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("audit.db.corrupt-")),
        "{names:?}"
    );
    assert_eq!(read(&settings, Event::SessionOpened), [record(1)]);
    check_intact(&settings);
}

#[test]
fn a_database_that_is_damaged_while_it_is_written_is_replaced_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let log = AuditLog::open(settings.clone()).unwrap();
    let sink = log.sink();
    sink.write(record(0));
    wait_until("the first record", || sink.health().written == 1);
    // A table that is gone is what SQLite finds first.
    let other = rusqlite::Connection::open(settings.database()).unwrap();
    other.execute_batch("DROP TABLE records").unwrap();
    drop(other);
    sink.write(record(1));
    let health = log.close();
    assert_eq!((health.written, health.lost), (2, 0));
    assert_eq!(read(&settings, Event::SessionOpened), [record(1)]);
}

#[test]
fn a_database_that_was_removed_or_cut_off_between_two_runs_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let run = || {
        let log = AuditLog::open(settings.clone()).unwrap();
        for second in 0..10 {
            log.sink().write(record(second));
        }
        log.close().sequence
    };
    let last = run();
    let database = rusqlite::Connection::open(settings.database()).unwrap();
    let cut_off = "DELETE FROM records WHERE sequence > 5";
    database.execute_batch(cut_off).unwrap();
    drop(database);
    run();
    let tampered = &read(&settings, Event::AuditTampered)[0];
    assert_eq!(tampered.reason.as_deref(), Some("truncated"));
    assert_eq!(tampered.through, Some(last));

    fs::remove_file(settings.database()).unwrap();
    run();
    let begun = &read(&settings, Event::AuditChainStarted)[0];
    assert_eq!(begun.reason.as_deref(), Some("missing"));
    assert!(begun.through.is_some());
}

#[test]
fn what_a_closed_log_could_not_write_is_counted_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(&folder.path().join("missing"));
    let log = AuditLog::open(settings).unwrap();
    let sink = log.sink();
    sink.write(record(0));
    let health = log.close();
    assert_eq!((health.written, health.lost, health.queued), (0, 1, 0));
    sink.write(record(1));
    assert_eq!(sink.health().lost, 2);
}

#[test]
fn old_records_go_by_age_and_by_size_and_what_is_left_still_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = AuditSettings::within(folder.path());
    settings.keep = Some(Duration::from_millis(100));
    let log = AuditLog::open(settings.clone()).unwrap();
    let sink = log.sink();
    let now = clock::wall_now().as_unix_seconds();
    for second in 0..2_500 {
        sink.write(record(now - 10_000 + second));
    }
    sink.write(record(now + 3_600));
    wait_until("the records", || sink.health().written == 2_501);
    wait_until("removal by age", || {
        read(&settings, Event::AuditPruned)
            .iter()
            .any(|pruned| pruned.reason.as_deref() == Some("age"))
    });
    assert_eq!(read(&settings, Event::SessionOpened).len(), 1);
    check_intact_while_running(&settings);

    settings.keep = None;
    settings.max_size = 1 << 20;
    sink.reconfigure(settings.clone());
    for second in 0..10_000 {
        sink.write(record(now + second));
    }
    wait_until("removal by size", || {
        read(&settings, Event::AuditPruned)
            .iter()
            .any(|pruned| pruned.reason.as_deref() == Some("size"))
    });
    let left = read(&settings, Event::SessionOpened);
    assert!(left.len() < 9_000 && !left.is_empty(), "{}", left.len());
    assert_eq!(left.last(), Some(&record(now + 9_999)));
    log.close();
    check_intact(&settings);
}

/// The last records may have no head yet.
fn check_intact_while_running(settings: &AuditSettings) {
    let evidence = Evidence {
        heads: Some(settings.heads_file.clone()),
        public_key: Some(PublicKey::read(&settings.public_key()).unwrap()),
    };
    let verification = verify(&settings.database(), &evidence).unwrap();
    assert!(verification.intact, "{verification:#?}");
    assert!(verification.removed_in_order > 0);
}
