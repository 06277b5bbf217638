//! The PROXY protocol, with HAProxy in front of the daemon and nginx behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use enforcer_tests::{
    Scene,
    bed::{CLIENT_IPV4, DAEMON_IPV4},
    client::Client,
    config::{Proxies, Route},
    haproxy::HaProxy,
    nginx::Nginx,
    upstream::stream::StreamUpstream,
};
use serde_json::Value;

const UPSTREAM_PORT: u16 = 9080;

/// A scene that takes the daemon's own host for a proxy, which is where HAProxy runs.
fn scene(label: &str) -> Scene {
    let mut scene = Scene::new(label).unwrap();
    scene.config.listener().unwrap().proxy_protocol = Some(Proxies {
        from: vec![format!("{DAEMON_IPV4}/32")],
    });
    scene
}

/// nginx, which says what it was announced, as the scene's upstream.
fn announced_to_nginx(scene: &mut Scene, version: &str) -> Nginx {
    let servers = format!(
        "server {{
        listen 127.0.0.1:{UPSTREAM_PORT} proxy_protocol;
        location / {{
            return 200 \"$proxy_protocol_addr:$proxy_protocol_port $http_x_forwarded_for\";
        }}
    }}"
    );
    scene.config.routes = vec![Route {
        upstream_pool: Some("session".to_owned()),
        proxy_protocol: Some(version.to_owned()),
        ..Route::to(format!("http://127.0.0.1:{UPSTREAM_PORT}"))
    }];
    Nginx::start(&scene.bed, &servers).unwrap()
}

fn through_haproxy(scene: &Scene) -> Client {
    scene.client().unwrap().of(HaProxy::address())
}

fn ip(record: &Value, field: &str) -> String {
    let address = record[field].as_str().unwrap_or_default();
    address.rsplit_once(':').map_or("", |(ip, _)| ip).to_owned()
}

/// From HAProxy in one version to nginx in another.
fn check(label: &str, option: &str, version: &str) {
    let mut scene = scene(label);
    let _nginx = announced_to_nginx(&mut scene, version);
    let _haproxy = HaProxy::start(&scene.bed, option).unwrap();
    let daemon = scene.start().unwrap();
    let client = through_haproxy(&scene);

    let connection = client.connection().unwrap();
    let local = connection.local();
    let answer = connection.get("/", &scene.token("alice").unwrap()).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, format!("{local} {CLIENT_IPV4}"));
    let opened = daemon.wait_for_audit("connection_opened", |record| record["role"] == "client");
    let opened = opened.unwrap();
    assert_eq!(opened["proxied_client"], local.to_string());
    assert_eq!(ip(&opened, "client"), DAEMON_IPV4.to_string());
    drop(connection);
    let closed = daemon.wait_for_audit("connection_closed", |record| {
        record["cookie"] == opened["cookie"]
    });
    assert_eq!(closed.unwrap()["proxied_client"], local.to_string());

    assert_eq!(client.get("/", "no token").unwrap().status, 401);
    let refused = daemon.wait_for_audit("session_refused", |_| true).unwrap();
    assert_eq!(ip(&refused, "client"), CLIENT_IPV4.to_string());
}

#[test]
fn haproxy_announces_in_version_1_and_nginx_hears_in_version_2() {
    check("proxy-v1", "send-proxy", "v2");
}

#[test]
fn haproxy_announces_in_version_2_and_nginx_hears_in_version_1() {
    check("proxy-v2", "send-proxy-v2", "v1");
}

#[test]
fn a_stream_behind_haproxy_is_the_clients() {
    let mut scene = scene("proxy-tcp");
    let upstream = StreamUpstream::start(scene.bed.daemon()).unwrap();
    scene.serve_tcp(upstream.url()).unwrap();
    scene.config.policy().max_session = "2s".to_owned();
    let _haproxy = HaProxy::start(&scene.bed, "send-proxy-v2").unwrap();
    let daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let client = scene.client_showing(&alice).unwrap();

    let flow = client.of(HaProxy::address()).flow("echo").unwrap();
    let opened = daemon.wait_for_audit("connection_opened", |record| record["role"] == "client");
    let opened = opened.unwrap();
    assert_eq!(opened["proxied_client"], flow.local().to_string());
    flow.end().unwrap();
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "deadline");
}

#[test]
fn a_proxy_must_announce_and_nobody_else_may() {
    let scene = scene("proxy-trust");
    let _haproxy = HaProxy::start(&scene.bed, "").unwrap();
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();

    assert!(through_haproxy(&scene).get("/headers", &token).is_err());
    let silent = daemon.wait_for_audit("session_refused", |record| {
        record["reason"] == "invalid_proxy_header"
    });
    assert_eq!(ip(&silent.unwrap(), "client"), DAEMON_IPV4.to_string());

    let direct = scene.client().unwrap();
    assert_eq!(direct.get("/headers", &token).unwrap().status, 200);
    let forger = direct.tcp().unwrap();
    forger
        .write("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        .unwrap();
    let (answer, _) = forger.read_to_end().unwrap();
    assert!(!answer.contains(" 200 "), "{answer}");
    let forged = daemon.wait_for_audit("session_refused", |record| {
        ip(record, "client") == CLIENT_IPV4.to_string()
    });
    forged.unwrap();
    assert_eq!(scene.upstream.log().requests().len(), 1);
}
