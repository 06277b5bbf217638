//! What an upstream says over a long time passes as it says it, and when.

use std::time::Duration;

use enforcer_tests::{
    Scene,
    certificates::SERVER_NAME,
    client::http2::{Peer, flag, kind},
    config::Route,
    upstream::manual::ManualUpstream,
    wait,
};

fn scene(label: &str) -> (Scene, ManualUpstream) {
    let mut scene = Scene::new(label).expect("a scene");
    let upstream = ManualUpstream::start(scene.bed.daemon()).expect("an upstream");
    scene.config.routes = vec![Route::to(upstream.url())];
    (scene, upstream)
}

fn head(method: &str, path: &str, version: &str, token: &str, fields: &str) -> String {
    format!(
        "{method} {path} HTTP/{version}\r\nHost: {SERVER_NAME}\r\n\
         Authorization: Bearer {token}\r\n{fields}\r\n"
    )
}

/// RFC 9110, section 15.2: a proxy passes interim responses on, but not to clients of HTTP/1.0.
#[test]
fn interim_responses_reach_a_client_before_the_response() {
    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
    const WORKING: &str = "HTTP/1.1 102 Processing\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
    let (scene, upstream) = scene("interim");
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let client = scene.client().unwrap();

    let raw = client.tls().unwrap();
    for request in 0..2 {
        raw.write(head("GET", "/hints", "1.1", &token, "")).unwrap();
        upstream.wait_for("\r\n\r\n").unwrap();
        for interim in [HINT, WORKING, HINT] {
            upstream.say(interim).unwrap();
            assert_eq!(
                raw.read_until("\r\n\r\n").unwrap(),
                interim,
                "of request {request}"
            );
        }
        // In one piece: the hint goes first.
        upstream.say([HINT, ANSWER].concat()).unwrap();
        let said = raw.read_until("done").unwrap();
        let (hint, answer) = said.split_at(HINT.len());
        assert_eq!(hint, HINT);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    let old = client.tls().unwrap();
    old.write(head("GET", "/hints", "1.0", &token, "")).unwrap();
    upstream.wait_for("\r\n\r\n").unwrap();
    upstream.say([HINT, ANSWER].concat()).unwrap();
    let answer = old.read_until("done").unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");

    let mut peer = Peer::new(&client, &format!("Bearer {token}")).unwrap();
    peer.send(&[peer.get(1, "/hints")]).unwrap();
    upstream.wait_for("\r\n\r\n").unwrap();
    for (interim, status) in [(HINT, "103"), (WORKING, "102"), (HINT, "103")] {
        upstream.say(interim).unwrap();
        let frame = peer.wait_for(status, |frame| frame.kind == kind::HEADERS);
        assert!(!frame.unwrap().has(flag::END_STREAM));
        let fields = peer.take_fields(1).unwrap();
        assert_eq!(fields[0], (":status".to_owned(), status.to_owned()));
        assert_eq!(
            fields.len() - 1,
            interim.matches(": ").count(),
            "{fields:?}"
        );
    }
    upstream.say([HINT, ANSWER].concat()).unwrap();
    let reply = peer.reply(1).unwrap();
    assert_eq!((reply.status, &*reply.body), (200, &b"done"[..]));
    assert_eq!(reply.fields[0].0, "link", "{:?}", reply.fields);
}

/// RFC 9110, section 10.1.1: who will be refused need not send the body.
#[test]
fn a_body_is_asked_for_when_it_is_wanted() {
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let scene = Scene::new("expect").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let client = scene.client().unwrap();
    let expectation = "Expect: 100-continue\r\nContent-Length: 7\r\n";

    let raw = client.tls().unwrap();
    raw.write(head("POST", "/upload", "1.1", &token, expectation))
        .unwrap();
    assert_eq!(raw.read_until("\r\n\r\n").unwrap(), CONTINUE);
    raw.write("content").unwrap();
    let answer = raw.read_until("\r\n\r\n7").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    let raw = client.tls().unwrap();
    raw.write(head("POST", "/upload", "1.1", "no.such.token", expectation))
        .unwrap();
    let (answer, _) = raw.read_to_end().unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

/// Over both versions each event is there before the next one is, and nothing else: no warning, no
/// end.
#[test]
fn server_sent_events_pass_as_they_are() {
    const EVENTS: [&str; 4] = [
        ": a comment\n\n",
        "id: 1\ndata: one\n\n",
        "event: warning\r\ndata: the upstream's own\r\n\r\n",
        "data: \u{e9}t\u{e9}\nretry: 10\n\n",
    ];
    let (mut scene, upstream) = scene("sse");
    scene.config.policy().warn_before = Some("50m".to_owned());
    scene.config.policy().farewell = Some("1s".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let start = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n";
    let chunk = |event: &str| format!("{:x}\r\n{event}\r\n", event.len());

    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let mut peer = Peer::new(&client, &format!("Bearer {token}")).unwrap();
    peer.send(&[peer.get(1, "/events")]).unwrap();
    upstream.wait_for("\r\n\r\n").unwrap();
    upstream.say(start).unwrap();
    for event in EVENTS {
        upstream.say(chunk(event)).unwrap();
        let data = peer
            .wait_for("an event", |frame| frame.kind == kind::DATA)
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&data.payload), event);
    }
    daemon.wait_for_audit("session_warned", |_| true).unwrap();
    // Also behind the farewell, up to the cut.
    peer.wait_for("the farewell", |frame| frame.kind == kind::GOAWAY)
        .unwrap();
    upstream.say(chunk(EVENTS[1])).unwrap();
    let data = peer
        .wait_for("an event", |frame| frame.kind == kind::DATA)
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&data.payload), EVENTS[1]);
    peer.check_end().unwrap();
    assert!(!peer.has_waiting(kind::DATA) && !data.has(flag::END_STREAM));

    let raw = client.tls().unwrap();
    let token = scene.token("bob").unwrap();
    raw.write(head("GET", "/events", "1.1", &token, ""))
        .unwrap();
    upstream.wait_for("\r\n\r\n").unwrap();
    upstream.say(start).unwrap();
    let answer = raw.read_until("\r\n\r\n").unwrap();
    assert!(
        answer.contains("content-type: text/event-stream\r\n"),
        "{answer}"
    );
    for event in EVENTS {
        upstream.say(chunk(event)).unwrap();
        let passed = raw.read_until(&format!("{event}\r\n")).unwrap();
        let (length, passed) = passed.split_once("\r\n").unwrap();
        assert_eq!(usize::from_str_radix(length, 16), Ok(event.len()));
        assert_eq!(passed, format!("{event}\r\n"));
    }
}

/// A request may wait for its answer longer than anything that is measured in seconds.
#[test]
fn a_long_poll_is_answered_when_there_is_something_to_say() {
    let (scene, upstream) = scene("long-poll");
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let raw = client.tls().unwrap();
    let token = scene.token("alice").unwrap();
    raw.write(head("GET", "/poll", "1.1", &token, "")).unwrap();
    upstream.wait_for("\r\n\r\n").unwrap();
    // Others are served meanwhile, on other connections to the upstream.
    wait::until_wall(wait::whole_second_after(Duration::from_secs(1)));
    upstream.say("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    let answer = raw.read_until("\r\n\r\n").unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 204 No Content\r\n"),
        "{answer}"
    );
}
