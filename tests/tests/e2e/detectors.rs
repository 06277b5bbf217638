//! Alerts on real traffic. The recordings that the detectors' own tests read come from here.

use std::time::Duration;

use enforcer::clock;
use enforcer_tests::{
    Scene, bed::CABLE, certificates::SERVER_NAME, daemon::Daemon, issuer::Claims, process,
    scene::PORT, wait,
};

/// Thresholds that a short test meets.
const SECTIONS: &str = "
[detectors.refresh_storm]
threshold = 5
[detectors.idle_return]
threshold = 50
[detectors.address_burst]
threshold = 6
[detectors.many_networks]
threshold = 3
[detectors.ended_token]
threshold = 3
[detectors.clock_skew]
threshold = 3
";

fn scene(label: &str) -> Scene {
    let mut scene = Scene::new(label).expect("the bed does as it is told");
    scene.config.monitoring = SECTIONS.to_owned();
    scene
}

/// Gives the client further networks, and the daemon the way back.
fn spread(scene: &Scene) {
    let namespace = |namespace: &enforcer_tests::namespace::Namespace| {
        let file = namespace.file().expect("the bed does as it is told");
        file.file_name()
            .expect("the bed does as it is told")
            .to_string_lossy()
            .into_owned()
    };
    let (client, daemon) = (namespace(scene.bed.client()), namespace(scene.bed.daemon()));
    for network in ["10.78.0", "10.79.0"] {
        let address = format!("{network}.1/24");
        process::run(
            "ip",
            &["-n", &client, "address", "add", &address, "dev", CABLE],
        )
        .expect("the bed does as it is told");
        let route = format!("{network}.0/24");
        process::run("ip", &["-n", &daemon, "route", "add", &route, "dev", CABLE])
            .expect("the bed does as it is told");
    }
}

/// One request from an address of the client's.
fn get_from(scene: &Scene, address: &str, token: &str) {
    let client = scene.client().expect("the bed does as it is told");
    let url = format!("https://{SERVER_NAME}:{PORT}/headers");
    let authorization = format!("authorization: Bearer {token}");
    let arguments = ["--interface", address, "-H", &authorization, &url];
    let tools = scene
        .bed
        .tools_cgroup()
        .expect("the bed does as it is told");
    let output = client
        .curl(&tools, &scene.ca_file(), &arguments)
        .expect("the bed does as it is told");
    assert!(output.status.success(), "{output:?}");
}

fn alert(daemon: &Daemon<'_>, detector: &str) -> serde_json::Value {
    let alert = daemon.wait_for_audit("alert", |record| record["reason"] == detector);
    alert.expect("the bed does as it is told")
}

#[test]
fn a_storm_of_renewals_and_tokens_of_an_ended_session() {
    let scene = scene("alerts-tokens");
    let daemon = scene.start().unwrap();
    let connection = scene.client().unwrap().connection().unwrap();
    let mut token = String::new();
    for hours in 1..=7 {
        let at = clock::wall_now().saturating_add(Duration::from_secs(hours * 3_600));
        let claims = Claims::new("alice", at).with("sid", "one");
        token = scene.issuer.sign(&claims).unwrap();
        assert_eq!(connection.get("/headers", &token).unwrap().status, 200);
    }
    let storm = alert(&daemon, "refresh_storm");
    assert_eq!(storm["subject"], "alice");
    assert!(storm["session"].is_string(), "{storm}");

    let outcome = daemon.cli(&["sessions", "revoke", "--all"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let client = scene.client().unwrap();
    for _ in 0..4 {
        assert_eq!(client.get("/headers", &token).unwrap().status, 401);
    }
    assert_eq!(alert(&daemon, "ended_token")["subject"], "alice");
}

#[test]
fn a_clock_that_is_ahead_and_an_address_that_is_refused_a_lot() {
    let mut scene = scene("alerts-refusals");
    scene.config.policy().max_session = "1s".to_owned();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let later = clock::wall_now().saturating_add(Duration::from_secs(3_600));
    let claims = Claims::new("bob", later.saturating_add(Duration::from_secs(60)));
    let early = claims.with("iat", later.as_unix_seconds());
    let early = scene.issuer.sign(&early).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/headers", &early).unwrap().status, 401);
    }
    let skew = alert(&daemon, "clock_skew");
    assert_eq!(skew["issuer"], enforcer_tests::issuer::ISSUER);

    // With the session's expiry it is six.
    let token = scene.token("alice").unwrap();
    assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    daemon.wait_for_end().unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/headers", "").unwrap().status, 401);
    }
    let burst = alert(&daemon, "address_burst");
    assert!(
        burst["detail"].as_str().unwrap().contains("10.77.0.1"),
        "{burst}"
    );
}

#[test]
fn a_subject_in_many_networks_and_a_session_that_comes_back_from_elsewhere() {
    let mut scene = scene("alerts-networks");
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    let daemon = scene.start().unwrap();
    spread(&scene);
    let token = scene.token("alice").unwrap();
    get_from(&scene, "10.77.0.1", &token);
    let used_at = clock::boot_now();
    // Past half of the idle timeout.
    wait::until_instant(used_at.saturating_add(Duration::from_millis(1_300)));
    get_from(&scene, "10.78.0.1", &token);
    let back = alert(&daemon, "idle_return");
    assert!(
        back["client"].as_str().unwrap().starts_with("10.78.0.1:"),
        "{back}"
    );
    get_from(&scene, "10.79.0.1", &token);
    let many = alert(&daemon, "many_networks");
    assert!(
        many["detail"].as_str().unwrap().contains("10.79.0.0/24"),
        "{many}"
    );
}
