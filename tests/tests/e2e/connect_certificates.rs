//! `enforcer connect` without a token: the certificate says who it is.

use std::time::Duration;

use enforcer::clock::Now;
use enforcer_tests::{
    Scene,
    certificates::{Authority, Identity},
    client::End,
    config::Route,
    connect::{Connect, Credential, command},
    upstream::stream::StreamUpstream,
    wait,
};

/// A gateway for which certificates are the identity.
fn scene(label: &str) -> (Scene, StreamUpstream) {
    let mut scene = Scene::new(label).expect("a scene");
    scene.config.routes = vec![Route::tunnel(&["127.0.0.1:*"])];
    let ca_file = scene.ca_file();
    let listener = scene.config.listener().expect("a listener");
    listener.identity = Some("certificate".to_owned());
    listener.principal = Some("subject_cn".to_owned());
    listener.tls.client_ca = Some(ca_file);
    let policy = scene.config.policy();
    policy.warn_before = Some("1s".to_owned());
    policy.farewell = Some("250ms".to_owned());
    let upstream = StreamUpstream::start(scene.bed.daemon()).expect("an upstream");
    (scene, upstream)
}

fn listen(scene: &Scene, identity: &Identity, target: &str) -> Connect {
    let (certificate, key) = identity.write(&scene.bed, "user").expect("files");
    let credential = Credential::Certificate(&certificate, &key);
    Connect::listen(scene, credential, target).expect("enforcer connect")
}

#[test]
fn a_certificate_opens_tunnels_until_it_expires_and_its_successor_the_next() {
    let (scene, upstream) = scene("connect-expiry");
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(4));
    let alice = scene.authority.client_until("alice", deadline).unwrap();
    let connect = listen(&scene, &alice, &upstream.address().to_string());
    let client = scene.client().unwrap().of(connect.local());
    let say = |word: &str| {
        let stream = client.tcp().unwrap();
        stream.write(format!("echo\n{word}\n")).unwrap();
        stream.read_until(&format!("{word}\n")).unwrap();
        stream
    };

    let streams = [say("one"), say("two")];
    connect
        .wait_for("what a certificate has opened is not renewed")
        .unwrap();
    connect.wait_for("(token)").unwrap();
    for stream in streams {
        let (_, ending) = stream.read_to_end().unwrap();
        assert_eq!(ending.how, End::Reset);
        assert!(Now::read().wall_at(ending.at) >= deadline);
    }
    connect.wait_for("the session is over: ").unwrap();
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["subject"], "alice");
    assert_eq!(record["reason"], "token");
    // Both tunnels' ends, and the connection that they were on.
    assert_eq!(record["sockets_reset"], 3);
    let opened = daemon.wait_for_audit("connection_opened", |it| it["role"] == "client");
    let local = opened.unwrap()["client"].as_str().unwrap().parse().unwrap();
    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(deadline).unwrap();

    let late = client.tcp().unwrap();
    assert_eq!(late.read_to_end().unwrap().1.how, End::Reset);
    let successor = scene.authority.client("alice").unwrap();
    successor.write(&scene.bed, "user").unwrap();
    say("three");
}

#[test]
fn a_certificate_that_is_still_good_opens_the_next_session() {
    let (mut scene, upstream) = scene("connect-again");
    scene.config.policy().max_session = "3s".to_owned();
    let daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let connect = listen(&scene, &alice, &upstream.address().to_string());
    let client = scene.client().unwrap().of(connect.local());
    for session in 1..=2 {
        let stream = client.tcp().unwrap();
        stream.write("echo\nhere\n").unwrap();
        stream.read_until("here\n").unwrap();
        assert_eq!(stream.read_to_end().unwrap().1.how, End::Reset);
        let over = || connect.said().matches("the session is over: ").count();
        wait::until("the end was told", || (over() == session).then_some(())).unwrap();
    }
    let records = daemon.audit().unwrap();
    let opened = records.iter().filter(|it| it["event"] == "session_opened");
    assert_eq!(opened.count(), 2);
}

#[test]
fn without_a_certificate_that_the_gateway_takes_it_does_not_even_listen() {
    let (scene, upstream) = scene("connect-stranger");
    let daemon = scene.start().unwrap();
    let target = upstream.address().to_string();
    let stranger = Authority::new().unwrap().client("alice").unwrap();
    let (certificate, key) = stranger.write(&scene.bed, "stranger").unwrap();
    let token = scene.token("alice").unwrap();
    let token = scene.bed.write("token", token).unwrap();
    for credential in [
        Credential::Certificate(&certificate, &key),
        Credential::TokenFile(&token),
    ] {
        for local in [&["--stdio"][..], &["--listen", "127.0.0.1:0"]] {
            let mut command = command(&scene, credential).unwrap();
            let output = command.args(local).arg(&target).output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{complaint}");
            assert!(complaint.contains("fatal alert"), "{complaint}");
        }
    }
    let refused = daemon.wait_for_audit("session_refused", |it| it["reason"] == "tls_failed");
    refused.unwrap();
}
