//! HTTP/2, as clients of other makes speak it.

use std::{net::SocketAddr, time::Duration};

use enforcer_tests::{
    Scene,
    bed::CLIENT_IPV4,
    client::http2::{Code, Frame, Peer, block, flag, kind},
    wait,
};

/// Runs curl with HTTP/2; the answer's body goes where `arguments` say.
fn curl(scene: &Scene, token: &str, path: &str, arguments: &[&str]) -> (String, String) {
    let client = scene.client().expect("a client");
    let url = format!("https://enforcer.test:{}{path}", client.server().port());
    let bearer = format!("Authorization: Bearer {token}");
    let all = [&["--http2", "--header", &bearer, &url], arguments].concat();
    let cgroup = scene.bed.tools_cgroup().expect("a cgroup");
    let output = client.curl(&cgroup, &scene.ca_file(), &all).expect("curl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn curl_downloads_and_uploads() {
    let scene = Scene::new("h2-curl").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let written = "%{http_version} %{http_code} %{size_download}";
    let download = ["--output", "/dev/null", "--write-out", written];
    let (said, _) = curl(&scene, &token, "/download?length=50000000", &download);
    assert_eq!(said, "2 200 50000000");
    let file = scene.bed.write("upload", vec![b'u'; 5_000_000]).unwrap();
    let upload = format!("@{}", file.display());
    let (said, _) = curl(&scene, &token, "/upload", &["--data-binary", &upload]);
    assert_eq!(said, "5000000");
    let (said, _) = curl(&scene, "no.such.token", "/headers", &["--include"]);
    assert!(said.starts_with("HTTP/2 401"), "{said}");
    assert!(said.contains("www-authenticate: Bearer "), "{said}");
}

/// In either version.
#[test]
fn curl_sees_that_its_session_is_about_to_end() {
    let scene = Scene::new("h2-warning").unwrap();
    let _daemon = scene.start().unwrap();
    let soon = wait::whole_second_after(Duration::from_secs(20));
    let expiring = scene.token_until("alice", soon).unwrap();
    for (version, answer) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let head = |token: &str| {
            let arguments = [version, "--head"];
            let (said, _) = curl(&scene, token, "/headers", &arguments);
            let said = said.to_ascii_lowercase();
            assert!(said.starts_with(&answer.to_ascii_lowercase()), "{said}");
            assert!(said.contains("\r\nsession-expires-in: "), "{said}");
            said
        };
        let warned = head(&expiring);
        assert!(
            warned.contains("\r\nsession-warning: expiring\r\n"),
            "{warned}"
        );
        let calm = head(&scene.token("bob").unwrap());
        assert!(!calm.contains("session-warning"), "{calm}");
    }
}

#[test]
fn h2load_is_served() {
    let scene = Scene::new("h2-load").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let server = scene.client().unwrap().server();
    let mut command = scene.bed.command(scene.bed.client(), "h2load").unwrap();
    command
        .args(["-n", "4000", "-c", "4", "-m", "32", "-H"])
        .arg(format!("authorization: Bearer {token}"))
        .arg(format!("https://{server}/headers"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Application protocol: h2"), "{said}");
    assert!(said.contains("status codes: 4000 2xx"), "{said}");
}

#[test]
fn the_deadline_cuts_a_download() {
    let scene = Scene::new("h2-cut").unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();
    let download = ["--output", "/dev/null", "--write-out", "%{local_port}"];
    let (port, error) = curl(&scene, &token, "/download?rate=1000000", &download);
    assert!(error.contains("reset"), "{error}");
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "token");
    let local = SocketAddr::new(CLIENT_IPV4, port.parse().unwrap());
    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(deadline).unwrap();
    let last = conversation.last_payload_before(deadline).unwrap();
    assert!(deadline.saturating_duration_since(last) < Duration::from_millis(300));
}

/// RFC 9113, section 6.8: what is under way is ended first, then the connection.
#[test]
fn calls_are_ended_before_the_connection() {
    const CALLS: u32 = 20;
    let mut scene = Scene::new("h2-goodbye").unwrap();
    scene.config.policy().farewell = Some("500ms".to_owned());
    let _daemon = scene.start().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();
    let token = format!("Bearer {token}");
    let mut peer = Peer::new(&scene.client().unwrap(), &token).unwrap();
    let call = |number: u32| {
        // Every other one has no answer yet.
        let path = ["/download?rate=1000", "/slow"][number as usize % 2];
        let mut fields = peer.request("POST", path);
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        Frame::only_headers(2 * number + 1, block(&fields))
    };
    peer.send(&(0..CALLS).map(call).collect::<Vec<_>>())
        .unwrap();
    let farewell = peer.wait_for("the farewell", |frame| frame.kind == kind::GOAWAY);
    assert_eq!(farewell.unwrap().number(4), Some(Code::NoError as u32));
    for stream in (0..CALLS).map(|number| 2 * number + 1) {
        let end = peer.take_waiting(|frame| frame.stream == stream && frame.has(flag::END_STREAM));
        assert!(end.is_some(), "stream {stream} was open at GOAWAY");
        let fields = peer.take_fields(stream).unwrap();
        assert!(
            fields.contains(&("grpc-status".to_owned(), "16".to_owned())),
            "{fields:?}"
        );
    }
}
