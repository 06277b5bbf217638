//! Clients that don't get as far as a request.

use std::{thread, time::Duration};

use enforcer::clock::{self, WallInstant};
use enforcer_tests::{
    Scene,
    client::{Client, End, Ending},
    config::Proxies,
    daemon, process, wait,
    wire::Conversation,
};

const PRE_AUTHENTICATION: Duration = Duration::from_secs(1);
/// A second handshake segment, and what a busy machine adds.
const SLACK: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(50);

fn serves(scene: &Scene, client: &Client) -> bool {
    let token = scene.token("alice").expect("a token");
    client
        .get("/headers", &token)
        .is_ok_and(|answer| answer.status == 200)
}

/// Checks that the kernel took nothing of a connection that was begun at `start` once it had been
/// open for the limit, and that its client was told soon after.
fn check_limit(conversation: &Conversation, ending: &Ending, start: WallInstant) {
    let limit = start.saturating_add(PRE_AUTHENTICATION);
    let taken = conversation.bytes_taken_after(limit.saturating_add(SLACK));
    assert_eq!(taken, 0, "bytes taken after the limit");
    let mut sent = conversation
        .from_client()
        .filter(|segment| segment.payload > 0);
    assert!(
        sent.any(|segment| segment.at < limit),
        "nothing was sent before the limit"
    );
    let seen_at = clock::Now::read().wall_at(ending.at);
    assert!(
        matches!(ending.how, End::Reset | End::Complete | End::Truncated),
        "{ending:?}"
    );
    let late = seen_at.saturating_duration_since(limit);
    assert!(
        late < Duration::from_secs(1),
        "the client was told {late:?} after the limit"
    );
}

#[test]
fn what_is_no_tls_is_closed_and_others_are_served() {
    let scene = Scene::new("no-tls").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let oversized = [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
    let alert = vec![0x15, 3, 3, 0, 2, 2, 40];
    let short_hello = vec![0x16, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0];
    for bytes in [
        vec![0; 4096],
        vec![0xff; 4096],
        oversized,
        alert,
        short_hello,
    ] {
        let raw = client.tcp().unwrap();
        raw.write(&bytes).unwrap();
        let (_, ending) = raw.read_to_end().unwrap();
        assert!(
            matches!(ending.how, End::Complete | End::Reset),
            "{ending:?}"
        );
    }
    assert!(serves(&scene, &client));
}

#[test]
fn plain_http_on_the_tls_port_reaches_no_upstream() {
    let scene = Scene::new("plain-http").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let raw = client.tcp().unwrap();
    let token = scene.token("alice").unwrap();
    raw.write(format!(
        "GET /headers HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    ))
    .unwrap();
    let (answer, ending) = raw.read_to_end().unwrap();
    assert!(
        matches!(ending.how, End::Complete | End::Reset),
        "{ending:?}"
    );
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    assert!(scene.upstream.log().requests().is_empty());
    assert!(serves(&scene, &client));
}

#[test]
fn a_handshake_that_trickles_is_cut_at_the_limit() {
    let mut scene = Scene::new("slow-hello").unwrap();
    scene.config.daemon.pre_authentication_timeout = Some("1s".to_owned());
    let _daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();

    let start = clock::wall_now();
    let raw = client.tcp().unwrap();
    raw.write([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    let ending = raw.trickle([7], PAUSE).unwrap();

    let conversation = capture.finish().unwrap().conversation(raw.local());
    check_limit(&conversation, &ending, start);
    assert!(serves(&scene, &client));
}

#[test]
fn an_announcement_that_trickles_is_cut_at_the_limit() {
    let mut scene = Scene::new("slow-proxy").unwrap();
    scene.config.daemon.pre_authentication_timeout = Some("1s".to_owned());
    scene.config.listener().unwrap().proxy_protocol = Some(Proxies {
        from: vec!["10.0.0.0/8".to_owned()],
    });
    let _daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();

    let start = clock::wall_now();
    let raw = client.tcp().unwrap();
    raw.write("PROXY UNKNOWN ").unwrap();
    let ending = raw.trickle("x", PAUSE).unwrap();

    let conversation = capture.finish().unwrap().conversation(raw.local());
    check_limit(&conversation, &ending, start);
}

#[test]
fn headers_that_trickle_are_cut_at_the_limit() {
    let mut scene = Scene::new("slow-headers").unwrap();
    scene.config.daemon.pre_authentication_timeout = Some("1s".to_owned());
    let _daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();

    let start = clock::wall_now();
    let raw = client.tls().unwrap();
    raw.write("GET /headers HTTP/1.1\r\nHost: enforcer.test\r\n")
        .unwrap();
    let ending = raw.trickle("X-Slow: yes\r\n", PAUSE).unwrap();

    let conversation = capture.finish().unwrap().conversation(raw.local());
    check_limit(&conversation, &ending, start);
    assert!(scene.upstream.log().requests().is_empty());
    assert!(serves(&scene, &client));
}

#[test]
fn requests_without_a_token_do_not_hold_a_connection_past_the_limit() {
    let mut scene = Scene::new("no-token").unwrap();
    scene.config.daemon.pre_authentication_timeout = Some("1s".to_owned());
    let _daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();

    let start = clock::wall_now();
    let raw = client.tls().unwrap();
    let request = "GET /headers HTTP/1.1\r\nHost: enforcer.test\r\n\r\n";
    let ending = raw.trickle(request, Duration::from_millis(1)).unwrap();

    let conversation = capture.finish().unwrap().conversation(raw.local());
    check_limit(&conversation, &ending, start);
}

/// The limit is the kernel's: with everybody stopped who could close the connection, what is sent
/// after it is not even acknowledged.
#[test]
fn nothing_is_taken_after_the_limit_while_gateway_and_warden_are_stopped() {
    let dropped = |scene: &Scene| {
        let maps = daemon::run_cli(&scene.bed, &["maps", "--json"]).unwrap();
        let maps = maps.json().unwrap();
        maps["stats"]["dropped_pre_authentication"]
            .as_u64()
            .unwrap()
    };
    let mut scene = Scene::new("slow-stopped").unwrap();
    scene.config.daemon.pre_authentication_timeout = Some("2s".to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();

    let raw = client.tcp().unwrap();
    let limit = clock::wall_now().saturating_add(Duration::from_secs(2));
    raw.write([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    let local = raw.local();
    let trickle = thread::spawn(move || raw.trickle([7], PAUSE));
    let gateway = daemon.gateway_pid().unwrap();
    process::stop(gateway).unwrap();
    process::stop(daemon.pid()).unwrap();
    assert!(
        clock::wall_now() < limit,
        "stopped too late to show anything"
    );
    assert_eq!(dropped(&scene), 0);
    wait::until_wall(limit.saturating_add(Duration::from_secs(1)));
    assert!(dropped(&scene) > 0, "the kernel dropped nothing");
    assert!(!trickle.is_finished(), "nobody was there to reset it");

    let resumed_at = clock::wall_now();
    process::resume(daemon.pid()).unwrap();
    let ours = |record: &serde_json::Value| record["client"] == local.to_string();
    let violation = daemon.wait_for_audit("violation", ours).unwrap();
    assert_eq!(violation["reason"], "pre_authentication_timeout");
    let ending = trickle.join().unwrap().unwrap();
    assert_eq!(ending.how, End::Reset);
    process::resume(gateway).unwrap();

    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(limit).unwrap();
    assert!(conversation.reset().unwrap() >= resumed_at);
    let sent = |from: WallInstant, to: WallInstant| {
        let mut sent = conversation.from_client();
        sent.any(|it| it.payload > 0 && it.at >= from && it.at < to)
    };
    assert!(sent(limit, resumed_at), "nothing was sent after the limit");
    let acknowledged = conversation.from_daemon().any(|it| {
        let before = limit.saturating_sub(Duration::from_millis(500));
        it.acknowledgment.is_some() && it.at >= before && it.at < limit
    });
    assert!(acknowledged, "nothing was taken before the limit");
    assert!(serves(&scene, &client));
}
