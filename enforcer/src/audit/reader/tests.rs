use std::net::SocketAddr;

use super::*;
use crate::{
    audit::{AuditLog, AuditSettings, Event, Record, parse_network},
    clock::WallInstant,
    session::{Principal, SessionId},
};

fn record(second: i64, event: Event, subject: &str) -> Record {
    let principal = Principal {
        issuer: "https://idp.example".to_owned(),
        subject: subject.to_owned(),
    };
    Record::new(WallInstant::from_unix_seconds(second), event).by(&principal)
}

fn log(records: impl IntoIterator<Item = Record>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let log = AuditLog::open(settings.clone()).unwrap();
    for record in records {
        log.sink().write(record);
    }
    log.close();
    (folder, settings.database())
}

/// The seconds of the matching records, without the log's own.
fn seconds(path: &Path, filter: Filter) -> Vec<i64> {
    let reader = AuditReader::open(path, filter).unwrap();
    let records = reader.records();
    records
        .map(|stored| serde_json::from_str::<Record>(&stored.unwrap().text).unwrap())
        .filter(|record| !record.event.as_str().starts_with("audit_"))
        .map(|record| record.time.as_unix_seconds())
        .collect()
}

#[test]
fn filters_pick_by_what_records_say() {
    let session = SessionId::from_u64(0xfedc_ba98_7654_3210).unwrap();
    let end = |address: &str| Some(address.parse::<SocketAddr>().unwrap());
    let mut opened = record(1, Event::SessionOpened, "alice");
    opened.session = Some(session);
    opened.policies = vec!["a".to_owned(), "b".to_owned()];
    let mut ended = record(2, Event::SessionEnded, "alice").because("deadline");
    ended.client = end("192.0.2.7:443");
    let mut refused = record(3, Event::SessionRefused, "bob").because("token_expired");
    refused.client = end("[2001:db8::1]:1");
    refused.proxied_client = end("198.51.100.9:2");
    let (_folder, path) = log([opened, ended, refused]);
    let network = |text| Some(parse_network(text).unwrap());
    let second = |second| Some(WallInstant::from_unix_seconds(second));
    let text = |text: &str| Some(text.to_owned());
    let any = Filter::default;
    for (filter, expected) in [
        (any(), &[1, 2, 3][..]),
        (
            Filter {
                since: second(2),
                ..any()
            },
            &[2, 3],
        ),
        (
            Filter {
                until: second(2),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                since: second(2),
                until: second(3),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                since: second(9),
                until: second(10),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                subject: text("alice"),
                ..any()
            },
            &[1, 2],
        ),
        (
            Filter {
                subject: text("alice' OR 1"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                event: Some(Event::SessionRefused),
                ..any()
            },
            &[3],
        ),
        (
            Filter {
                reason: text("deadline"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                policy: text("b"),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                session: Some(session),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                address: network("192.0.2.7"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                address: network("192.0.2.0/24"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                address: network("198.51.100.9"),
                ..any()
            },
            &[3],
        ),
        (
            Filter {
                address: network("2001:db8::/32"),
                ..any()
            },
            &[3],
        ),
        (
            Filter {
                address: network("::/0"),
                ..any()
            },
            &[2, 3],
        ),
        (
            Filter {
                address: network("192.0.3.0/24"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                subject: text("alice"),
                event: Some(Event::SessionEnded),
                ..any()
            },
            &[2],
        ),
    ] {
        assert_eq!(seconds(&path, filter.clone()), expected, "{filter:?}");
    }
}

#[test]
fn the_latest_are_the_last_that_match() {
    let records = (0..2_000).map(|second| {
        let subject = if second % 2 == 0 { "even" } else { "odd" };
        record(second, Event::SessionOpened, subject)
    });
    let (_folder, path) = log(records);
    let filter = Filter {
        subject: Some("even".to_owned()),
        ..Filter::default()
    };
    let mut reader = AuditReader::open(&path, filter.clone()).unwrap();
    reader.skip_to_latest(3).unwrap();
    let found = reader.read(100).unwrap();
    assert_eq!(found.len(), 3);
    assert!(found[2].text.contains("00:33:18"), "{found:?}");
    assert!(found[0].line().starts_with("{\"sequence\":"), "{found:?}");
    let whole: Vec<_> = seconds(&path, filter);
    assert!(whole.into_iter().eq((0..2_000).step_by(2)));
}

#[test]
fn a_followed_log_may_come_later_grow_and_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings::within(folder.path());
    let path = settings.database();
    let filter = Filter {
        event: Some(Event::SessionOpened),
        ..Filter::default()
    };
    let mut reader = AuditReader::follow(&path, filter).unwrap();
    assert_eq!(reader.read(10).unwrap(), []);
    for round in 1..=2 {
        let log = AuditLog::open(settings.clone()).unwrap();
        log.sink()
            .write(record(round, Event::SessionOpened, "alice"));
        log.close();
        let found = reader.read(10).unwrap();
        assert_eq!(found.len(), 1, "round {round}");
        assert_eq!(reader.read(10).unwrap(), []);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(reader.read(10).unwrap(), []);
    let log = AuditLog::open(settings).unwrap();
    log.sink().write(record(3, Event::SessionOpened, "alice"));
    log.close();
    let found = reader.read(10).unwrap();
    assert!(found[0].text.contains("00:00:03"), "{found:?}");
}

#[test]
fn a_missing_log_is_an_error_unless_it_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    assert!(matches!(
        AuditReader::open(&path, Filter::default()),
        Err(ReadError::Open { .. })
    ));
}

#[test]
fn common_questions_are_answered_by_an_index() {
    let (_folder, path) = log([record(1, Event::SessionOpened, "alice")]);
    let connection = open(&path).unwrap();
    let plan = |filter: Filter| {
        let Condition { sql, values } = filter.condition();
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT record FROM records \
             WHERE sequence > 0 AND sequence <= 9{sql} ORDER BY sequence LIMIT 1"
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3));
        rows.unwrap()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let any = Filter::default;
    for (filter, index) in [
        (
            Filter {
                subject: Some("a".to_owned()),
                ..any()
            },
            "records_by_subject",
        ),
        (
            Filter {
                session: SessionId::from_u64(1),
                ..any()
            },
            "records_by_session",
        ),
        (
            Filter {
                event: Some(Event::Violation),
                ..any()
            },
            "records_by_event",
        ),
        (
            Filter {
                reason: Some("a".to_owned()),
                ..any()
            },
            "records_by_reason",
        ),
        (
            Filter {
                address: Some(parse_network("::1").unwrap()),
                ..any()
            },
            "records_by_client",
        ),
    ] {
        let plan = plan(filter.clone());
        assert!(plan.contains(index), "{filter:?}: {plan}");
        let sorts = plan.contains("TEMP B-TREE") && filter.address.is_none();
        assert!(!sorts, "{filter:?}: {plan}");
    }
}
