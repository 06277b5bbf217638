//! The PROXY protocol, with HAProxy in front of the daemon and nginx behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use enforcer_tests::{
    Scene,
    bed::{CLIENT_IPV4, DAEMON_IPV4},
    client::{Client, Raw},
    config::{Proxies, Route, UpstreamTls},
    haproxy::HaProxy,
    nginx::Nginx,
    postgres::{self, Postgres, Proof},
    upstream::stream::StreamUpstream,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

const UPSTREAM_PORT: u16 = 9080;
const TLS_UPSTREAM_PORT: u16 = 9443;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where HAProxy stands in front of PostgreSQL.
const DATABASE_PROXY: SocketAddr = SocketAddr::new(LOOPBACK, 7432);

/// A scene that takes the daemon's own host for a proxy, which is where HAProxy runs.
fn scene(label: &str) -> Scene {
    let mut scene = Scene::new(label).unwrap();
    scene.config.listener().unwrap().proxy_protocol = Some(Proxies {
        from: vec![format!("{DAEMON_IPV4}/32")],
    });
    scene
}

/// nginx, which says what it was announced: on one port in the clear, on the other within TLS.
fn nginx(scene: &Scene) -> Nginx {
    let server = |listen: String| {
        format!(
            "server {{
        listen {listen} proxy_protocol;
        location / {{
            return 200 \"$proxy_protocol_addr:$proxy_protocol_port $http_x_forwarded_for\";
        }}
    }}"
        )
    };
    let clear = server(format!("127.0.0.1:{UPSTREAM_PORT}"));
    let encrypted = server(format!("127.0.0.1:{TLS_UPSTREAM_PORT} ssl"));
    let certificate = format!(
        "ssl_certificate {};\nssl_certificate_key {};",
        scene.bed.path("server.pem").display(),
        scene.bed.path("server.key").display()
    );
    let servers = [certificate, clear, encrypted].join("\n");
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
    scene.config.routes = vec![Route {
        upstream_pool: Some("session".to_owned()),
        proxy_protocol: Some(version.to_owned()),
        ..Route::to(format!("http://127.0.0.1:{UPSTREAM_PORT}"))
    }];
    let _nginx = nginx(&scene);
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

/// What nginx says to whoever asks it through `stream`.
fn announced<S>(stream: &Raw<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    stream.write("GET / HTTP/1.0\r\n\r\n").unwrap();
    let (answer, _) = stream.read_to_end().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    body.trim().to_owned()
}

#[test]
fn upstreams_of_tunnels_hear_who_the_client_is() {
    for (label, version) in [("proxy-tunnel-v1", "v1"), ("proxy-tunnel-v2", "v2")] {
        let mut scene = Scene::new(label).unwrap();
        let target = format!("127.0.0.1:{UPSTREAM_PORT}");
        scene.config.routes = vec![Route {
            proxy_protocol: Some(version.to_owned()),
            ..Route::tunnel(&[&target])
        }];
        let _nginx = nginx(&scene);
        let _daemon = scene.start().unwrap();
        let token = scene.token("alice").unwrap();
        let stream = scene.client().unwrap().tls().unwrap();
        stream
            .write(format!(
                "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
                 Proxy-Authorization: Bearer {token}\r\n\r\n"
            ))
            .unwrap();
        let opened = stream.read_until("\r\n\r\n").unwrap();
        assert!(opened.starts_with("HTTP/1.1 200 "), "{opened}");
        assert_eq!(announced(&stream), stream.local().to_string());
    }
}

/// With `tls://` the announcement stands before the handshake.
#[test]
fn upstreams_of_tcp_listeners_hear_who_the_client_is() {
    for (label, version, encrypted) in [
        ("proxy-out-v1", "v1", false),
        ("proxy-out-v2", "v2", false),
        ("proxy-out-tls", "v2", true),
    ] {
        let mut scene = Scene::new(label).unwrap();
        let ca = scene.ca_file();
        scene
            .serve_tcp(format!("tcp://127.0.0.1:{UPSTREAM_PORT}"))
            .unwrap();
        let route = &mut scene.config.routes[0];
        route.proxy_protocol = Some(version.to_owned());
        if encrypted {
            route.upstream = format!("tls://127.0.0.1:{TLS_UPSTREAM_PORT}");
            route.upstream_tls = Some(UpstreamTls::trusting(ca));
        }
        let _nginx = nginx(&scene);
        let _daemon = scene.start().unwrap();
        let alice = scene.authority.client("alice").unwrap();
        let stream = scene.client_showing(&alice).unwrap().tls().unwrap();
        assert_eq!(announced(&stream), stream.local().to_string());
    }
}

/// What follows the announcement is the server's alone: the request for TLS, or the start-up.
#[test]
fn a_database_hears_who_the_client_behind_haproxy_is_before_anything_else() {
    for (label, option, version, encrypted) in [
        ("proxy-pg", "send-proxy", "v2", false),
        ("proxy-pg-tls", "send-proxy-v2", "v1", true),
    ] {
        let mut scene = scene(label);
        let login = scene.login("user", "app").unwrap();
        let _server = scene.serve_postgres("token", Some(login)).unwrap();
        let mut kind = "postgres";
        if encrypted {
            scene.encrypt_upstream();
            kind = "postgres+tls";
        }
        let route = &mut scene.config.routes[0];
        route.upstream = format!("{kind}://{DATABASE_PROXY}");
        route.proxy_protocol = Some(version.to_owned());
        let database = SocketAddr::new(LOOPBACK, postgres::PORT);
        let back = HaProxy::behind_daemon(&scene.bed, DATABASE_PROXY, database).unwrap();
        let _front = HaProxy::start(&scene.bed, option).unwrap();
        let daemon = scene.start().unwrap();
        let token = scene.token("alice").unwrap();
        let mut pg = scene.pg("whoever", &Proof::Password(&token)).unwrap();
        pg.set("PGPORT", HaProxy::address().port());

        let mut psql = pg.interactive().unwrap();
        psql.write(
            "select 'in as ' || current_user, ssl from pg_stat_ssl where pid = pg_backend_pid();",
        )
        .unwrap();
        let row = format!("in as app|{}", if encrypted { "t" } else { "f" });
        psql.wait_for(&row).unwrap();
        let client = |record: &Value| {
            let client = record["proxied_client"].as_str()?;
            client.parse::<SocketAddr>().ok()
        };
        let opened = daemon.wait_for_audit("connection_opened", |it| it["role"] == "client");
        let opened = opened.unwrap();
        assert_eq!(ip(&opened, "client"), DAEMON_IPV4.to_string());
        let announced = client(&opened).unwrap();
        assert_eq!(announced.ip(), CLIENT_IPV4);
        back.wait_for(announced).unwrap();

        // A cancel request goes the same way, on connections of its own.
        psql.write("select pg_sleep(30);").unwrap();
        Postgres::wait_for(&scene.bed, "select pg_sleep(30);").unwrap();
        psql.interrupt().unwrap();
        psql.wait_for("canceling statement due to user request")
            .unwrap();
        let cancelling = daemon.wait_for_audit("connection_opened", |it| {
            it["role"] == "client" && it["cookie"] != opened["cookie"]
        });
        back.wait_for(client(&cancelling.unwrap()).unwrap())
            .unwrap();
    }
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
