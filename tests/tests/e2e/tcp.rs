//! TCP listeners: any protocol, carried as bytes for the principal of a client certificate, and
//! cut like every other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
    time::Duration,
};

use enforcer::clock::{self, Now, WallInstant};
use enforcer_tests::{
    Scene,
    certificates::Identity,
    client::{Client, End, Ending},
    daemon::Daemon,
    streams::instant,
    upstream::stream::StreamUpstream,
    wait,
    wire::{Conversation, difference},
};
use jiff::SignedDuration;
use serde_json::Value;

/// What is sent every 10 ms has been sent this recently, however busy the machine is.
const LONGEST_GAP: SignedDuration = SignedDuration::from_millis(300);

/// A scene with a TCP listener in front of an upstream that speaks no HTTP.
fn scene(label: &str) -> (Scene, StreamUpstream) {
    let mut scene = Scene::new(label).expect("a scene");
    let upstream = StreamUpstream::start(scene.bed.daemon()).expect("an upstream");
    scene.serve_tcp(upstream.url()).expect("a listener");
    (scene, upstream)
}

fn client(scene: &Scene, identity: &Identity) -> Client {
    scene.client_showing(identity).expect("a client")
}

/// Checks that data flowed up to `deadline`, that none passed from then on, and that the client
/// was reset.
#[track_caller]
fn check_cut(conversation: &Conversation, ending: &Ending, deadline: WallInstant) {
    assert_eq!(ending.how, End::Reset);
    assert!(Now::read().wall_at(ending.at) >= deadline);
    conversation.check_cut(deadline).expect("a cut");
    let last = conversation
        .last_payload_before(deadline)
        .expect("some payload");
    let gap = difference(deadline, last);
    assert!(gap < LONGEST_GAP, "silent for {gap}");
}

/// Checks that the upstream was reset and took nothing that was sent after the deadline.
fn check_upstream(upstream: &StreamUpstream) {
    let connections = upstream
        .log()
        .wait_for_connections("the upstream's connection ended", |all| {
            all.first().is_some_and(|one| one.ended.is_some())
        })
        .expect("an end");
    let (_, how) = connections[0].ended.expect("an end");
    assert_eq!(how, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn max_session_cuts_a_stream_that_flows() {
    let (mut scene, upstream) = scene("tcp-deadline");
    scene.config.policy().max_session = "2s".to_owned();
    scene.config.policy().farewell = Some("500ms".to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let alice = scene.authority.client("alice").unwrap();

    let flow = client(&scene, &alice).flow("echo").unwrap();
    let local = flow.local();
    let ending = flow.end().unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "deadline");
    assert_eq!(record["subject"], "CN=alice");
    assert_eq!(record["issuer"], "CN=enforcer's test authority");
    assert_eq!(record["lateness_us"], 0);
    assert_eq!(record["sockets_reset"], 2);
    let deadline = instant(&record, "deadline").unwrap();
    let wire = capture.finish().unwrap();
    check_cut(&wire.conversation(local), &ending, deadline);
    check_upstream(&upstream);
}

#[test]
fn the_end_of_the_certificate_cuts_and_it_opens_nothing_any_more() {
    let (scene, upstream) = scene("tcp-not-after");
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let alice = scene.authority.client_until("alice", deadline).unwrap();
    let client = client(&scene, &alice);

    let flow = client.flow("ticks").unwrap();
    let local = flow.local();
    let ending = flow.end().unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token");
    assert_eq!(instant(&record, "deadline").unwrap(), deadline);
    let wire = capture.finish().unwrap();
    check_cut(&wire.conversation(local), &ending, deadline);
    check_upstream(&upstream);
    assert!(client.flow("ticks").is_err());
}

/// A client that falls silent while the upstream goes on.
fn idle(label: &str, activity: &str) {
    let idle_timeout = Duration::from_secs(2);
    let (mut scene, _upstream) = scene(label);
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    scene.config.policy().activity = Some(activity.to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let alice = scene.authority.client("alice").unwrap();

    let flow = client(&scene, &alice).flow("ticks").unwrap();
    let local = flow.local();
    // What it says keeps it alive for longer than the timeout.
    wait::until_instant(clock::boot_now().saturating_add(idle_timeout + idle_timeout / 4));
    flow.wait_for_data().unwrap();
    flow.be_silent();
    let ending = flow.end().unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "idle");
    let limit = instant(&record, "deadline").unwrap();
    let conversation = capture.finish().unwrap().conversation(local);
    check_cut(&conversation, &ending, limit);
    let said = conversation.from_client().filter(|it| it.payload > 0);
    let last = said.map(|segment| segment.at).max().unwrap();
    let idle = limit.saturating_duration_since(last);
    assert!(
        idle >= idle_timeout && idle < idle_timeout * 5 / 4,
        "idle for {idle:?}"
    );
    // To show the certificate once more is to authenticate anew.
    let again = client(&scene, &alice).flow("ticks").unwrap();
    again.wait_for_data().unwrap();
    let records = daemon.audit().unwrap();
    let opened = records
        .iter()
        .filter(|record| record["event"] == "session_opened");
    assert_eq!(opened.count(), 2);
}

#[test]
fn a_silent_client_is_idle_by_the_payload_that_the_kernel_sees() {
    idle("tcp-payload", "payload");
}

#[test]
fn a_silent_client_is_idle_by_the_payload_that_the_gateway_sees() {
    idle("tcp-application", "application");
}

/// A client that speaks when the farewell has been announced, and the cut has not come.
fn late_words(label: &str, activity: &str) {
    let (mut scene, _upstream) = scene(label);
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    scene.config.policy().farewell = Some("1s".to_owned());
    scene.config.policy().activity = Some(activity.to_owned());
    let _daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();

    let talk = client(&scene, &alice).tls().unwrap();
    talk.write("echo\n").unwrap();
    for _ in 0..3 {
        let pause = Duration::from_millis(1500);
        wait::until_instant(clock::boot_now().saturating_add(pause));
        talk.write("still here\n").unwrap();
        talk.read_until("still here\n").unwrap();
    }
    let (_, ending) = talk.read_to_end().unwrap();
    assert_eq!(ending.how, End::Reset);
}

#[test]
fn words_after_the_farewell_keep_a_stream_alive_as_payload() {
    late_words("tcp-late-payload", "payload");
}

#[test]
fn words_after_the_farewell_keep_a_stream_alive_as_activity_of_the_application() {
    late_words("tcp-late-words", "application");
}

#[test]
fn each_side_may_end_before_the_other() {
    let (scene, upstream) = scene("tcp-half-close");
    let _daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let client = client(&scene, &alice);

    let first = client.tls().unwrap();
    first.write("count\n0123456789").unwrap();
    first.finish().unwrap();
    let (counted, ending) = first.read_to_end().unwrap();
    assert_eq!((&*counted, ending.how), ("10", End::Complete));

    let second = client.tls().unwrap();
    second.write("bye\n").unwrap();
    let (bye, ending) = second.read_to_end().unwrap();
    assert_eq!((&*bye, ending.how), ("bye", End::Complete));
    second.write("and this").unwrap();
    second.finish().unwrap();
    let connections = upstream
        .log()
        .wait_for_connections("both ended", |all| {
            all.len() == 2 && all.iter().all(|one| one.ended.is_some())
        })
        .unwrap();
    let arrived = |index: usize| {
        let arrivals = connections[index].arrivals.iter();
        arrivals.map(|arrival| arrival.bytes).sum::<usize>()
    };
    assert_eq!((arrived(0), arrived(1)), (16, 12));
    for connection in &connections {
        assert!(matches!(connection.ended, Some((_, Ok(())))));
    }
}

#[test]
fn a_stream_shows_like_every_session_and_is_revoked_like_one() {
    let (mut scene, upstream) = scene("tcp-revoke");
    let listener = scene.config.listener().unwrap();
    listener.principal = Some("subject_cn".to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let client = client(&scene, &alice);

    let flow = client.flow("echo").unwrap();
    let local = flow.local();
    let sessions = daemon.cli(&["sessions", "--json"]).unwrap();
    let sessions: Value = serde_json::from_str(&sessions.stdout).unwrap();
    let text = sessions.to_string();
    assert!(text.contains("\"alice\""), "{text}");
    let revoked = daemon.cli(&["sessions", "revoke", "--subject", "alice"]);
    assert_eq!(revoked.unwrap().code, 0);
    let ending = flow.end().unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "revoked");
    let limit = instant(&record, "deadline").unwrap();
    let wire = capture.finish().unwrap();
    check_cut(&wire.conversation(local), &ending, limit);
    check_upstream(&upstream);
    assert!(client.flow("echo").is_err());
    let refused = refused(&daemon, "session_ended");
    assert_eq!(refused["subject"], "alice");
}

fn refused(daemon: &Daemon<'_>, reason: &str) -> Value {
    let record = daemon.wait_for_audit("session_refused", |record| record["reason"] == reason);
    record.expect("a record")
}

#[test]
fn without_a_certificate_of_the_authoritys_there_is_no_way_in() {
    let (mut scene, upstream) = scene("tcp-strangers");
    let listener = scene.config.listener().unwrap();
    listener.principal = Some("san_uri".to_owned());
    let daemon = scene.start().unwrap();
    let nobody = scene.client().unwrap();
    assert!(nobody.flow("echo").is_err());
    let other = enforcer_tests::certificates::Authority::new().unwrap();
    let stranger = other.client("alice").unwrap();
    assert!(client(&scene, &stranger).flow("echo").is_err());
    refused(&daemon, "tls_failed");
    let nameless = scene.authority.client("alice").unwrap();
    assert!(client(&scene, &nameless).flow("echo").is_err());
    refused(&daemon, "certificate_name_missing");
    let connections = upstream
        .log()
        .wait_for_connections("nothing", |_| true)
        .unwrap();
    assert!(connections.is_empty());
}

#[test]
fn openssl_talks_through_it_until_it_is_cut() {
    let (mut scene, _upstream) = scene("tcp-openssl");
    scene.config.policy().max_session = "2s".to_owned();
    let _daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let (certificate, key) = alice.write(&scene.bed, "alice").unwrap();
    let address = scene.client().unwrap().server().to_string();
    let mut openssl = scene.bed.command(scene.bed.client(), "openssl").unwrap();
    openssl
        .args(["s_client", "-quiet", "-verify_return_error", "-connect"])
        .arg(address)
        .arg("-CAfile")
        .arg(scene.ca_file())
        .arg("-cert")
        .arg(certificate)
        .arg("-key")
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut openssl = openssl.spawn().unwrap();
    let mut stdin = openssl.stdin.take().unwrap();
    stdin.write_all(b"echo\nover there\n").unwrap();
    let mut answer = [0; 11];
    let mut stdout = openssl.stdout.take().unwrap();
    stdout.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"over there\n");
    let output = openssl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("errno=104"), "{said}");
}
