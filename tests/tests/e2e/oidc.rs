//! Tokens of a real OpenID provider: keys that it publishes and changes, opaque tokens that it is
//! asked about, and what becomes of sessions when it takes them back or is not there.

use enforcer_tests::{
    Scene,
    client::{Client, End},
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
