//! At its limit a session is cut: no payload of its connections passes from then on, in either
//! direction, and both ends are reset.

use std::time::Duration;

use enforcer::clock;
use enforcer_tests::{
    Scene, Streams,
    client::{End, Pattern},
    issuer::Claims,
    streams::{check_same, instant},
    wait,
};

#[test]
fn the_deadline_cuts_a_download_and_an_echoing_websocket() {
    let mut scene = Scene::new("deadline").unwrap();
    scene.config.policy().max_session = "4s".to_owned();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    // The session starts when its user authenticated.
    let started_at =
        wait::whole_second_after(Duration::ZERO).saturating_sub(Duration::from_secs(1));
    let deadline = started_at.saturating_add(Duration::from_secs(4));
    let expires_at = started_at.saturating_add(Duration::from_secs(3600));
    let claims = Claims::new("alice", expires_at).with("auth_time", started_at.as_unix_seconds());
    let token = scene.issuer.sign(&claims).unwrap();

    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    let ended = streams.end().unwrap();

    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
    ended.check_flow(&wire, deadline).unwrap();
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "deadline");
    assert_eq!(record["subject"], "alice");
    assert_eq!(record["lateness_us"], 0);
    check_same(instant(&record, "deadline").unwrap(), deadline).unwrap();
}

#[test]
fn the_expiry_of_the_token_cuts_a_download_and_an_echoing_websocket() {
    let scene = Scene::new("expiry").unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();

    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    let ended = streams.end().unwrap();

    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
    ended.check_flow(&wire, deadline).unwrap();
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "token");
}

#[test]
fn idleness_of_the_application_cuts_although_pings_and_the_download_flow() {
    let idle_timeout = Duration::from_secs(2);
    let mut scene = Scene::new("idle").unwrap();
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let token = scene.token("alice").unwrap();

    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    // Messages keep it alive for longer than the timeout.
    let past_timeout = clock::boot_now().saturating_add(idle_timeout + idle_timeout / 4);
    wait::until_instant(past_timeout);
    streams.wait_for_data().unwrap();
    streams.talk.only_pings();
    let ended = streams.end().unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "idle");
    let limit = instant(&record, "deadline").unwrap();
    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, limit).unwrap();
    ended.check_flow(&wire, limit).unwrap();
    let last_activity = clock::Now::read().wall_at(ended.talk_end.last_sent_at);
    let idle = limit.saturating_duration_since(last_activity);
    assert!(
        idle >= idle_timeout && idle < idle_timeout * 5 / 4,
        "idle for {idle:?}"
    );
}

#[test]
fn idleness_of_the_payload_cuts_a_download_whose_client_is_silent() {
    let idle_timeout = Duration::from_secs(2);
    let mut scene = Scene::new("silent").unwrap();
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    scene.config.policy().activity = Some("payload".to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let token = scene.token("alice").unwrap();

    let client = scene.client().unwrap();
    let download = client.download("/download?rate=1000000", &token).unwrap();
    let local = download.local();
    let ending = download.end().unwrap();

    assert_eq!(ending.how, End::Reset);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "idle");
    let limit = instant(&record, "deadline").unwrap();
    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(limit).unwrap();
    let sent = conversation
        .from_client()
        .filter(|segment| segment.payload > 0);
    let last_activity = sent.map(|segment| segment.at).max().unwrap();
    let idle = limit.saturating_duration_since(last_activity);
    assert!(
        idle >= idle_timeout && idle < idle_timeout * 5 / 4,
        "idle for {idle:?}"
    );
}

#[test]
fn a_farewell_closes_websockets_and_kept_connections_before_the_deadline() {
    let mut scene = Scene::new("farewell").unwrap();
    scene.config.policy().farewell = Some("500ms".to_owned());
    scene.config.policy().warn_before = Some("1s".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();

    let talk = client
        .websocket("/echo", &token)
        .unwrap()
        .talk(Pattern::default());
    let kept = client.tls().unwrap();
    let request = format!(
        "GET /headers HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    kept.write(request).unwrap();
    kept.read_until("\r\n\r\n").unwrap();

    let (_, kept_end) = kept.read_to_end().unwrap();
    let talk_end = talk.end().unwrap();
    let close = End::Close(1008, "session expired".to_owned());
    assert_eq!(talk_end.ending.how, close);
    assert_ne!(kept_end.how, End::Reset);
    let deadline = clock::Now::read().boot_at(deadline);
    for ending in [talk_end.ending, kept_end] {
        let early = deadline.saturating_duration_since(ending.at);
        assert!(
            !early.is_zero() && early <= Duration::from_millis(500),
            "{early:?} early"
        );
    }
    daemon.wait_for_audit("session_warned", |_| true).unwrap();
}
