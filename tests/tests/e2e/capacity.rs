//! Maps that are full refuse newcomers and leave the others alone.

use enforcer_tests::{
    Scene,
    client::{Client, Socket},
    daemon::Daemon,
};

fn check_refused(scene: &Scene, daemon: &Daemon<'_>, client: &Client, subject: &str) {
    let token = scene.token(subject).expect("a token");
    let answer = client.get("/headers", &token).expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json().expect("a body")["code"], "capacity");
    let ours =
        |record: &serde_json::Value| record["reason"] == "capacity" && record["subject"] == subject;
    daemon
        .wait_for_audit("session_refused", ours)
        .expect("a record");
}

fn open(scene: &Scene, client: &Client, subject: &str) -> Socket {
    let token = scene.token(subject).expect("a token");
    let socket = client.websocket("/echo", &token).expect("a WebSocket");
    socket.echo("opened").expect("an echo");
    socket
}

#[test]
fn a_session_too_many_is_refused_and_the_others_go_on() {
    let mut scene = Scene::new("max-sessions").unwrap();
    scene.config.daemon.max_sessions = Some(2);
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let sockets = ["alice", "bob"].map(|subject| open(&scene, &client, subject));

    check_refused(&scene, &daemon, &client, "carol");
    for socket in &sockets {
        socket.echo("unharmed").unwrap();
    }
    let revoked = daemon
        .cli(&["sessions", "revoke", "--subject", "bob"])
        .unwrap();
    assert_eq!(revoked.code, 0, "{revoked:?}");
    open(&scene, &client, "carol");
}

#[test]
fn a_connection_too_many_is_refused_and_the_others_go_on() {
    let mut scene = Scene::new("max-connections").unwrap();
    // A WebSocket takes two: the client's and the upstream's.
    scene.config.daemon.max_connections = Some(4);
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let sockets = ["alice", "bob"].map(|subject| open(&scene, &client, subject));

    check_refused(&scene, &daemon, &client, "carol");
    for socket in &sockets {
        socket.echo("unharmed").unwrap();
    }
}
