use std::{fs, os::unix::net::UnixDatagram, sync::mpsc};

use super::*;
use crate::{
    audit::{AuditLog, AuditSettings, Event, Record},
    clock::WallInstant,
};

fn write(settings: &AuditSettings, seconds: std::ops::Range<i64>) -> u64 {
    let log = AuditLog::open(settings.clone()).unwrap();
    for second in seconds {
        let time = WallInstant::from_unix_seconds(second);
        log.sink().write(Record::new(time, Event::SessionOpened));
    }
    log.close().sequence
}

fn parts(settings: &AuditSettings, destination: Destination) -> ExporterParts {
    ExporterParts {
        name: "test".to_owned(),
        destination,
        database: settings.database(),
        state_dir: settings.state_dir.clone(),
        gateway: None,
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not happen");
}

#[test]
fn a_file_gets_every_record_once_over_restarts_and_a_new_database() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let file = folder.path().join("records.jsonl");
    let count = || fs::read_to_string(&file).map_or(0, |text| text.lines().count() as u64);
    let mut total = 0;
    for round in 1..=3 {
        let last = write(&settings, 0..500);
        if round == 3 {
            // The second database's records are all new.
            total += last;
        } else {
            total = last;
        }
        let destination = Destination::JsonFile(file.clone());
        let exporter = Exporter::start(parts(&settings, destination)).unwrap();
        wait_until("the export", || count() == total);
        wait_until("the cursor", || exporter.health().sequence == last);
        assert_eq!(exporter.health().missed, 0);
        if round == 2 {
            fs::remove_file(settings.database()).unwrap();
        }
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().all(|line| line.starts_with("{\"sequence\":")));
}

#[test]
fn a_receiver_that_is_not_there_is_said_and_gets_all_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let last = write(&settings, 0..5);
    let path = folder.path().join("log");
    let destination = Destination::Syslog(path.clone());
    let exporter = Exporter::start(parts(&settings, destination)).unwrap();
    wait_until("the failure", || exporter.health().last_error.is_some());
    let receiver = UnixDatagram::bind(&path).unwrap();
    let mut message = [0; 4_096];
    for sequence in 1..=last {
        let length = receiver.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]);
        assert!(
            text.contains(&format!(" sequence=\"{sequence}\"")),
            "{text}"
        );
    }
    wait_until("the recovery", || exporter.health().last_error.is_none());
}

#[test]
fn a_batch_for_the_gateway_is_offered_until_it_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let last = write(&settings, 0..3);
    let (batches, offered) = mpsc::channel();
    let (outcomes, heard) = mpsc::channel();
    let hand_over: HandOver = Box::new(move |batch| batches.send(batch).is_ok());
    let exporter = Exporter::start(ExporterParts {
        gateway: Some((hand_over, heard)),
        ..parts(&settings, Destination::Gateway)
    })
    .unwrap();
    let patience = Duration::from_secs(10);
    let first: ExportBatch = offered.recv_timeout(patience).unwrap();
    assert_eq!(first.records.len() as u64, last);
    let failed = ExportOutcome::Failed("503".to_owned());
    outcomes.send((first.batch, failed)).unwrap();
    let second = offered.recv_timeout(patience).unwrap();
    assert_eq!(second.records, first.records);
    // What is said of the first batch is not believed of the second.
    outcomes
        .send((first.batch, ExportOutcome::Delivered))
        .unwrap();
    outcomes
        .send((second.batch, ExportOutcome::Rejected("400".to_owned())))
        .unwrap();
    wait_until("the rejection", || exporter.health().rejected == last);
    let more = write(&settings, 3..4);
    let third = offered.recv_timeout(patience).unwrap();
    assert!(third.records[0].contains(&format!("\"sequence\":{}", last + 1)));
    outcomes
        .send((third.batch, ExportOutcome::Delivered))
        .unwrap();
    wait_until("the delivery", || exporter.health().sequence == more);
}
