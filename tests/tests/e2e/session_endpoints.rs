//! What a user can see of a session and do with it, under `/.well-known/enforcer/`.

use std::time::Duration;

use enforcer::clock;
use enforcer_tests::{
    Scene,
    client::{End, Pattern},
    issuer::Claims,
    streams::check_same,
    wait,
};

const SESSION: &str = "/.well-known/enforcer/session";
const RENEW: &str = "/.well-known/enforcer/session/renew";
const LOGOUT: &str = "/.well-known/enforcer/session/logout";
const EVENTS: &str = "/.well-known/enforcer/session/events";

#[test]
fn a_session_can_be_seen_renewed_and_left() {
    let scene = Scene::new("endpoints").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let now = wait::whole_second_after(Duration::ZERO);
    let token = |seconds| {
        let expires_at = now.saturating_add(Duration::from_secs(seconds));
        let claims = Claims::new("alice", expires_at).with("azp", "the-app");
        (scene.issuer.sign(&claims).unwrap(), expires_at)
    };
    let (first, first_expiry) = token(60);
    assert_eq!(client.get(SESSION, &first).unwrap().status, 401);

    let talk = client
        .websocket("/echo", &first)
        .unwrap()
        .talk(Pattern::default());
    let seen = client.get(SESSION, &first).unwrap();
    assert_eq!(seen.status, 200);
    assert_eq!(seen.header("cache-control"), "no-store");
    assert_eq!(seen.header("access-control-allow-origin"), "");
    let session = seen.json().unwrap();
    assert_eq!(session["subject"], "alice");
    assert_eq!(session["policies"], serde_json::json!(["main"]));
    // The WebSocket, its upstream leg, and this very connection.
    assert_eq!(session["connections"], 3);
    let shown = enforcer_tests::streams::instant(&session, "deadline").unwrap();
    check_same(shown, first_expiry).unwrap();

    // A newer token on a new connection: only this session can be meant.
    let (second, second_expiry) = token(600);
    assert_eq!(client.get(SESSION, &second).unwrap().status, 401);
    let renewed = client
        .connection()
        .unwrap()
        .post(RENEW, &second, "")
        .unwrap();
    assert_eq!(renewed.status, 200);
    let renewed = renewed.json().unwrap();
    assert_eq!(renewed["id"], session["id"]);
    let shown = enforcer_tests::streams::instant(&renewed, "deadline").unwrap();
    check_same(shown, second_expiry).unwrap();
    assert!(talk.is_running());

    let left = client
        .connection()
        .unwrap()
        .post(LOGOUT, &second, "")
        .unwrap();
    assert_eq!(left.status, 204);
    let end = talk.end().unwrap().ending;
    let polite = End::Close(1008, "session expired".to_owned());
    assert_eq!(end.how, polite);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "logout");
    for token in [first, second] {
        let refused = client.get(SESSION, &token).unwrap();
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json().unwrap()["code"], "session_ended");
    }
}

#[test]
fn events_announce_an_idle_end_and_do_not_put_it_off() {
    let idle_timeout = Duration::from_secs(2);
    let mut scene = Scene::new("events").unwrap();
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    scene.config.policy().warn_before = Some("1s".to_owned());
    scene.config.policy().farewell = Some("250ms".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();

    let working = client.connection().unwrap();
    assert_eq!(working.get("/headers", &token).unwrap().status, 200);
    let events = client.tls().unwrap();
    let request = format!(
        "GET {EVENTS} HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    events.write(request).unwrap();
    events.read_until("event: warning\ndata: ").unwrap();
    let active_at = clock::boot_now();
    assert_eq!(working.get("/headers", &token).unwrap().status, 200);
    events.read_until("event: renewed\ndata: ").unwrap();
    // To look at it is no activity.
    wait::until_instant(active_at.saturating_add(idle_timeout / 2));
    assert_eq!(client.get(SESSION, &token).unwrap().status, 200);
    events.read_until("event: warning\ndata: ").unwrap();
    // Even after the farewell it can be saved, so nothing has ended yet.
    events.read_until("event: ending\ndata: ").unwrap();
    let active_at = clock::boot_now();
    assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    events.read_until("event: renewed\ndata: ").unwrap();
    let (rest, ending) = events.read_to_end().unwrap();
    assert!(rest.contains("event: ending\ndata: "), "{rest}");
    assert!(!rest.contains("event: ended"), "{rest}");
    assert_eq!(ending.how, End::Reset);
    let lived = clock::boot_now().saturating_duration_since(active_at);
    assert!(lived < idle_timeout * 5 / 4, "{lived:?}");
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "idle");
}
