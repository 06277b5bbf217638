//! Revocation ends a session at once, for good.

use enforcer_tests::{
    Scene, Streams,
    client::{Client, End, Pattern},
    daemon::Daemon,
    postgres::Proof,
};

/// Ids of the live sessions of `subject`.
fn sessions(daemon: &Daemon<'_>, subject: &str) -> Vec<String> {
    let listing = daemon
        .cli(&["sessions", "--json"])
        .and_then(|output| output.json());
    let listing = listing.expect("a listing");
    let sessions = listing.as_array().expect("a list of sessions").iter();
    let ours = sessions.filter(|session| session["subject"] == subject);
    ours.map(|session| session["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn refusal(client: &Client, token: &str) -> (u16, String) {
    let answer = client.get("/headers", token).expect("an answer");
    let code = answer.json().expect("a body")["code"]
        .as_str()
        .map(str::to_owned);
    (answer.status.as_u16(), code.unwrap_or_default())
}

#[test]
fn revocation_ends_all_connections_of_the_session_and_says_how_many() {
    let mut scene = Scene::new("revoke").unwrap();
    scene.config.routes[0].upstream_pool = Some("session".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let streams = Streams::start(&client, &scene.token("alice").unwrap()).unwrap();
    let other = client
        .websocket("/echo", &scene.token("bob").unwrap())
        .unwrap();
    other.echo("here").unwrap();

    let ids = sessions(&daemon, "alice");
    assert_eq!(ids.len(), 1);
    let revocation = [
        "sessions",
        "revoke",
        &ids[0],
        "--reason",
        "lost laptop",
        "--json",
    ];
    let outcome = daemon.cli(&revocation).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = outcome.json().unwrap();
    assert_eq!(outcome["sessions"], 1, "{outcome}");
    // Two from the client, and one to the upstream for each.
    assert_eq!(outcome["connections"], 4, "{outcome}");

    assert_eq!(streams.download.end().unwrap().how, End::Reset);
    assert_eq!(streams.talk.end().unwrap().ending.how, End::Reset);
    let upstream = &scene.upstream;
    let legs = upstream
        .log()
        .wait_for_connections("the upstream legs ended", |legs| {
            legs.iter().filter(|leg| leg.closed).count() == 2
        });
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    let reset = |leg: &&enforcer_tests::upstream::Connection| {
        leg.ended.as_ref().is_some_and(|(_, how)| *how == reset)
    };
    assert_eq!(legs.unwrap().iter().filter(reset).count(), 2);
    other.echo("still here").unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "revoked");
    assert_eq!(record["subject"], "alice");
    assert!(record.to_string().contains("lost laptop"), "{record}");
}

#[test]
fn who_is_revoked_is_told_before_the_cut() {
    let mut scene = Scene::new("revoke-told").unwrap();
    scene.config.policy().farewell = Some("250ms".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let streams = Streams::start(&client, &scene.token("alice").unwrap()).unwrap();
    let revocation = ["sessions", "revoke", "--subject", "alice", "--json"];
    let outcome = daemon.cli(&revocation).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(sessions(&daemon, "alice").is_empty(), "it is over by then");
    let told = End::Close(1008, "session expired".to_owned());
    assert_eq!(streams.talk.end().unwrap().ending.how, told);
    assert_eq!(streams.download.end().unwrap().how, End::Reset);
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "revoked");
}

#[test]
fn psql_is_told_that_its_session_is_revoked() {
    let mut scene = Scene::new("revoke-psql").unwrap();
    scene.config.policy().farewell = Some("250ms".to_owned());
    let _server = scene.serve_postgres("certificate", None).unwrap();
    let daemon = scene.start().unwrap();
    let identity = scene.authority.client("alice").unwrap();
    let proof = Proof::Certificate(&identity, "alice");
    let mut psql = scene.pg("trusted", &proof).unwrap().interactive().unwrap();
    psql.write("select 'open';").unwrap();
    psql.wait_for("open").unwrap();
    let outcome = daemon.cli(&["sessions", "revoke", "--all"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    psql.write("select 'late';").unwrap();
    psql.wait_for("FATAL:  terminating connection: the session has to end")
        .unwrap();
    assert_ne!(psql.end().unwrap(), 0);
}

#[test]
fn a_revoked_token_is_refused_from_then_on_over_every_restart() {
    let scene = Scene::new("revoked").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    assert_eq!(client.get("/headers", &token).unwrap().status, 200);

    let outcome = daemon
        .cli(&["sessions", "revoke", "--subject", "alice"])
        .unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let ended = (401, "session_ended".to_owned());
    assert_eq!(refusal(&client, &token), ended);
    daemon.restart().unwrap();
    assert_eq!(refusal(&client, &token), ended);
    daemon.kill_warden().unwrap();
    daemon.start_again().unwrap();
    assert_eq!(refusal(&client, &token), ended);
    assert_eq!(
        client
            .get("/headers", &scene.token("bob").unwrap())
            .unwrap()
            .status,
        200
    );
}

#[test]
fn all_sessions_can_be_revoked_at_once() {
    let scene = Scene::new("revoke-all").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let talks = ["alice", "bob", "carol"].map(|subject| {
        let token = scene.token(subject).unwrap();
        client
            .websocket("/echo", &token)
            .unwrap()
            .talk(Pattern::default())
    });

    let outcome = daemon
        .cli(&["sessions", "revoke", "--all", "--json"])
        .unwrap();
    assert_eq!(outcome.json().unwrap()["sessions"], 3, "{outcome:?}");
    for talk in talks {
        assert_eq!(talk.end().unwrap().ending.how, End::Reset);
    }
}
