//! Audit records on their way elsewhere: a file, syslog, a collector that is not there at first.

use std::{collections::BTreeMap, os::unix::net::UnixDatagram, time::Duration};

use enforcer_tests::{
    Scene, Streams,
    collector::Collector,
    config::{Audit, CollectorOutbound, Export},
    wait,
};
use http::StatusCode;

#[test]
fn records_reach_every_receiver_once_it_takes_them_and_a_cut_waits_for_none() {
    let mut scene = Scene::new("exports").unwrap();
    let collector = Collector::start(scene.bed.daemon(), &scene.authority).unwrap();
    let file = scene.bed.path("records.jsonl");
    let syslog = scene.bed.path("log.sock");
    let receiver = UnixDatagram::bind(&syslog).unwrap();
    receiver.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let outbound = CollectorOutbound {
        ca: scene.ca_file(),
        allow_networks: vec!["127.0.0.0/8".to_owned()],
    };
    let otlp = collector.url();
    scene.config.audit = Some(Audit {
        exports: BTreeMap::from([
            (
                "file".to_owned(),
                Export::File {
                    json_file: file.clone(),
                },
            ),
            ("syslog".to_owned(), Export::Syslog { syslog }),
            ("collector".to_owned(), Export::Otlp { otlp, outbound }),
        ]),
    });
    let mut daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(1));
    let token = scene.token_until("alice", deadline).unwrap();
    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    let ended = streams.end().unwrap();
    ended
        .check_cut(&capture.finish().unwrap(), deadline)
        .unwrap();
    let record = daemon.wait_for_end().unwrap();

    wait::until("the file had the record", || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.contains("\"session_ended\"").then_some(())
    })
    .unwrap();
    let mut message = [0; 8_192];
    loop {
        let length = receiver.recv(&mut message).expect("syslog messages");
        let text = String::from_utf8_lossy(&message[..length]);
        assert!(text.starts_with("<8"), "{text}");
        if text.contains(" session_ended [enforcer@32473 ") {
            assert!(text.contains(" subject=\"alice\""), "{text}");
            break;
        }
    }
    wait::until("the collector was asked", || {
        (collector.asked() > 0).then_some(())
    })
    .unwrap();
    wait::until("status said that it does not take them", || {
        let status = daemon.cli(&["status"]).ok()?;
        let said = "audit export collector does not deliver: the collector answered 503";
        (status.code == 1 && status.stdout.contains(said)).then_some(())
    })
    .unwrap();

    // It comes back while no daemon runs.
    daemon.terminate().unwrap();
    collector.answer(StatusCode::OK);
    daemon.start_again().unwrap();
    let sequence = record["sequence"].to_string();
    wait::until("the collector had the record", || {
        let sequences = collector.values("enforcer.sequence");
        sequences.contains(&sequence).then_some(())
    })
    .unwrap();
    let sequences = collector.values("enforcer.sequence");
    let last = record["sequence"].as_u64().unwrap();
    assert!(
        (1..=last).all(|number| sequences.contains(&number.to_string())),
        "{sequences:?}"
    );
    assert!(collector.values("enforcer.subject").contains("alice"));
    wait::until("status found nothing wrong", || {
        (daemon.cli(&["status"]).ok()?.code == 0).then_some(())
    })
    .unwrap();
}
