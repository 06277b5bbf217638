//! gRPC through the gateway, between a server and a client of another make.

use std::{net::SocketAddr, time::Duration};

use enforcer::clock;
use enforcer_tests::{
    Scene,
    config::{Route, UpstreamTls},
    daemon::Daemon,
    grpc::{Call, Server},
    issuer::Claims,
    streams, wait,
};

fn scene(label: &str) -> (Scene, Server) {
    let mut scene = Scene::new(label).expect("a scene");
    let server = Server::start(&scene.bed).expect("a server");
    scene.config.routes = vec![Route::to(server.url())];
    (scene, server)
}

/// The client's end of the only connection.
fn client_end(daemon: &Daemon<'_>) -> SocketAddr {
    let record = daemon.wait_for_audit("connection_opened", |_| true);
    let record = record.expect("a record");
    let client = record["client"].as_str().expect("an address");
    client.parse().expect("an address")
}

#[test]
fn calls_and_conversations_pass_with_their_trailers() {
    let (scene, _server) = scene("grpc");
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let said = Call::begin(&scene, &token, "Say").unwrap().end().unwrap();
    assert_eq!((&*said.code, said.messages, said.bytes), ("OK", 1, 100_000));
    assert_eq!(said.trailers["x-subject"], "alice");
    let talk = Call::begin(&scene, &token, "Talk").unwrap().end().unwrap();
    assert_eq!((&*talk.code, talk.messages, talk.bytes), ("OK", 3, 100_011));
    let stranger = Call::begin(&scene, "no.such.token", "Say").unwrap();
    assert_eq!(stranger.end().unwrap().code, "UNAUTHENTICATED");
}

/// The peer insists on `h2` in TLS, and its trailers pass.
#[test]
fn calls_pass_to_a_server_with_tls() {
    let mut scene = Scene::new("grpc-tls").unwrap();
    let server = Server::start_tls(&scene.bed, &scene.authority.server().unwrap()).unwrap();
    scene.config.routes = vec![Route {
        upstream_tls: Some(UpstreamTls::trusting(scene.ca_file())),
        ..Route::to(server.url())
    }];
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let said = Call::begin(&scene, &token, "Say").unwrap().end().unwrap();
    assert_eq!((&*said.code, said.bytes), ("OK", 100_000), "{said:?}");
    assert_eq!(said.trailers["x-subject"], "alice");
    let talk = Call::begin(&scene, &token, "Talk").unwrap().end().unwrap();
    assert_eq!((&*talk.code, talk.messages), ("OK", 3), "{talk:?}");
}

#[test]
fn the_deadline_cuts_a_stream() {
    let (scene, _server) = scene("grpc-cut");
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let outcome = Call::begin(&scene, &token, "Tick").unwrap().end().unwrap();
    assert_eq!(outcome.code, "UNAVAILABLE", "{outcome:?}");
    assert!(outcome.messages > 10 && outcome.ended_at() >= deadline);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token");
    let wire = capture.finish().unwrap();
    let conversation = wire.conversation(client_end(&daemon));
    conversation.check_cut(deadline).unwrap();
    let last = conversation.last_payload_before(deadline).unwrap();
    assert!(deadline.saturating_duration_since(last) < Duration::from_millis(300));
}

#[test]
fn a_farewell_ends_a_stream_with_its_status() {
    let (mut scene, _server) = scene("grpc-farewell");
    scene.config.policy().farewell = Some("500ms".to_owned());
    let daemon = scene.start().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let outcome = Call::begin(&scene, &token, "Tick").unwrap().end().unwrap();
    let said = (&*outcome.code, &*outcome.details);
    assert_eq!(said, ("UNAUTHENTICATED", "session expired"));
    let early = deadline.saturating_duration_since(outcome.ended_at());
    assert!(
        !early.is_zero() && early <= Duration::from_millis(500),
        "{early:?} early"
    );
    daemon.wait_for_end().unwrap();
}

/// The answer's head, as a client that nobody here wrote sees it.
#[test]
fn a_call_near_the_end_of_its_session_is_warned() {
    let (scene, _server) = scene("grpc-warning");
    let _daemon = scene.start().unwrap();
    let warning = |token: &str| {
        let said = Call::begin(&scene, token, "Say").unwrap().end().unwrap();
        assert_eq!(said.code, "OK");
        assert!(said.headers.contains_key("session-expires-in"), "{said:?}");
        said.headers.get("session-warning").cloned()
    };
    let soon = wait::whole_second_after(Duration::from_secs(20));
    let expiring = scene.token_until("alice", soon).unwrap();
    assert_eq!(warning(&expiring), Some("expiring".into()));
    assert_eq!(warning(&scene.token("bob").unwrap()), None);
}

#[test]
fn a_renewed_session_keeps_a_stream_open() {
    let (mut scene, _server) = scene("grpc-renew");
    scene.config.policy().max_session = "6s".to_owned();
    let daemon = scene.start().unwrap();
    let token = |expires_at| {
        let claims = Claims::new("alice", expires_at).with("sid", "login of alice");
        scene.issuer.sign(&claims).unwrap()
    };
    let first_expiry = wait::whole_second_after(Duration::from_secs(3));
    let call = Call::begin(&scene, &token(first_expiry), "Tick").unwrap();
    let began = daemon.wait_for_audit("session_opened", |_| true).unwrap();
    let started_at = streams::instant(&began, "time").unwrap();

    let newer = token(first_expiry.saturating_add(Duration::from_secs(3600)));
    let connection = scene.client().unwrap().connection().unwrap();
    let renewed = connection.post("/.well-known/enforcer/session/renew", &newer, "");
    assert_eq!(renewed.unwrap().status, 200);
    assert!(clock::wall_now() < first_expiry, "too slow");

    let outcome = call.end().unwrap();
    assert_eq!(outcome.code, "UNAVAILABLE", "{outcome:?}");
    let lived = outcome.ended_at().saturating_duration_since(started_at);
    assert!(lived >= Duration::from_millis(5_900), "{lived:?}");
    // For all this time something came every 10 ms or so.
    assert!(outcome.messages > 200, "{outcome:?}");
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "deadline");
}

/// What the server says is no activity, and every message of the client's is.
#[test]
fn a_stream_is_idle_when_its_client_is() {
    let idle_timeout = Duration::from_secs(2);
    for method in ["Tick", "Chat"] {
        let (mut scene, _server) = scene(&format!("grpc-idle-{}", method.to_lowercase()));
        scene.config.policy().idle_timeout = Some("2s".to_owned());
        let daemon = scene.start().unwrap();
        let token = scene.token("alice").unwrap();
        let outcome = Call::begin(&scene, &token, method).unwrap().end().unwrap();
        assert_eq!(outcome.code, "UNAVAILABLE", "{outcome:?}");
        let record = daemon.wait_for_end().unwrap();
        assert_eq!(record["reason"], "idle", "{method}");
        let last_said = match method {
            "Chat" => outcome.last_sent_at(),
            _ => {
                let began = daemon.wait_for_audit("session_opened", |_| true).unwrap();
                streams::instant(&began, "time").unwrap()
            }
        };
        let limit = streams::instant(&record, "deadline").unwrap();
        let idle = limit.saturating_duration_since(last_said);
        let tolerance = Duration::from_millis(200);
        assert!(
            idle + tolerance >= idle_timeout && idle < idle_timeout * 5 / 4,
            "{method}: idle for {idle:?}"
        );
        assert!(outcome.messages > 20, "{outcome:?}");
    }
}
