//! The canary sees a kernel that cuts, and one that doesn't.

use std::fs;

use enforcer_tests::{
    Scene,
    metrics::{self, Metrics},
    process, wait,
};

#[test]
fn a_canary_passes_and_fails_when_a_program_is_detached() {
    let mut scene = Scene::new("canary").unwrap();
    scene.config.monitoring = metrics::section();
    let daemon = scene.start().unwrap();
    let passed = daemon.cli(&["canary", "--json"]).unwrap();
    assert_eq!(passed.code, 0, "{passed:?}");
    let passed = passed.json().unwrap();
    assert_eq!(passed["passed"], true);
    assert!(
        passed["lateness_us"].as_u64().unwrap() < 1_000_000,
        "{passed}"
    );
    let end = daemon.wait_for_end().unwrap();
    assert_eq!(
        (&end["subject"], &end["reason"]),
        (&"canary".into(), &"deadline".into())
    );
    // Until the reset, it was the kernel's programs that stopped payload.
    assert_eq!(end["lateness_us"], 0, "{end}");
    assert!(end["dropped_packets"].as_u64().unwrap() > 0, "{end}");
    assert_eq!(end["sockets_reset"], 1, "{end}");
    let record = daemon.wait_for_audit("canary_passed", |_| true).unwrap();
    assert_eq!(record["session"], end["session"]);
    let status = daemon.cli(&["status", "--json"]).unwrap();
    assert_eq!(status.code, 0, "{status:?}");
    assert_eq!(status.json().unwrap()["canary"]["passed"], true);

    let link = scene.bed.bpf_dir().join("links/egress");
    let link = link.to_string_lossy();
    process::run("bpftool", &["link", "detach", "pinned", &link]).unwrap();
    let failed = daemon.cli(&["canary"]).unwrap();
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stdout.contains("payload passed"), "{failed:?}");
    let record = daemon.wait_for_audit("canary_failed", |_| true).unwrap();
    assert_eq!(record["reason"], "payload_after_limit");
    let status = daemon.cli(&["status", "--json"]).unwrap();
    assert_eq!(status.code, 1, "{status:?}");
    assert!(
        status.stdout.contains("the last canary failed"),
        "{status:?}"
    );
    let figures = Metrics::scrape(&scene.bed).unwrap();
    for (series, expected) in [
        (r#"enforcer_canary_runs_total{result="passed"}"#, 1.0),
        (r#"enforcer_canary_runs_total{result="failed"}"#, 1.0),
        ("enforcer_canary_last_success", 0.0),
        (r#"enforcer_program_attached{program="egress"}"#, 0.0),
    ] {
        assert_eq!(figures.value(series), Some(expected), "{series}");
    }
    let log = fs::read_to_string(scene.bed.path("daemon.log")).unwrap();
    assert!(log.contains("canary_failed"), "{log}");
}

#[test]
fn a_reload_meanwhile_fails_no_canary() {
    let scene = Scene::new("canary-reload").unwrap();
    let daemon = scene.start().unwrap();
    let old = daemon.gateway_pid().unwrap();
    std::thread::scope(|scope| {
        let canary = scope.spawn(|| daemon.cli(&["canary", "--json"]).unwrap());
        daemon
            .wait_for_audit("session_opened", |record| record["subject"] == "canary")
            .unwrap();
        let reloaded = daemon.cli(&["reload"]).unwrap();
        assert_eq!(reloaded.code, 0, "{reloaded:?}");
        let canary = canary.join().unwrap();
        assert_eq!(canary.code, 0, "{canary:?}");
    });
    wait::until("the old gateway has left", || {
        (daemon.gateway_pid().ok()? != old).then_some(())
    })
    .unwrap();
}

#[test]
fn a_canary_without_a_gateway_that_answers_fails_in_time() {
    let scene = Scene::new("canary-silent").unwrap();
    let daemon = scene.start().unwrap();
    let gateway = daemon.gateway_pid().unwrap();
    process::send(gateway, rustix::process::Signal::STOP).unwrap();
    let failed = daemon.cli(&["canary", "--json"]).unwrap();
    process::send(gateway, rustix::process::Signal::CONT).unwrap();
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stdout.contains("did not say in time"), "{failed:?}");
    wait::until("the next one passed", || {
        (daemon.cli(&["canary"]).ok()?.code == 0).then_some(())
    })
    .unwrap();
}
