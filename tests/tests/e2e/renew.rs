//! A newer token moves the deadline, up to the policy's limit, and never halfway.

use std::time::Duration;

use enforcer::clock::{self, WallInstant};
use enforcer_tests::{
    Scene,
    client::{Answer, End, Pattern},
    issuer::Claims,
    wait,
};

fn token(scene: &Scene, subject: &str, expires_at: WallInstant) -> String {
    let claims = Claims::new(subject, expires_at).with("sid", format!("login of {subject}"));
    scene.issuer.sign(&claims).expect("a token")
}

/// The session that the upstream was told of.
fn session_of(answer: &Answer) -> String {
    let headers: Vec<(String, String)> =
        serde_json::from_value(answer.json().expect("a body")).expect("pairs");
    let named = headers
        .into_iter()
        .find(|(name, _)| name == "x-enforcer-session");
    named.expect("a session").1
}

#[test]
fn a_renewed_token_keeps_a_websocket_open_but_not_past_the_longest_session() {
    let mut scene = Scene::new("renew").unwrap();
    scene.config.policy().max_session = "5s".to_owned();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let first_expiry = wait::whole_second_after(Duration::from_secs(1));
    let hour = first_expiry.saturating_add(Duration::from_secs(3600));

    let started_at = clock::boot_now();
    let first = token(&scene, "alice", first_expiry);
    let talk = client
        .websocket("/echo", &first)
        .unwrap()
        .talk(Pattern::default());
    let renewal = client
        .get("/headers", &token(&scene, "alice", hour))
        .unwrap();
    assert_eq!(renewal.status, 200);
    daemon
        .wait_for_audit("session_renewed", |record| record["subject"] == "alice")
        .unwrap();

    wait::until_wall(first_expiry.saturating_add(Duration::from_millis(500)));
    let echoes = talk.received();
    wait::until("it echoed past the first expiry", || {
        (talk.received() > echoes).then_some(())
    })
    .unwrap();
    let again = client
        .get("/headers", &token(&scene, "alice", hour))
        .unwrap();
    assert_eq!(again.status, 200);

    let end = talk.end().unwrap().ending;
    assert_eq!(end.how, End::Reset);
    let lived = end.at.saturating_duration_since(started_at);
    assert!(
        lived >= Duration::from_secs(5) && lived < Duration::from_secs(6),
        "{lived:?}"
    );
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "deadline");
    let too_late = client
        .get("/headers", &token(&scene, "alice", hour))
        .unwrap();
    assert_eq!(too_late.status, 401);
}

#[test]
fn a_token_without_a_session_id_renews_on_the_same_connection() {
    let scene = Scene::new("renew-azp").unwrap();
    let _daemon = scene.start().unwrap();
    let now = clock::wall_now();
    let token = |seconds| {
        let expires_at = now.saturating_add(Duration::from_secs(seconds));
        let claims = Claims::new("alice", expires_at).with("azp", "the-app");
        scene.issuer.sign(&claims).unwrap()
    };
    let connection = scene.client().unwrap().connection().unwrap();
    let expires_in = |token: &str| {
        let answer = connection.get("/headers", token).unwrap();
        assert_eq!(answer.status, 200);
        answer.header("session-expires-in").parse::<u64>().unwrap()
    };
    assert!(expires_in(&token(100)) <= 100);
    assert!(expires_in(&token(1000)) > 900);
}

#[test]
fn renewal_at_the_instant_of_expiry_is_whole_or_nothing() {
    const SESSIONS: u64 = 30;
    /// Renewals are spread from here before the expiry to a third of it after.
    const EARLIEST: Duration = Duration::from_millis(150);
    let scene = Scene::new("renew-race").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let expiry = wait::whole_second_after(Duration::from_secs(3));
    let hour = expiry.saturating_add(Duration::from_secs(3600));
    let racers = (0..SESSIONS).map(|number| {
        let subject = format!("user {number}");
        let socket = client
            .websocket("/echo", &token(&scene, &subject, expiry))
            .unwrap();
        let session = session_of(
            &client
                .get("/headers", &token(&scene, &subject, expiry))
                .unwrap(),
        );
        // The handshake is over before the race.
        let connection = client.connection().unwrap();
        let renewal = token(&scene, &subject, hour);
        let step = EARLIEST * 4 / 3 / u32::try_from(SESSIONS).unwrap();
        let at = expiry
            .saturating_sub(EARLIEST)
            .saturating_add(step * number as u32);
        std::thread::spawn(move || {
            wait::until_wall(at);
            let answer = connection.get("/headers", &renewal).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            let renewed = session_of(&answer) == session;
            wait::until_wall(expiry.saturating_add(Duration::from_millis(500)));
            (renewed, socket.echo("alive"))
        })
    });
    let racers = racers.collect::<Vec<_>>();
    assert!(
        clock::wall_now() < expiry.saturating_sub(EARLIEST),
        "too slow to race"
    );

    // A newer token either renewed the session, and its sockets live, or came too late: then the
    // session has ended with its sockets, and the token has opened another.
    let (mut renewed, mut ended) = (0, 0);
    for racer in racers {
        match racer.join().unwrap() {
            (true, Ok(())) => renewed += 1,
            (false, Err(_)) => ended += 1,
            half => panic!("{half:?}"),
        }
    }
    assert!(renewed > 0 && ended > 0, "{renewed} renewed, {ended} ended");
}
