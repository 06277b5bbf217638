//! Audit records on their way elsewhere: a file, syslog, a collector that is not there at first, a
//! receiver that comes and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use enforcer_tests::{
    Scene, Streams,
    collector::Collector,
    config::{Audit, CollectorOutbound, Export},
    metrics::Metrics,
    rsyslog::{self, Rsyslog},
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
        ca: Some(scene.ca_file()),
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
            (
                "syslog".to_owned(),
                Export::Syslog {
                    syslog: syslog.display().to_string(),
                    outbound: None,
                },
            ),
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

    let figures = Metrics::of(daemon.cli(&["metrics"]).unwrap().stdout);
    figures.check().unwrap();
    let of = |name: &str, export: &str| {
        let series = format!(r#"enforcer_audit_export_{name}{{export="{export}"}}"#);
        figures.value(&series)
    };
    assert!(of("failures_total", "collector").unwrap() >= 1.0);
    assert!(of("behind_records", "collector").unwrap() >= record["sequence"].as_f64().unwrap());
    assert_eq!(of("last_success_timestamp_seconds", "collector"), None);
    assert!(of("last_success_timestamp_seconds", "file").is_some());
    assert_eq!(of("failures_total", "file"), Some(0.0));

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

#[test]
fn a_syslog_server_that_restarts_misses_nothing_over_tcp_and_tls() {
    let mut scene = Scene::new("rsyslog").unwrap();
    let mut rsyslog = Rsyslog::start(&scene.bed, &scene.authority).unwrap();
    let outbound = |ca| {
        Some(CollectorOutbound {
            ca,
            allow_networks: vec!["127.0.0.0/8".to_owned()],
        })
    };
    let export = |transport: &str, ca| {
        let syslog = rsyslog::address(transport);
        let outbound = outbound(ca);
        (transport.to_owned(), Export::Syslog { syslog, outbound })
    };
    scene.config.audit = Some(Audit {
        exports: BTreeMap::from([
            export("tls", Some(scene.ca_file())),
            export("tcp", None),
            export("udp", None),
        ]),
    });
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    // Something is always under way when it ends, and while it is away.
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                assert_eq!(client.get("/headers", &token).unwrap().status, 200);
            }
        });
        let restarted = (0..3).try_for_each(|_| {
            let before = rsyslog.sequences("tls").map_or(0, |got| got.len());
            rsyslog.restart(&scene.bed)?;
            wait::until("records came again", || {
                (rsyslog.sequences("tls").ok()?.len() > before).then_some(())
            })
        });
        enough.store(true, Ordering::Relaxed);
        restarted.unwrap();
    });
    daemon
        .cli(&["sessions", "revoke", "--subject", "alice"])
        .unwrap();
    let last = daemon.wait_for_end().unwrap()["sequence"].as_u64().unwrap();
    for transport in ["tls", "tcp"] {
        let got = wait::until("the server had the last record", || {
            let got = rsyslog.sequences(transport).ok()?;
            got.contains(&last).then_some(got)
        })
        .unwrap();
        let missing: BTreeSet<_> = (1..=last).filter(|it| !got.contains(it)).collect();
        assert!(missing.is_empty(), "{transport} lacks {missing:?}");
    }
    wait::until("the last record came over UDP", || {
        rsyslog.sequences("udp").ok()?.contains(&last).then_some(())
    })
    .unwrap();
    wait::until("status found nothing wrong", || {
        (daemon.cli(&["status"]).ok()?.code == 0).then_some(())
    })
    .unwrap();
    // What is sent makes no records of its own: a log that follows itself would never end.
    let records = daemon.audit().unwrap();
    let of_its_own = records
        .iter()
        .filter(|it| it.to_string().contains(":6514\""));
    assert_eq!(of_its_own.count(), 0, "{records:?}");
    daemon.terminate().unwrap();
}
