//! What policies ask for, whom they are for, and how long and how often they let anybody in.

use std::{net::SocketAddr, time::Duration};

use enforcer::clock;
use enforcer_tests::{
    Scene,
    bed::{CLIENT_IPV4, DAEMON_IPV4, DAEMON_IPV6},
    certificates::SERVER_NAME,
    client::{Answer, Client, End, Pattern},
    config::{Policy, Proxies, Route},
    issuer::Claims,
    scene::PORT,
    upstream::stream::StreamUpstream,
    wait,
};
use serde_json::{Value, json};

/// Keys of a policy or a route.
fn keys(text: &str) -> toml::Table {
    text.parse().expect("keys")
}

/// A token for `subject` of a session of its own, with more claims.
fn token(scene: &Scene, subject: &str, claims: Value) -> String {
    let hour = clock::wall_now().saturating_add(Duration::from_secs(3600));
    let mut token = Claims::new(subject, hour);
    for (name, value) in claims.as_object().expect("claims") {
        token = token.with(name, value.clone());
    }
    scene.issuer.sign(&token).expect("a token")
}

fn code(answer: &Answer) -> String {
    let body = answer.json().expect("a body");
    body["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_better_token_steps_up_within_the_same_session() {
    let mut scene = Scene::new("step-up").unwrap();
    let upstream = scene.upstream.url();
    scene.config.routes.push(Route {
        path: Some("/headers".to_owned()),
        more: keys("require = { acr = ['aal2', 'aal3'], max_age = '5m', scopes = 'admin' }"),
        ..Route::to(upstream)
    });
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let now = clock::wall_now().as_unix_seconds();
    let connection = client.connection().unwrap();
    let with = |more: Value| {
        let mut claims = json!({"sid": "s", "auth_time": now});
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        token(&scene, "alice", claims)
    };
    let plain = with(json!({"acr": "aal1"}));
    let session = client.websocket("/echo", &plain).unwrap();

    let answer = connection.get("/headers", &plain).unwrap();
    assert_eq!(
        (answer.status.as_u16(), &*code(&answer)),
        (403, "insufficient_scope")
    );
    let challenge = answer.header("www-authenticate");
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    assert!(challenge.ends_with("scope=\"admin\""), "{challenge}");

    let scoped = with(json!({"acr": "aal1", "scope": "read admin"}));
    let answer = connection.get("/headers", &scoped).unwrap();
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate");
    let wanted = "acr_values=\"aal2 aal3\", max_age=\"300\"";
    assert!(
        challenge.contains("error=\"insufficient_user_authentication\""),
        "{challenge}"
    );
    assert!(challenge.ends_with(wanted), "{challenge}");
    let refused = daemon.wait_for_audit("session_refused", |record| {
        record["reason"] == "insufficient_user_authentication"
    });
    assert_eq!(refused.unwrap()["subject"], "alice");

    let strong = with(json!({"acr": "aal2", "scope": "admin"}));
    let answer = connection.get("/headers", &strong).unwrap();
    assert_eq!(answer.status, 200);
    session.echo("the same session").unwrap();
    let opened = daemon.audit().unwrap().into_iter();
    let opened: Vec<_> = opened
        .filter(|record| record["event"] == "session_opened")
        .collect();
    assert_eq!(opened.len(), 1, "{opened:?}");
    let answer = connection.get("/headers", &plain).unwrap();
    assert_eq!(answer.status, 403, "the weaker token steps nobody up");
    let stale = with(json!({"acr": "aal3", "scope": "admin", "auth_time": now - 301}));
    assert_eq!(connection.get("/headers", &stale).unwrap().status, 401);
}

#[test]
fn claims_and_networks_choose_policies() {
    let mut scene = Scene::new("match").unwrap();
    let short = Policy {
        max_session: "2s".to_owned(),
        more: keys("match = { groups = 'contractors' }"),
        ..Policy::default()
    };
    let elsewhere = Policy {
        more: keys(&format!(
            "match = {{ networks = ['{CLIENT_IPV4}'] }}\nrequire = {{ claims = {{ vpn = true }} }}"
        )),
        ..Policy::default()
    };
    scene
        .config
        .policies
        .insert("contractors".to_owned(), short);
    scene.config.policies.insert("cable".to_owned(), elsewhere);
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let without = token(&scene, "mallory", json!({"jti": "m"}));
    let answer = client.get("/headers", &without).unwrap();
    assert_eq!(
        (answer.status.as_u16(), &*code(&answer)),
        (403, "claim_not_allowed")
    );

    let open = |subject: &str, claims: Value| {
        let token = token(&scene, subject, claims);
        client.websocket("/echo", &token).unwrap()
    };
    let bob = open("bob", json!({"sid": "b", "vpn": true, "groups": ["staff"]}));
    let carol = open("carol", json!({"sid": "c", "vpn": true}));
    let alice = open(
        "alice",
        json!({"sid": "a", "vpn": true, "groups": ["x", "contractors"]}),
    );
    // A newer token with other claims, even where a renewal is all that happens.
    let claims = json!({"sid": "c", "vpn": true, "groups": "contractors"});
    let renewal = token(&scene, "carol", claims);
    let endpoint = "/.well-known/enforcer/session/renew";
    let answer = client
        .connection()
        .unwrap()
        .post(endpoint, &renewal, "")
        .unwrap();
    assert_eq!(answer.status, 200);

    for (subject, socket) in [("alice", alice), ("carol", carol)] {
        let end = socket.talk(Pattern::default()).end().unwrap().ending;
        assert_eq!(end.how, End::Reset);
        let ended = daemon.wait_for_audit("session_ended", |record| record["subject"] == subject);
        let mut policies: Vec<String> =
            serde_json::from_value(ended.unwrap()["policies"].clone()).unwrap();
        policies.sort();
        assert_eq!(policies, ["cable", "contractors", "main"]);
    }
    bob.echo("still here").unwrap();
}

#[test]
fn the_end_of_hours_cuts_what_is_open() {
    let mut scene = Scene::new("hours").unwrap();
    let end = wait::whole_second_after(Duration::from_secs(3));
    let of_day = |seconds: i64| {
        let second = seconds.rem_euclid(86_400);
        format!(
            "{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    };
    let end_at = end.as_unix_seconds();
    let (from, to) = (of_day(end_at - 3600), of_day(end_at));
    let hours = format!(
        "hours = {{ time_zone = 'UTC', windows = ['mon,tue,wed,thu,fri,sat,sun {from}-{to}'] }}"
    );
    scene.config.policy().more = keys(&hours);
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let alice = token(&scene, "alice", json!({"sid": "a"}));
    let talk = client
        .websocket("/echo", &alice)
        .unwrap()
        .talk(Pattern::default());
    let cut = talk.end().unwrap().ending;
    assert_eq!(cut.how, End::Reset);
    let ended = daemon.wait_for_end().unwrap();
    assert_eq!(ended["reason"], "hours");
    assert_eq!(ended["deadline"], end.to_string());
    assert_eq!(ended["lateness_us"], 0);
    let bob = token(&scene, "bob", json!({"sid": "b"}));
    for token in [alice, bob] {
        let answer = client.get("/headers", &token).unwrap();
        assert_eq!(
            (answer.status.as_u16(), &*code(&answer)),
            (403, "outside_hours")
        );
    }
}

#[test]
fn a_subject_has_so_many_sessions_and_a_session_so_many_connections() {
    let mut scene = Scene::new("concurrency").unwrap();
    scene.config.policy().more =
        keys("max_connections = 2\nmax_sessions_per_subject = 1\nat_session_limit = 'end_oldest'");
    let refusing = Policy {
        more: keys("max_sessions_per_subject = 1\nmatch = { groups = 'single' }"),
        ..Policy::default()
    };
    scene.config.policies.insert("single".to_owned(), refusing);
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let first = token(&scene, "alice", json!({"sid": "first"}));
    let talk = client
        .websocket("/echo", &first)
        .unwrap()
        .talk(Pattern::default());
    let second_connection = client.connection().unwrap();
    assert_eq!(
        second_connection.get("/headers", &first).unwrap().status,
        200
    );
    let answer = client.get("/headers", &first).unwrap();
    assert_eq!(
        (answer.status.as_u16(), &*code(&answer)),
        (429, "too_many_connections")
    );

    let second = token(&scene, "alice", json!({"sid": "second"}));
    assert_eq!(client.get("/headers", &second).unwrap().status, 200);
    assert_eq!(talk.end().unwrap().ending.how, End::Reset);
    let ended = daemon.wait_for_end().unwrap();
    assert_eq!(ended["reason"], "displaced");
    assert_eq!(client.get("/headers", &first).unwrap().status, 401);

    let single = |sid: &str| token(&scene, "bob", json!({"sid": sid, "groups": "single"}));
    assert_eq!(
        client.get("/headers", &single("first")).unwrap().status,
        200
    );
    let answer = client.get("/headers", &single("second")).unwrap();
    assert_eq!(
        (answer.status.as_u16(), &*code(&answer)),
        (429, "too_many_sessions")
    );
    assert_eq!(
        client.get("/headers", &single("first")).unwrap().status,
        200
    );
}

/// The answer to a request on a connection that a proxy announces for this client.
fn announced(client: &Client, address: &str, token: &str) -> anyhow::Result<String> {
    let connection = client.tcp()?;
    let header = format!("PROXY TCP4 {address} {DAEMON_IPV4} 1000 {PORT}\r\n");
    connection.write(header)?;
    let tls = connection.into_tls()?;
    tls.write(format!(
        "GET /headers HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    ))?;
    Ok(tls.read_to_end()?.0)
}

#[test]
fn a_session_stays_in_its_first_network_over_restarts() {
    let mut scene = Scene::new("binding").unwrap();
    scene.config.policy().more = keys("bind_network = '/24'");
    scene.config.listener().unwrap().address = SocketAddr::new("::".parse().unwrap(), PORT);
    scene.config.listener().unwrap().proxy_protocol = Some(Proxies {
        from: vec![format!("{CLIENT_IPV4}/32")],
    });
    let mut daemon = scene.start().unwrap();
    let client = scene
        .client()
        .unwrap()
        .of(SocketAddr::new(DAEMON_IPV4, PORT));
    let alice = token(&scene, "alice", json!({"sid": "a"}));
    let status = |address: &str| {
        let answer = announced(&client, address, &alice).unwrap();
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let code = if answer.contains("another_network") {
            "another_network"
        } else {
            ""
        };
        (status, code)
    };
    let served = ("200".to_owned(), "");
    let refused = ("403".to_owned(), "another_network");
    assert_eq!(status("192.0.2.1"), served);
    assert_eq!(status("192.0.2.200"), served);
    assert_eq!(status("192.0.3.1"), refused);
    let record = daemon.wait_for_audit("session_refused", |record| {
        record["reason"] == "another_network"
    });
    assert_eq!(record.unwrap()["client"], "192.0.3.1:1000");
    daemon.restart().unwrap();
    assert_eq!(status("192.0.3.1"), refused);
    let by_ipv6 = client.of(SocketAddr::new(DAEMON_IPV6, PORT));
    assert_eq!(by_ipv6.get("/headers", &alice).unwrap().status, 403);
    assert_eq!(status("192.0.2.9"), served);
}

#[test]
fn a_stream_is_let_in_by_its_network() {
    let mut scene = Scene::new("network-tcp").unwrap();
    let upstream = StreamUpstream::start(scene.bed.daemon()).unwrap();
    scene.serve_tcp(upstream.url()).unwrap();
    scene.config.policy().more = keys("require = { networks = ['192.0.2.0/24'] }");
    let daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let client = scene.client_showing(&alice).unwrap();
    assert!(client.flow("echo").is_err());
    let refused = daemon.wait_for_audit("session_refused", |_| true).unwrap();
    assert_eq!(refused["reason"], "network_not_allowed");
}
