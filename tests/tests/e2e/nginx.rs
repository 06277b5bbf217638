//! An upstream that nobody here wrote, with TLS of its own, and curl as the client.

use std::fs;

use enforcer_tests::{
    Scene,
    certificates::SERVER_NAME,
    config::{Route, UpstreamTls},
    nginx::Nginx,
    scene::PORT,
};

const UPSTREAM_PORT: u16 = 9443;

/// A scene whose only upstream is nginx, which wants a client certificate of the authority's.
fn scene(label: &str) -> (Scene, Nginx) {
    let mut scene = Scene::new(label).expect("a scene");
    let (certificate, key) = scene
        .authority
        .client("gateway")
        .and_then(|identity| identity.write(&scene.bed, "gateway"))
        .expect("a client certificate");
    let home = scene.bed.path("");
    let home = home.display();
    let servers = format!(
        "server {{
        listen 127.0.0.1:{UPSTREAM_PORT} ssl http2;
        ssl_certificate {home}/server.pem;
        ssl_certificate_key {home}/server.key;
        ssl_client_certificate {home}/ca.pem;
        ssl_verify_client on;
        location / {{ root {home}/nginx/files; }}
        location /who {{ return 200 $ssl_client_s_dn; }}
        location /version {{ return 200 $server_protocol; }}
    }}"
    );
    let nginx = Nginx::start(&scene.bed, &servers).expect("nginx");
    let upstream = format!("https://127.0.0.1:{UPSTREAM_PORT}");
    scene.config.routes = vec![Route {
        upstream_tls: Some(UpstreamTls {
            certificate: Some(certificate),
            private_key: Some(key),
            ..UpstreamTls::trusting(scene.ca_file())
        }),
        ..Route::to(upstream)
    }];
    (scene, nginx)
}

#[test]
fn curl_downloads_a_file_from_nginx_through_two_tls_connections() {
    let (scene, nginx) = scene("nginx");
    let content = (0..3_000_000_u32)
        .flat_map(u32::to_le_bytes)
        .collect::<Vec<_>>();
    fs::write(nginx.folder().join("files/large"), &content).unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let tools = scene.bed.tools_cgroup().unwrap();
    let authorization = format!("Authorization: Bearer {}", scene.token("alice").unwrap());
    let curl = |arguments: &[&str]| {
        let arguments = [&["-H", &authorization, "--fail"], arguments].concat();
        client.curl(&tools, &scene.ca_file(), &arguments).unwrap()
    };

    let url = |path: &str| format!("https://{SERVER_NAME}:{PORT}{path}");
    let whole = curl(&[&url("/large")]);
    assert!(
        whole.status.success(),
        "{}",
        String::from_utf8_lossy(&whole.stderr)
    );
    assert!(whole.stdout == content, "{} bytes came", whole.stdout.len());
    let range = curl(&["--range", "4000-4007", &url("/large")]);
    assert_eq!(range.stdout, &content[4000..4008]);
    let who = curl(&[&url("/who")]);
    assert_eq!(String::from_utf8_lossy(&who.stdout), "CN=gateway");
    // 22: the server answered 400 or above.
    assert_eq!(curl(&[&url("/missing")]).status.code(), Some(22));
}

/// The same server by the other version, which TLS negotiates.
#[test]
fn nginx_is_spoken_to_in_http2() {
    let (mut scene, nginx) = scene("nginx-h2");
    let content = vec![b'n'; 3_000_000];
    fs::write(nginx.folder().join("files/large"), &content).unwrap();
    let http1 = std::mem::take(&mut scene.config.routes[0].upstream);
    scene.config.routes[0].upstream = http1.replace("https://", "h2://");
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let connection = scene.client().unwrap().connection().unwrap();
    let version = connection.get("/version", &token).unwrap();
    assert_eq!(version.body, "HTTP/2.0");
    assert_eq!(connection.get("/who", &token).unwrap().body, "CN=gateway");
    let large = connection.get("/large", &token).unwrap();
    assert!(large.body == content, "{} bytes came", large.body.len());
    assert_eq!(connection.get("/missing", &token).unwrap().status, 404);
}

#[test]
fn an_upstream_with_a_certificate_for_another_name_is_a_502() {
    let (mut scene, _nginx) = scene("another-name");
    let tls = scene.config.routes[0].upstream_tls.as_mut().unwrap();
    tls.server_name = "elsewhere.test".to_owned();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let answer = scene.client().unwrap().get("/who", &token).unwrap();
    assert_eq!(answer.status, 502);
}
