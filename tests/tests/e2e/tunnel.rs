//! Tunnels: CONNECT from clients of other makes, and the cut of what flows in them.

use std::{net::SocketAddr, process::Command, time::Duration};

use enforcer::clock::{self, Now};
use enforcer_tests::{
    Scene,
    bed::DAEMON_IPV4,
    certificates::SERVER_NAME,
    client::{End, Flow},
    config::Route,
    issuer::Claims,
    node_tunnel,
    process::Process,
    streams::instant,
    upstream::stream::StreamUpstream,
    wait,
    wire::difference,
};
use jiff::SignedDuration;

/// What is sent every 10 ms has been sent this recently, however busy the machine is.
const LONGEST_GAP: SignedDuration = SignedDuration::from_millis(300);

fn scene(label: &str) -> Scene {
    let mut scene = Scene::new(label).expect("a scene");
    scene.config.routes = vec![Route::tunnel(&["127.0.0.1:*", "no-such-host.invalid:80"])];
    scene
}

fn head(target: SocketAddr, token: &str) -> String {
    format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
    )
}

/// curl in the client's namespace, by way of a proxy.
fn curl(scene: &Scene, proxy: &str, token: &str, url: &str) -> Command {
    let client = scene.client().expect("a client");
    let resolve = format!("{SERVER_NAME}:{}:{}", client.server().port(), DAEMON_IPV4);
    let mut command = scene
        .bed
        .command(scene.bed.client(), "curl")
        .expect("a command");
    command
        .args(["--silent", "--show-error", "--proxytunnel", "--resolve"])
        .args([&resolve, "--proxy", proxy, "--proxy-cacert"])
        .arg(scene.ca_file())
        .arg("--proxy-header")
        .arg(format!("Proxy-Authorization: Bearer {token}"))
        .args(["--output", "/dev/null", "--write-out"])
        .args(["%{http_connect} %{http_code} %{size_download}", url]);
    command
}

/// What curl printed, and what it complained of.
fn run(mut command: Command) -> (String, String) {
    let output = command.output().expect("curl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn curl_reaches_what_is_allowed_and_nothing_else() {
    let scene = scene("tunnel-curl");
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let proxy = format!("https://{SERVER_NAME}:8443");
    let url = format!("{}/download?length=20000000", scene.upstream.url());
    let (said, complaint) = run(curl(&scene, &proxy, &token, &url));
    assert_eq!(said, "200 200 20000000", "{complaint}");
    let target = scene.upstream.address().to_string();
    let opened = daemon.wait_for_audit("connection_opened", |record| record["target"] == target);
    assert_eq!(opened.unwrap()["role"], "upstream");

    for (url, token, status, reason) in [
        ("http://192.0.2.1/", &*token, "403", "target_not_allowed"),
        (
            "http://no-such-host.invalid/",
            &token,
            "502",
            "target_unresolved",
        ),
        ("http://127.0.0.1:1/", &token, "502", "target_unreachable"),
        (
            &scene.upstream.url(),
            "no.such.token",
            "401",
            "token_malformed",
        ),
    ] {
        let (said, complaint) = run(curl(&scene, &proxy, token, url));
        assert!(said.starts_with(status), "{url}: {said} {complaint}");
        let refused = daemon.wait_for_audit("session_refused", |it| it["reason"] == reason);
        let detail = refused.unwrap()["detail"].to_string();
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        assert!(
            reason == "token_malformed" || detail.contains(host),
            "{detail}"
        );
    }
}

#[test]
fn an_http2_proxy_in_front_tunnels_many_on_one_connection() {
    let scene = scene("tunnel-h2");
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let mut nghttpx = scene.bed.command(scene.bed.client(), "nghttpx").unwrap();
    nghttpx
        .args(["--conf=/dev/null", "--http2-proxy", "--workers=1"])
        .args([
            "--frontend=127.0.0.1,3128;no-tls",
            "--errorlog-file=/dev/stdout",
        ])
        .arg(format!(
            "--backend={DAEMON_IPV4},8443;;tls;proto=h2;sni={SERVER_NAME}"
        ))
        .arg(format!("--cacert={}", scene.ca_file().display()));
    let _nghttpx = Process::spawn(&mut nghttpx, "nghttpx").unwrap();
    let url = format!("{}/download?length=5000000", scene.upstream.url());
    let proxy = "http://127.0.0.1:3128";
    wait::until("nghttpx served", || {
        let (said, _) = run(curl(&scene, proxy, &token, &url));
        (said == "200 200 5000000").then_some(())
    })
    .unwrap();
    let curls: Vec<_> = (0..4)
        .map(|_| curl(&scene, proxy, &token, &url).spawn().unwrap())
        .collect();
    for curl in curls {
        let said = curl.wait_with_output().unwrap();
        assert!(said.status.success());
    }
    let records = daemon.audit().unwrap();
    let clients = records
        .iter()
        .filter(|it| it["event"] == "connection_opened" && it["role"] == "client");
    assert_eq!(clients.count(), 1);
}

#[test]
fn an_http2_client_is_told_goaway_before_its_tunnels_are_cut() {
    let farewell = Duration::from_secs(1);
    let mut scene = scene("tunnel-goaway");
    scene.config.policy().farewell = Some("1s".to_owned());
    let upstream = StreamUpstream::start(scene.bed.daemon()).unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let target = upstream.address().to_string();

    let events = node_tunnel::talk(&scene, &token, &target, 2).unwrap();
    let all = |what| events.iter().filter(move |event| event.what == what);
    let first = |what| {
        let event = all(what).next();
        event.unwrap_or_else(|| panic!("no {what}: {events:#?}"))
    };
    assert_eq!(all("response").count(), 2);
    assert!(all("response").all(|answer| answer.status == Some(200)));
    let goaway = first("goaway");
    assert!(goaway.at >= deadline.saturating_sub(farewell) && goaway.at < deadline);
    assert!(all("goaway").all(|it| it.code == 0), "{events:#?}");
    // What was open goes on until it is cut.
    assert_eq!(first("socket").code, "ECONNRESET", "{events:#?}");
    let closed = first("closed");
    assert!(closed.received > goaway.received, "{events:#?}");
    assert!(closed.at >= deadline, "{events:#?}");

    assert_eq!(daemon.wait_for_end().unwrap()["sockets_reset"], 3);
    let opened = daemon.wait_for_audit("connection_opened", |it| it["role"] == "client");
    let local = opened.unwrap()["client"].as_str().unwrap().parse().unwrap();
    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(deadline).unwrap();
}

#[test]
fn the_deadline_cuts_a_tunnel_on_both_sides() {
    let scene = scene("tunnel-cut");
    let upstream = StreamUpstream::start(scene.bed.daemon()).unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();

    let flow = flow(&scene, &upstream, &token, "echo");
    let local = flow.local();
    let ending = flow.end().unwrap();

    assert_eq!(ending.how, End::Reset);
    assert!(Now::read().wall_at(ending.at) >= deadline);
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token");
    assert_eq!(record["sockets_reset"], 2);
    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(deadline).unwrap();
    let last = conversation.last_payload_before(deadline).unwrap();
    assert!(difference(deadline, last) < LONGEST_GAP);
    let connections = upstream
        .log()
        .wait_for_connections("the upstream's connection ended", |all| {
            all.first().is_some_and(|one| one.ended.is_some())
        })
        .unwrap();
    let (_, how) = connections[0].ended.unwrap();
    assert_eq!(how, Err(std::io::ErrorKind::ConnectionReset));
}

fn flow(scene: &Scene, upstream: &StreamUpstream, token: &str, command: &str) -> Flow {
    let client = scene.client().expect("a client");
    let head = head(upstream.address(), token);
    let flow = client.flow(&format!("{head}{command}")).expect("a tunnel");
    // Not only the answer's head.
    flow.wait_for_data().expect("data");
    flow
}

#[test]
fn a_renewed_session_keeps_a_tunnel_open_but_not_past_the_longest() {
    let mut scene = scene("tunnel-renew");
    scene.config.policy().max_session = "5s".to_owned();
    scene.config.policy().warn_before = Some("4s".to_owned());
    let upstream = StreamUpstream::start(scene.bed.daemon()).unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = |expires_at| {
        let claims = Claims::new("alice", expires_at).with("sid", "login of alice");
        scene.issuer.sign(&claims).unwrap()
    };
    let connect = |token: &str| {
        let tunnel = client.tls().unwrap();
        tunnel.write(head(upstream.address(), token)).unwrap();
        let answer = tunnel.read_until("\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("session-expires-in: "), "{answer}");
        (tunnel, answer.contains("session-warning: expiring\r\n"))
    };
    let first_expiry = wait::whole_second_after(Duration::from_secs(1));
    let (tunnel, warned) = connect(&token(first_expiry));
    assert!(warned);
    let begun = clock::boot_now();
    tunnel.write("echo\nbefore\n").unwrap();
    tunnel.read_until("before\n").unwrap();

    let newer = token(first_expiry.saturating_add(Duration::from_secs(3600)));
    let renewing = client.connection().unwrap();
    let renewed = renewing.post("/.well-known/enforcer/session/renew", &newer, "");
    assert_eq!(renewed.unwrap().status, 200);
    assert!(clock::wall_now() < first_expiry, "too slow");

    wait::until_wall(first_expiry.saturating_add(Duration::from_millis(500)));
    tunnel.write("after\n").unwrap();
    tunnel.read_until("after\n").unwrap();
    let (_, ending) = tunnel.read_to_end().unwrap();
    assert_eq!(ending.how, End::Reset);
    let lived = ending.at.saturating_duration_since(begun);
    let most = Duration::from_secs(5);
    assert!(lived > most * 4 / 5 && lived < most * 6 / 5, "{lived:?}");
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "deadline");
}

#[test]
fn what_the_target_says_is_no_activity() {
    let idle_timeout = Duration::from_secs(2);
    let mut scene = scene("tunnel-idle");
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    let upstream = StreamUpstream::start(scene.bed.daemon()).unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let token = scene.token("alice").unwrap();

    let flow = flow(&scene, &upstream, &token, "ticks");
    let local = flow.local();
    // What it says keeps it alive for longer than the timeout.
    wait::until_instant(clock::boot_now().saturating_add(idle_timeout + idle_timeout / 4));
    flow.wait_for_data().unwrap();
    flow.be_silent();
    assert_eq!(flow.end().unwrap().how, End::Reset);

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "idle");
    let limit = instant(&record, "deadline").unwrap();
    let conversation = capture.finish().unwrap().conversation(local);
    conversation.check_cut(limit).unwrap();
    let said = conversation.from_client().filter(|it| it.payload > 0);
    let last = said.map(|segment| segment.at).max().unwrap();
    let idle = limit.saturating_duration_since(last);
    assert!(
        idle >= idle_timeout && idle < idle_timeout * 5 / 4,
        "idle for {idle:?}"
    );
}
