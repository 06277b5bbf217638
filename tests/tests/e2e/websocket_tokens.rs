//! Tokens of WebSockets where browsers can have them: as a subprotocol, and in a cookie.

use std::{collections::BTreeMap, time::Duration};

use enforcer_tests::{
    Scene,
    config::Route,
    wait,
    websockets::{Opening, Outcome, Server},
};

const OWN: &str = "https://enforcer.test:8443";

fn scene(label: &str) -> (Scene, Server) {
    let mut scene = Scene::new(label).expect("a scene");
    let server = Server::start(&scene.bed).expect("a server");
    scene.config.routes = vec![Route::to(server.url())];
    (scene, server)
}

fn offering(protocols: &[&str]) -> Opening<'static> {
    Opening {
        subprotocols: protocols.iter().map(|it| (*it).to_owned()).collect(),
        ..Opening::default()
    }
}

#[test]
fn the_token_may_be_a_subprotocol_which_the_upstream_never_sees() {
    let (scene, _server) = scene("ws-subprotocol");
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let bearer = format!("bearer.{token}");

    let both = offering(&["chat", &bearer]).run(&scene).unwrap();
    assert_eq!(both.subprotocol.as_deref(), Some("chat"));
    assert_eq!(both.echo.as_deref(), Some("over there"));
    let seen = both.seen.unwrap();
    assert_eq!(seen.subprotocol.as_deref(), Some("chat"));
    assert_eq!(seen.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(seen.header("x-enforcer-subject"), Some("alice"));
    assert!(!format!("{seen:?}").contains(&token));

    // A browser wants one of those that it offers.
    let only = offering(&[&bearer]).run(&scene).unwrap();
    assert_eq!(only.subprotocol, Some(bearer.clone()));
    assert_eq!(only.seen.unwrap().header("sec-websocket-protocol"), None);

    let none = offering(&["chat"]).run(&scene).unwrap();
    assert_eq!(none.status, Some(401));
    let bad = offering(&["chat", "bearer.no.such.token"])
        .run(&scene)
        .unwrap();
    assert_eq!(bad.status, Some(401));
    let two = offering(&["bearer.a", "bearer.b"]).run(&scene).unwrap();
    assert_eq!(two.status, Some(400));
    for reason in ["missing_token", "token_malformed", "invalid_request"] {
        daemon
            .wait_for_audit("session_refused", |record| record["reason"] == reason)
            .unwrap();
    }
}

#[test]
fn a_socket_that_a_browser_opened_gets_its_farewell() {
    let (mut scene, _server) = scene("ws-farewell");
    scene.config.policy().farewell = Some("500ms".to_owned());
    let _daemon = scene.start().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();
    let opening = Opening {
        wait: true,
        ..offering(&["chat", &format!("bearer.{token}")])
    };
    let outcome = opening.run(&scene).unwrap();
    assert_eq!(outcome.close, Some((1008, "session expired".to_owned())));
}

#[test]
fn the_cookie_counts_from_pages_of_allowed_origins_only() {
    let (mut scene, _server) = scene("ws-cookie");
    let listener = scene.config.listener().unwrap();
    listener.token_cookie = Some("__Host-token".to_owned());
    listener.allowed_origins = vec!["https://app.test".to_owned()];
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let cookie = format!("theme=dark; __Host-token={token}");
    let open = |origin: Option<&str>| -> Outcome {
        let opening = Opening {
            origin,
            headers: BTreeMap::from([("Cookie", cookie.clone())]),
            ..Opening::default()
        };
        opening.run(&scene).expect("an outcome")
    };
    for origin in [OWN, "https://app.test"] {
        let outcome = open(Some(origin));
        assert_eq!(outcome.echo.as_deref(), Some("over there"), "{outcome:?}");
        let seen = outcome.seen.unwrap();
        assert_eq!(seen.header("cookie"), Some("theme=dark"));
        assert_eq!(seen.header("x-enforcer-subject"), Some("alice"));
    }
    for origin in [Some("https://evil.test"), Some("null"), None] {
        assert_eq!(open(origin).status, Some(403), "{origin:?}");
    }
    let refused = daemon.wait_for_audit("session_refused", |it| it["reason"] == "cross_site");
    refused.unwrap();

    let client = scene.client().unwrap();
    let logout = |origin: &str| {
        let url = format!("{OWN}/.well-known/enforcer/session/logout");
        let fields = [format!("Cookie: {cookie}"), format!("Origin: {origin}")];
        let arguments = [
            "--header",
            &fields[0],
            "--header",
            &fields[1],
            "--request",
            "POST",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            &url,
        ];
        let cgroup = scene.bed.tools_cgroup().expect("a cgroup");
        let output = client
            .curl(&cgroup, &scene.ca_file(), &arguments)
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(logout("https://evil.test"), "403");
    assert_eq!(logout(OWN), "204");
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "logout");
}
