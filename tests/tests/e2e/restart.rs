//! Processes are killed; limits, sessions and listeners outlive them.

use std::{process::Command, time::Duration};

use enforcer_tests::{
    Scene, Streams,
    client::{Client, End, Pattern},
    daemon::{self, Daemon},
    knocking::Knocking,
    process::send,
    wait,
};
use rustix::process::Signal;
use serde_json::Value;

/// The one live session.
fn session(daemon: &Daemon<'_>) -> (Value, Value) {
    let listing = daemon
        .cli(&["sessions", "--json"])
        .and_then(|output| output.json());
    let listing = listing.expect("a listing");
    let sessions = listing.as_array().expect("a list of sessions");
    assert_eq!(sessions.len(), 1, "{listing}");
    (sessions[0]["id"].clone(), sessions[0]["deadline"].clone())
}

fn is_served(client: &Client, token: &str) -> bool {
    client
        .get("/headers", token)
        .is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_killed_gateway_is_replaced_and_the_session_goes_on_as_it_was() {
    let scene = Scene::new("gateway-killed").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    assert!(is_served(&client, &token));
    let before = session(&daemon);

    let killed = daemon.gateway_pid().unwrap();
    send(killed, Signal::KILL).unwrap();
    wait::until("another gateway served", || {
        is_served(&client, &token).then_some(())
    })
    .unwrap();
    assert_ne!(daemon.gateway_pid().unwrap(), killed);
    assert_eq!(session(&daemon), before);
    daemon
        .wait_for_audit("gateway_died", |record| record["pid"] == killed)
        .unwrap();
}

#[test]
fn without_a_warden_the_gateway_serves_on_and_the_deadline_still_cuts() {
    let scene = Scene::new("warden-killed").unwrap();
    let mut daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();

    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    wait::until_wall(deadline.saturating_sub(Duration::from_secs(2)));
    daemon.kill_warden().unwrap();
    let ended = streams.end().unwrap();

    let wire = capture.finish().unwrap();
    ended.check_flow(&wire, deadline).unwrap();
    ended.check_cut(&wire, deadline).unwrap();
}

#[test]
fn a_new_warden_takes_sessions_and_listeners_over_and_no_connection_is_refused() {
    let scene = Scene::new("takeover").unwrap();
    let mut daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(5));
    let token = scene.token_until("alice", deadline).unwrap();
    let streams = Streams::start(&client, &token).unwrap();
    let before = session(&daemon);
    let old_gateway = daemon.gateway_pid().unwrap();
    let knocking = Knocking::start(&scene, &client).unwrap();

    daemon.kill_warden().unwrap();
    daemon.start_again().unwrap();
    wait::until("a new gateway served", || {
        let gateways = daemon.gateway_pids().ok()?;
        let new = gateways.iter().any(|gateway| *gateway != old_gateway);
        (new && is_served(&client, &token)).then_some(())
    })
    .unwrap();
    let (knocks, refused) = knocking.stop().unwrap();
    assert_eq!(refused, 0, "of {knocks} connections");
    assert!(knocks > 10);

    assert_eq!(session(&daemon), before);
    streams.wait_for_data().unwrap();
    let ended = streams.end().unwrap();
    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
    ended.check_flow(&wire, deadline).unwrap();
}

#[test]
fn what_ended_while_nobody_looked_is_reset_by_the_next_warden_and_a_wedged_gateway_is_replaced() {
    let scene = Scene::new("nobody").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();
    let streams = Streams::start(&client, &token).unwrap();

    let wedged = daemon.gateway_pid().unwrap();
    send(wedged, Signal::STOP).unwrap();
    daemon.kill_warden().unwrap();
    wait::until_wall(deadline.saturating_add(Duration::from_millis(200)));
    assert!(streams.are_running(), "nobody was there to reset them");
    daemon.start_again().unwrap();

    assert_eq!(streams.download.end().unwrap().how, End::Reset);
    assert_eq!(streams.talk.end().unwrap().ending.how, End::Reset);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token", "{record}");
    // Two from the client, and the WebSocket's to the upstream.
    assert_eq!(record["sockets_reset"], 3, "{record}");
    assert!(is_served(&client, &scene.token("bob").unwrap()));
    assert_ne!(daemon.gateway_pid().unwrap(), wedged);
}

#[test]
fn a_session_outlives_sigterm_and_a_new_start() {
    let scene = Scene::new("restart").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    assert!(is_served(&client, &token));
    let before = session(&daemon);

    let status = daemon.terminate().unwrap();
    assert!(status.success(), "{status}");
    assert!(scene.bed.bpf_dir().join("SESSIONS").exists());
    daemon.start_again().unwrap();
    assert!(is_served(&client, &token));
    assert_eq!(session(&daemon), before);
}

#[test]
fn unload_leaves_nothing_in_the_kernel() {
    let scene = Scene::new("unload").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let socket = client
        .websocket("/echo", &scene.token("alice").unwrap())
        .unwrap();
    let _talk = socket.talk(Pattern::default());

    let outcome = daemon.cli(&["unload"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    wait::until("the daemon ended", || daemon.ended().unwrap()).unwrap();
    assert!(!scene.bed.bpf_dir().exists());
    let cgroup = scene.bed.daemon_cgroup().unwrap();
    if cgroup.exists() {
        let attached = Command::new("bpftool")
            .args(["cgroup", "show"])
            .arg(&cgroup)
            .output();
        assert_eq!(String::from_utf8_lossy(&attached.unwrap().stdout), "");
    }
    let again = daemon::run_cli(&scene.bed, &["status"]).unwrap();
    assert_eq!(again.code, 1, "{again:?}");
}

#[test]
fn a_warning_is_recorded_once_whoever_gives_it() {
    let mut scene = Scene::new("warned-once").unwrap();
    scene.config.policy().warn_before = Some("50m".to_owned());
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(60));
    let token = scene.token_until("alice", deadline).unwrap();
    assert!(is_served(&client, &token));
    let of = |subject| move |record: &Value| record["subject"] == subject;
    daemon
        .wait_for_audit("session_warned", of("alice"))
        .unwrap();
    // The store has it by then: it is asked to make sure of this session's end.
    let carols = scene.token("carol").unwrap();
    assert!(is_served(&client, &carols));
    let revoked = daemon.cli(&["sessions", "revoke", "--subject", "carol"]);
    assert_eq!(revoked.unwrap().code, 0);
    daemon.kill_warden().unwrap();
    daemon.start_again().unwrap();
    let bobs = scene.token_until("bob", deadline).unwrap();
    wait::until("bob was served", || is_served(&client, &bobs).then_some(())).unwrap();
    daemon.wait_for_audit("session_warned", of("bob")).unwrap();
    let records = daemon.audit().unwrap();
    let warned = records
        .iter()
        .filter(|record| record["event"] == "session_warned");
    assert_eq!(
        warned.filter(|record| record["subject"] == "alice").count(),
        1
    );
}
