//! Serving, as clients, upstreams and load balancers may rely on it.

use std::fs;

use enforcer_tests::{Scene, certificates::SERVER_NAME, client::Connection, scene::PORT, wait};

#[test]
fn clients_of_both_versions_of_tls_are_served() {
    let scene = Scene::new("tls-versions").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let bearer = format!("Authorization: Bearer {}", scene.token("alice").unwrap());
    let url = format!("https://{SERVER_NAME}:{PORT}/headers");
    let tools = scene.bed.tools_cgroup().unwrap();
    for (version, restriction) in [
        ("TLSv1.2", ["--tlsv1.2", "--tls-max", "1.2"]),
        ("TLSv1.3", ["--tlsv1.3", "--tls-max", "1.3"]),
    ] {
        let request = ["--verbose", "--fail", "--header", &bearer, &url];
        let arguments = [&restriction[..], &request].concat();
        let output = client.curl(&tools, &scene.ca_file(), &arguments).unwrap();
        let story = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{version}: {story}");
        let spoken = format!("SSL connection using {version} ");
        assert!(story.contains(&spoken), "{story}");
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.contains("x-enforcer-subject"), "{answer}");
    }
}

#[test]
fn the_token_reaches_an_upstream_only_where_the_route_says_so() {
    let scene = Scene::new("forward-token").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let field = format!(r#"["authorization","Bearer {token}"]"#);
    let shown = || client.get("/headers", &token).unwrap().json().unwrap();

    let kept = shown().to_string();
    assert!(!kept.contains("authorization"), "{kept}");
    let mut forwarding = scene.config.clone();
    let route = &mut forwarding.routes[0];
    route.more.insert("forward_token".to_owned(), true.into());
    let reloaded = daemon.reload(&forwarding.text().unwrap(), &[]).unwrap();
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    wait::until("the token was passed on", || {
        shown().to_string().contains(&field).then_some(())
    })
    .unwrap();
}

/// Whoever spreads the load has a reason to go elsewhere, and none to replace the gateway.
#[test]
fn a_gateway_without_a_warden_is_live_but_not_ready() {
    let scene = Scene::new("health").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let ask = |connection: &Connection, what: &str| {
        let path = format!("/.well-known/enforcer/health/{what}");
        let answer = connection.get(&path, "").unwrap();
        let status = answer.json().unwrap()["status"].as_str().map(str::to_owned);
        (answer.status.as_u16(), status.unwrap())
    };
    let said = |status: u16, word: &str| (status, word.to_owned());
    let connect = || client.connection().unwrap();
    assert_eq!(ask(&connect(), "live"), said(200, "live"));
    assert_eq!(ask(&connect(), "ready"), said(200, "ready"));

    // New connections wait for the next warden: these are asked on.
    let [first, second] = [connect(), connect()];
    daemon.kill_warden().unwrap();
    wait::until("the gateway had noticed", || {
        let log = fs::read_to_string(scene.bed.path("daemon.log")).ok()?;
        log.contains("the warden is gone").then_some(())
    })
    .unwrap();
    assert_eq!(ask(&first, "ready"), said(503, "not ready"));
    assert_eq!(ask(&second, "live"), said(200, "live"));

    daemon.start_again().unwrap();
    assert_eq!(ask(&connect(), "ready"), said(200, "ready"));
}
