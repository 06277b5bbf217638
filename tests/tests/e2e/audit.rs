//! The audit log of real sessions: the proof of the cut, questions, and tampering that is found.

use std::time::Duration;

use anyhow::{Result, ensure};
use enforcer_tests::{
    Scene, Streams,
    bed::CLIENT_IPV4,
    daemon::{Daemon, Output, run_cli},
    streams::instant,
    wait,
};
use rusqlite::Connection;
use serde_json::Value;

/// Runs sessions of bob and alice to their end; returns the record of the second.
fn run_sessions(scene: &Scene, daemon: &Daemon<'_>) -> Result<Value> {
    let client = scene.client()?;
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("bob", deadline)?;
    ensure!(client.get("/headers", &token)?.status == 200);
    let token = scene.token_until("alice", deadline)?;
    Streams::start(&client, &token)?.end()?;
    let ended =
        |subject| daemon.wait_for_audit("session_ended", |record| record["subject"] == subject);
    ended("bob")?;
    ended("alice")
}

fn lines(output: &Output) -> Vec<&str> {
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.lines().collect()
}

#[test]
fn a_cut_is_proven_records_are_found_and_tampering_shows() {
    let scene = Scene::new("audit").unwrap();
    let mut daemon = scene.start().unwrap();
    let record = run_sessions(&scene, &daemon).unwrap();

    assert_eq!(record["payload_after_deadline"], 0, "{record}");
    assert_eq!(record["sockets_unheard"], 0, "{record}");
    assert_eq!(record["lateness_us"], 0, "{record}");
    // A download and a WebSocket, each with its upstream's.
    assert!(record["sockets"].as_u64().unwrap() >= 3, "{record}");
    assert!(
        record["sockets_reset"].as_u64() <= record["sockets"].as_u64(),
        "{record}"
    );
    assert!(
        record["reset_lateness_us"].as_u64().unwrap() < 200_000,
        "{record}"
    );
    let last_payload = instant(&record, "last_payload_at").unwrap();
    assert!(
        last_payload < instant(&record, "deadline").unwrap(),
        "{record}"
    );

    let session = record["session"].as_str().unwrap();
    let alice = [
        "audit",
        "--session",
        session,
        "--event",
        "session_ended",
        "--json",
    ];
    let client = CLIENT_IPV4.to_string();
    let questions: [(&[&str], usize); 5] = [
        (&alice, 1),
        (
            &[
                "audit",
                "--subject",
                "bob",
                "--format",
                "csv",
                "--limit",
                "1",
            ],
            2,
        ),
        (
            &[
                "audit",
                "--reason",
                "token",
                "--policy",
                "main",
                "--event",
                "session_ended",
                "--json",
            ],
            2,
        ),
        (
            &[
                "audit",
                "--address",
                &client,
                "--subject",
                "bob",
                "--event",
                "connection_opened",
            ],
            2,
        ), // and a header
        (&["audit", "--until", "2020-01-01T00:00:00Z", "--json"], 0),
    ];
    let ask = |dead: bool| {
        for (question, found) in questions {
            let output = run_cli(&scene.bed, question).unwrap();
            assert_eq!(
                lines(&output).len(),
                found,
                "dead: {dead}, {question:?}: {output:?}"
            );
        }
    };
    ask(false);
    lines(&daemon.cli(&["audit", "verify"]).unwrap());
    daemon.terminate().unwrap();
    ask(true);
    let verified = run_cli(&scene.bed, &["audit", "verify", "--json"]).unwrap();
    let verification = verified.json().unwrap();
    assert_eq!(verification["intact"], true, "{verified:?}");
    assert_eq!(
        verification["vouched_for"], verification["last"],
        "{verified:?}"
    );

    // Alice never was here.
    let database = Connection::open(scene.bed.path("state/audit.db")).unwrap();
    let number = record["sequence"].as_i64().unwrap();
    database
        .execute("DELETE FROM records WHERE sequence = ?", [number])
        .unwrap();
    let found = run_cli(&scene.bed, &["audit", "verify"]).unwrap();
    assert_eq!(found.code, 1, "{found:?}");
    assert!(
        found
            .stdout
            .contains(&format!("record {number} is missing")),
        "{found:?}"
    );
    database
        .execute("DELETE FROM records WHERE sequence > ?", [number])
        .unwrap();
    let found = run_cli(&scene.bed, &["audit", "verify"]).unwrap();
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("the end was cut off"), "{found:?}");

    // The next daemon notices by itself.
    drop(database);
    daemon.start_again().unwrap();
    let noticed = daemon.wait_for_audit("audit_tampered", |_| true).unwrap();
    assert_eq!(noticed["reason"], "truncated");
}

#[test]
fn a_database_that_is_damaged_meanwhile_is_replaced_and_the_cut_is_on_time() {
    let scene = Scene::new("damaged-audit").unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    daemon.wait_for_audit("gateway_started", |_| true).unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();
    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    let opened = daemon.wait_for_audit("session_opened", |_| true).unwrap();
    let database = Connection::open(scene.bed.path("state/audit.db")).unwrap();
    database.execute_batch("DROP TABLE records").unwrap();
    drop(database);

    let ended = streams.end().unwrap();
    ended
        .check_cut(&capture.finish().unwrap(), deadline)
        .unwrap();
    let begun = daemon
        .wait_for_audit("audit_chain_started", |_| true)
        .unwrap();
    assert_eq!(begun["reason"], "corrupt");
    assert_eq!(begun["sequence"], 1);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["session"], opened["session"]);
    lines(&daemon.cli(&["audit", "verify"]).unwrap());
    let kept = std::fs::read_dir(scene.bed.path("state")).unwrap();
    let kept = kept.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("audit.db.corrupt-")
    });
    assert!(kept.count() > 0);
}

#[test]
fn refusals_that_come_too_often_become_one_record_with_their_number() {
    const REFUSED: u64 = 60;
    let scene = Scene::new("refusals").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    for _ in 0..REFUSED {
        assert_eq!(client.get("/headers", "no token").unwrap().status, 401);
    }
    daemon.terminate().unwrap();
    let refused = ["audit", "--event", "session_refused", "--json"];
    let refused = run_cli(&scene.bed, &refused).unwrap();
    let refused = lines(&refused);
    assert!(refused.len() < 30, "{} records", refused.len());
    let stands_for = |line: &&str| {
        let record: Value = serde_json::from_str(line).unwrap();
        1 + record["repeated"].as_u64().unwrap_or(0)
    };
    assert_eq!(refused.iter().map(stands_for).sum::<u64>(), REFUSED);
}
