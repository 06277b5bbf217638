//! The figures agree with what happened, and outlive a gateway.

use enforcer_tests::{
    Scene,
    metrics::{self, Metrics},
    process, wait,
};

const REQUESTS: &str = r#"listener="main",host="",path="/""#;

#[test]
fn figures_agree_with_what_happened() {
    let mut scene = Scene::new("metrics").unwrap();
    scene.config.monitoring = metrics::section();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    }
    assert_eq!(client.get("/headers", "").unwrap().status, 401);
    let held = client.websocket("/echo", &token).unwrap();
    held.echo("here").unwrap();
    assert!(client.tls().is_ok());

    // The warden hears of closed connections from the kernel, a moment later.
    let figures = wait::until("the connections had closed", || {
        let figures = Metrics::scrape(&scene.bed).ok()?;
        let closed = figures.value(r#"enforcer_connections_closed_total{role="client"}"#);
        (closed? >= 3.0).then_some(figures)
    })
    .unwrap();
    figures.check().unwrap();
    for (series, expected) in [
        ("enforcer_sessions_opened_total", 1.0),
        ("enforcer_live_sessions", 1.0),
        (r#"enforcer_policy_sessions{policy="main"}"#, 1.0),
        (
            r#"enforcer_requests_refused_total{reason="missing_token"}"#,
            1.0,
        ),
        (r#"enforcer_connections_opened_total{role="client"}"#, 4.0),
        (r#"enforcer_map_entries{map="SESSIONS"}"#, 1.0),
        (r#"enforcer_program_attached{program="egress"}"#, 1.0),
        (r#"enforcer_gateways{state="serving"}"#, 1.0),
        ("enforcer_audit_records_lost_total", 0.0),
    ] {
        assert_eq!(
            figures.value(series),
            Some(expected),
            "{series}: {figures:?}"
        );
    }
    // The WebSocket's answer is 101; the request without a token reached no route.
    assert_eq!(figures.sum("enforcer_http_requests_total", REQUESTS), 4.0);
    assert_eq!(
        figures.sum("enforcer_http_requests_total", r#"code="2xx""#),
        3.0
    );
    assert_eq!(
        figures.sum("enforcer_http_requests_total", r#"code="4xx""#),
        1.0
    );
    let count = "enforcer_http_request_duration_seconds_count";
    assert_eq!(figures.sum(count, REQUESTS), 4.0);
    assert_eq!(
        figures.sum("enforcer_tls_handshakes_total", r#""done""#),
        6.0
    );

    let outcome = daemon.cli(&["sessions", "revoke", "--all"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let end = daemon.wait_for_end().unwrap();
    let gateway = daemon.gateway_pid().unwrap();
    process::send(gateway, rustix::process::Signal::KILL).unwrap();
    let figures = wait::until("the next gateway served the figures", || {
        let figures = Metrics::scrape(&scene.bed).ok()?;
        let died = figures.value("enforcer_gateways_died_total")?;
        (died == 1.0).then_some(figures)
    })
    .unwrap();
    assert_eq!(figures.sum("enforcer_http_requests_total", REQUESTS), 4.0);
    assert_eq!(
        figures.value(r#"enforcer_sessions_ended_total{reason="revoked"}"#),
        Some(1.0)
    );
    assert_eq!(
        figures.value("enforcer_reset_lateness_seconds_count"),
        Some(1.0)
    );
    assert_eq!(
        figures.value("enforcer_sockets_reset_total"),
        end["sockets_reset"].as_f64()
    );

    let admin = daemon.cli(&["metrics"]).unwrap();
    assert_eq!(admin.code, 0, "{admin:?}");
    let admin = Metrics::of(admin.stdout);
    admin.check().unwrap();
    assert_eq!(admin.sum("enforcer_http_requests_total", REQUESTS), 4.0);

    // Who reads the figures is not taken for a client that failed to authenticate.
    let scrapes = daemon.audit().unwrap().into_iter().filter(|record| {
        let local = record["local"].as_str().unwrap_or_default();
        local == metrics::ADDRESS
    });
    assert_eq!(scrapes.count(), 0);
}

#[test]
fn without_a_warden_a_reader_is_told_so_in_time() {
    let mut scene = Scene::new("metrics-alone").unwrap();
    scene.config.monitoring = metrics::section();
    let daemon = scene.start().unwrap();
    Metrics::scrape(&scene.bed).unwrap();
    process::send(daemon.pid(), rustix::process::Signal::STOP).unwrap();
    let silent = Metrics::scrape(&scene.bed).unwrap_err().to_string();
    process::send(daemon.pid(), rustix::process::Signal::CONT).unwrap();
    assert!(silent.contains("503"), "{silent}");
    Metrics::scrape(&scene.bed).unwrap();
}

#[test]
fn the_documented_rules_are_sound() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/prometheus/alerts.yml");
    process::run("promtool", &["check", "rules", rules]).unwrap();
}
