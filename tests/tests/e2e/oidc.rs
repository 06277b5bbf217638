//! Tokens of a real OpenID provider: keys that it publishes and changes, opaque tokens that it is
//! asked about, and what becomes of sessions when it takes them back or is not there.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use enforcer_tests::{
    Scene,
    client::{Client, End},
    issuer::{Claims, ISSUER},
    provider::{Format, Provider},
    wait,
};

/// The answer to a token: its status, and the code of a refusal.
fn answer(client: &Client, token: &str) -> (u16, String) {
    let answer = client.get("/headers", token).expect("an answer");
    let code = match answer.status.as_u16() {
        200 => String::new(),
        _ => answer.json().expect("a body")["code"]
            .as_str()
            .expect("a code")
            .to_owned(),
    };
    (answer.status.as_u16(), code)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn served() -> (u16, String) {
    (200, String::new())
}

#[test]
fn keys_are_discovered_and_one_that_is_withdrawn_ends_the_sessions_that_it_signed() {
    let mut scene = Scene::new("oidc").unwrap();
    let provider = Provider::start(&scene, "localhost").unwrap();
    scene.config.identity.jwt = vec![provider.jwt()];
    let token = provider.token(Format::Jwt).unwrap();

    // The daemon starts without the provider.
    provider.freeze().unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    assert_eq!(answer(&client, &token), refused(503, "keys_unavailable"));
    let record = daemon.wait_for_audit("session_refused", |_| true).unwrap();
    assert_eq!(record["reason"], "keys_unavailable");
    provider.thaw().unwrap();
    wait::until("the keys were there", || {
        (answer(&client, &token) == served()).then_some(())
    })
    .unwrap();

    // A key that is added is known as soon as a token needs it, and takes nothing from the other.
    provider.add_key().unwrap();
    let newer = provider.token(Format::Jwt).unwrap();
    assert_eq!(answer(&client, &newer), served());
    assert_eq!(answer(&client, &token), served());
    let socket = client.websocket("/echo", &newer).unwrap();
    let old = client.download("/download", &token).unwrap();

    // They are replaced by a third: what they signed ends.
    provider.replace_keys().unwrap();
    let newest = provider.token(Format::Jwt).unwrap();
    assert_eq!(answer(&client, &newest), served());
    assert_eq!(old.end().unwrap().how, End::Reset);
    let ended = |token: &serde_json::Value| token["reason"] == "key_withdrawn";
    let record = daemon.wait_for_audit("session_ended", ended).unwrap();
    assert_eq!(record["subject"], "alice");
    assert_eq!(record["issuer"], provider.issuer());
    let (status, _) = answer(&client, &token);
    assert_eq!(status, 401);
    assert!(socket.echo("over").is_err());
    assert_eq!(answer(&client, &newest), served());
}

#[test]
fn an_opaque_token_is_asked_about_and_its_session_ends_when_it_is_revoked() {
    let mut scene = Scene::new("opaque").unwrap();
    let provider = Provider::start(&scene, "localhost").unwrap();
    scene.config.identity.jwt = Vec::new();
    scene.config.identity.introspection = vec![provider.introspection()];
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = provider.token(Format::Opaque).unwrap();
    for _ in 0..5 {
        assert_eq!(answer(&client, &token), served());
    }
    let asked = provider.asked("POST /token/introspection").unwrap();
    assert!((1..=3).contains(&asked), "{asked}");
    let invented = answer(&client, "invented");
    assert_eq!(invented, refused(401, "token_inactive"));
    // A JWT of the same issuer, which is only asked, is asked about as well; this provider says
    // nothing of its JWTs.
    let jwt = provider.token(Format::Jwt).unwrap();
    assert_eq!(answer(&client, &jwt), refused(401, "token_inactive"));

    let download = client.download("/download", &token).unwrap();
    provider.revoke(&token).unwrap();
    assert_eq!(download.end().unwrap().how, End::Reset);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token_inactive");
    assert_eq!(record["subject"], "alice");
    let (status, code) = answer(&client, &token);
    assert_eq!(status, 401);
    assert!(
        ["session_ended", "token_inactive"].contains(&&*code),
        "{code}"
    );

    // It hangs: whose token this is, nobody can say.
    let other = provider.token(Format::Opaque).unwrap();
    provider.freeze().unwrap();
    let unknown = answer(&client, &other);
    assert_eq!(unknown, refused(503, "introspection_unavailable"));
    provider.thaw().unwrap();
    assert_eq!(answer(&client, &other), served());
}

/// Stops the clients when the one who started them is done, or has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn keys_that_are_replaced_gently_refuse_nobody() {
    let mut scene = Scene::new("rotating").unwrap();
    let provider = Provider::start(&scene, "localhost").unwrap();
    scene.config.identity.jwt = vec![provider.jwt()];
    let daemon = scene.start().unwrap();
    let latest = Mutex::new(provider.token(Format::Jwt).unwrap());
    let stop = AtomicBool::new(false);
    let served_by: [AtomicU32; 4] = Default::default();
    let requests = |served_by: &AtomicU32| {
        let client = scene.client().unwrap();
        while !stop.load(Ordering::Relaxed) {
            // Each token is a session of its own, with connections of its own.
            let token = latest.lock().unwrap().clone();
            let kept = client.connection().unwrap();
            while *latest.lock().unwrap() == token && !stop.load(Ordering::Relaxed) {
                assert_eq!(answer(&client, &token), served());
                assert_eq!(kept.get("/headers", &token).unwrap().status, 200);
                served_by.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        let stopping = Stop(&stop);
        for served_by in &served_by {
            scope.spawn(move || requests(served_by));
        }
        let everybody_goes_on = |rounds: u32| {
            let before = served_by.each_ref().map(|it| it.load(Ordering::Relaxed));
            wait::until("requests by all clients", || {
                let mut now = served_by.iter().zip(before);
                let on = now.all(|(it, before)| it.load(Ordering::Relaxed) >= before + rounds);
                on.then_some(())
            })
            .unwrap();
        };
        everybody_goes_on(3);
        for _ in 0..2 {
            provider.add_key().unwrap();
            *latest.lock().unwrap() = provider.token(Format::Jwt).unwrap();
            // A round that was under way may have the former token.
            everybody_goes_on(3);
            provider.retire_keys().unwrap();
            let asked = || provider.asked("GET /jwks").unwrap();
            let before = asked();
            wait::until("the daemon knows of it", || {
                (asked() >= before + 2).then_some(())
            })
            .unwrap();
            everybody_goes_on(3);
        }
        drop(stopping);
    });
    let withdrawn = |record: &serde_json::Value| record["reason"] == "key_withdrawn";
    let refused = daemon.audit().unwrap();
    let refused = refused.iter().find(|it| it["event"] == "session_refused");
    assert!(refused.is_none(), "{refused:?}");
    // The keys that are gone are: what only they signed has ended.
    daemon.wait_for_audit("session_ended", withdrawn).unwrap();
}

#[test]
fn issuers_side_by_side_vouch_for_their_own_tokens_alone() {
    let mut scene = Scene::new("issuers").unwrap();
    let provider = Provider::start(&scene, "localhost").unwrap();
    scene.config.identity.jwt.push(provider.jwt());
    // The second is asked about its opaque tokens as well, and those must be bound.
    scene.config.identity.introspection = vec![enforcer_tests::config::Introspection {
        certificate_bound: true,
        ..provider.introspection()
    }];
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let first = scene.token("bob").unwrap();
    let second = provider.token(Format::Jwt).unwrap();
    for (token, issuer, subject) in [
        (&first, ISSUER, "bob"),
        (&second, provider.issuer(), "alice"),
    ] {
        assert_eq!(answer(&client, token), served());
        let opened = |it: &serde_json::Value| it["issuer"] == issuer && it["subject"] == subject;
        daemon.wait_for_audit("session_opened", opened).unwrap();
    }
    // A key is good for its own issuer's name.
    let an_hour_on = wait::whole_second_after(std::time::Duration::from_secs(3600));
    let claims = Claims::new("alice", an_hour_on).with("iss", provider.issuer());
    let forged = scene.issuer.sign(&claims).unwrap();
    let (status, code) = answer(&client, &forged);
    assert_eq!(status, 401);
    assert!(
        ["key_unknown", "signature_invalid"].contains(&&*code),
        "{code}"
    );
    let opaque = provider.token(Format::Opaque).unwrap();
    assert_eq!(answer(&client, &opaque), refused(401, "token_unbound"));
}
