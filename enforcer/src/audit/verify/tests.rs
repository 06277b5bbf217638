use super::*;
use crate::{
    audit::{AuditLog, AuditSettings, Record},
    clock::WallInstant,
    session::{Principal, SessionId},
};

const RECORDS: i64 = 200;

struct Fixture {
    _folder: tempfile::TempDir,
    settings: AuditSettings,
    last: u64,
}

impl Fixture {
    /// A log with a head in the middle and one at the end.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = AuditSettings::within(folder.path());
        let mut last = 0;
        for half in [0..RECORDS / 2, RECORDS / 2..RECORDS] {
            let log = AuditLog::open(settings.clone()).unwrap();
            for number in half {
                let principal = Principal {
                    issuer: "https://idp.example".to_owned(),
                    subject: format!("user {number}"),
                };
                let id = SessionId::from_u64(number.unsigned_abs() + 1).unwrap();
                let time = WallInstant::from_unix_nanos(number * 1_234_567_891);
                log.sink()
                    .write(Record::new(time, Event::SessionEnded).of(id, &principal));
            }
            last = log.close().sequence;
        }
        Self {
            _folder: folder,
            settings,
            last,
        }
    }

    fn tamper(&self, sql: &str) {
        let database = Connection::open(self.settings.database()).unwrap();
        database.execute_batch(sql).unwrap();
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            heads: Some(self.settings.heads_file.clone()),
            public_key: Some(PublicKey::read(&self.settings.public_key()).unwrap()),
        }
    }

    fn verify(&self) -> Verification {
        verify(&self.settings.database(), &self.evidence()).unwrap()
    }

    /// What the tampering shows as: fault, first and last record.
    fn faults(&self) -> Vec<(Fault, u64, u64)> {
        let verification = self.verify();
        assert_eq!(verification.intact, verification.findings.is_empty());
        let findings = verification.findings.iter();
        findings
            .map(|finding| (finding.fault, finding.first, finding.last))
            .collect()
    }

    /// Makes the chain anew from `first` on, as somebody who knows how can.
    fn rehash(&self, first: u64) {
        let database = Connection::open(self.settings.database()).unwrap();
        let row = |sequence: u64| {
            let sql = "SELECT record, hash FROM records WHERE sequence = ?";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
            database.query_row(sql, [sequence.cast_signed()], read)
        };
        let hash = row(first - 1).unwrap().1;
        let mut position = Position {
            sequence: first - 1,
            hash: Hash::from_bytes(hash),
        };
        while let Ok((text, _)) = row(position.sequence + 1) {
            position = position.next(&text);
            let sql = "UPDATE records SET hash = ? WHERE sequence = ?";
            let values =
                rusqlite::params![position.hash.as_bytes(), position.sequence.cast_signed()];
            database.execute(sql, values).unwrap();
        }
    }
}

#[test]
fn what_was_written_is_intact() {
    let fixture = Fixture::new();
    let verification = fixture.verify();
    assert!(verification.intact, "{verification:#?}");
    assert_eq!(verification.last, fixture.last);
    assert_eq!(verification.records, fixture.last);
    assert_eq!(verification.vouched_for, fixture.last);
    assert!(verification.heads >= 2, "{verification:?}");
}

#[test]
fn every_kind_of_tampering_is_found_and_named() {
    let last = Fixture::new().last;
    let swap = "UPDATE records SET sequence = -1 WHERE sequence = 50;
        UPDATE records SET sequence = 50 WHERE sequence = 120;
        UPDATE records SET sequence = 120 WHERE sequence = -1;";
    let neighbours = "UPDATE records SET sequence = -1 WHERE sequence = 50;
        UPDATE records SET sequence = 50 WHERE sequence = 51;
        UPDATE records SET sequence = 51 WHERE sequence = -1;";
    let word = "UPDATE records SET record = replace(record, 'session_ended', 'session_ENDED')
        WHERE sequence = 60";
    let text = "UPDATE records SET record = replace(record, 'idp', 'IDP') WHERE sequence = 60";
    for (sql, expected) in [
        (
            "DELETE FROM records WHERE sequence = 50",
            vec![(Fault::Removed, 50, 50)],
        ),
        (
            "DELETE FROM records WHERE sequence BETWEEN 50 AND 60 OR sequence = 70",
            vec![(Fault::Removed, 50, 60), (Fault::Removed, 70, 70)],
        ),
        (
            "DELETE FROM records WHERE sequence < 10",
            vec![(Fault::Removed, 1, 9)],
        ),
        (text, vec![(Fault::Changed, 60, 60)]),
        (
            word,
            vec![(Fault::Mislabelled, 60, 60), (Fault::Changed, 60, 60)],
        ),
        (
            "UPDATE records SET subject = 'nobody' WHERE sequence = 60",
            vec![(Fault::Mislabelled, 60, 60)],
        ),
        (
            "UPDATE records SET time = time + 1, session = session + 1 WHERE sequence = 60",
            vec![(Fault::Mislabelled, 60, 60)],
        ),
        (
            swap,
            vec![(Fault::Reordered, 50, 50), (Fault::Reordered, 120, 120)],
        ),
        (
            neighbours,
            vec![(Fault::Reordered, 50, 50), (Fault::Reordered, 51, 51)],
        ),
        (
            "DELETE FROM records WHERE sequence > 150",
            vec![(Fault::Truncated, 151, last)],
        ),
    ] {
        let fixture = Fixture::new();
        fixture.tamper(sql);
        let mut found = fixture.faults();
        found.sort_by_key(|(fault, first, _)| (*first, *fault == Fault::Changed));
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn a_chain_that_was_made_anew_contradicts_the_heads() {
    const CHANGED: u64 = 150;
    let fixture = Fixture::new();
    // Where the writer signed beside its last record depends on how the threads ran.
    let (before, after): (Vec<_>, Vec<_>) = heads::read(&fixture.settings.heads_file)
        .unwrap()
        .into_iter()
        .map(|head| head.unwrap().sequence)
        .partition(|sequence| *sequence < CHANGED);
    let vouched_for = before.into_iter().max().unwrap();
    let contradicted = after.into_iter().min().unwrap();
    fixture
        .tamper("UPDATE records SET record = replace(record, 'idp', 'IDP') WHERE sequence = 150");
    fixture.rehash(CHANGED);
    assert_eq!(
        fixture.faults(),
        [(Fault::Rewritten, vouched_for + 1, contradicted)]
    );
    // Without heads it can't be known.
    let alone = Evidence {
        heads: None,
        ..fixture.evidence()
    };
    assert!(verify(&fixture.settings.database(), &alone).unwrap().intact);
}

#[test]
fn a_cut_end_that_grew_again_contradicts_the_heads() {
    let fixture = Fixture::new();
    fixture.tamper("DELETE FROM records WHERE sequence > 150");
    let log = AuditLog::open(fixture.settings.clone()).unwrap();
    for second in 0..RECORDS {
        let time = WallInstant::from_unix_seconds(second);
        log.sink().write(Record::new(time, Event::Violation));
    }
    log.close();
    let verification = fixture.verify();
    let fault = verification.findings[0].fault;
    assert_eq!(fault, Fault::Rewritten, "{verification:#?}");
}

#[test]
fn forged_heads_anchors_and_chains_are_found() {
    let fixture = Fixture::new();
    let heads = std::fs::read_to_string(&fixture.settings.heads_file).unwrap();
    let forged = heads.replacen("\"sequence\":", "\"sequence\":1", 1) + "no head\n";
    std::fs::write(&fixture.settings.heads_file, &forged).unwrap();
    let faults: Vec<_> = fixture
        .faults()
        .into_iter()
        .map(|(fault, ..)| fault)
        .collect();
    assert!(faults.contains(&Fault::Unsigned), "{faults:?}");
    assert!(faults.contains(&Fault::NotAHead), "{faults:?}");
    std::fs::write(&fixture.settings.heads_file, &heads).unwrap();

    fixture.tamper("UPDATE chain SET id = x'00112233445566778899aabbccddeeff'");
    let faults: Vec<_> = fixture
        .faults()
        .into_iter()
        .map(|(fault, ..)| fault)
        .collect();
    assert!(faults.contains(&Fault::Changed), "{faults:?}");
    assert!(faults.contains(&Fault::OtherChain), "{faults:?}");

    // Somebody removes the begin and says that it was in good order.
    let fixture = Fixture::new();
    fixture.tamper(
        "INSERT INTO anchor SELECT sequence, hash, '2026-01-01T00:00:00Z', 'AAAA' FROM records
         WHERE sequence = 40; DELETE FROM records WHERE sequence <= 40",
    );
    assert_eq!(fixture.faults()[0], (Fault::Unsigned, 1, 40));
}
