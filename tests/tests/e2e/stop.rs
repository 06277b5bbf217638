//! The cut doesn't need the processes that serve: they are stopped before the deadline.

use std::time::Duration;

use enforcer::clock::Now;
use enforcer_tests::{Scene, Streams, client::End, process, wait};

const BEFORE: Duration = Duration::from_secs(1);

#[test]
fn the_reset_is_on_time_while_the_gateway_is_stopped() {
    let scene = Scene::new("gateway-stopped").unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();

    let streams = Streams::start(&scene.client().unwrap(), &token).unwrap();
    wait::until_wall(deadline.saturating_sub(BEFORE));
    assert!(streams.are_running());
    let gateway = daemon.gateway_pid().unwrap();
    process::stop(gateway).unwrap();
    let ended = streams.end().unwrap();

    assert_eq!(
        process::status_field(gateway, "State").unwrap(),
        "T (stopped)"
    );
    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
}

#[test]
fn nothing_passes_while_gateway_and_warden_are_stopped_and_the_reset_follows() {
    let scene = Scene::new("both-stopped").unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let client = scene.client().unwrap();
    // Whoever doesn't read leaves data in the daemon's kernel that only waits for room.
    let hoarder = client.tls().unwrap();
    hoarder.write(head("GET /download", &token, "")).unwrap();
    hoarder.read_until("\r\n\r\n").unwrap();

    let streams = Streams::start(&client, &token).unwrap();
    wait::until_wall(deadline.saturating_sub(BEFORE));
    let gateway = daemon.gateway_pid().unwrap();
    process::stop(gateway).unwrap();
    process::stop(daemon.pid()).unwrap();
    wait::until_wall(deadline.saturating_add(BEFORE));
    assert!(streams.are_running(), "nobody is there to reset them");

    let local = hoarder.local();
    let hoarder = std::thread::spawn(move || hoarder.read_to_end());
    wait::until_wall(deadline.saturating_add(2 * BEFORE));
    process::resume(gateway).unwrap();
    process::resume(daemon.pid()).unwrap();
    let ended = streams.end().unwrap();
    let (_, hoarder_end) = hoarder.join().unwrap().unwrap();

    assert_eq!(hoarder_end.how, End::Reset);
    let wire = capture.finish().unwrap();
    ended.check_eventual_cut(&wire, deadline).unwrap();
    wire.conversation(local).check_cut(deadline).unwrap();
}

#[test]
fn what_was_queued_while_both_were_stopped_is_never_forwarded() {
    let scene = Scene::new("queued").unwrap();
    let daemon = scene.start().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let client = scene.client().unwrap();
    let upload = client.tls().unwrap();
    upload
        .write(head("POST /upload", &token, "Content-Length: 1000000\r\n"))
        .unwrap();
    upload.write([b'u'; 1000]).unwrap();
    let socket = client.websocket("/echo", &token).unwrap();
    socket.echo("before").unwrap();
    let upstream = &scene.upstream;
    upstream
        .wait_for_upload("the upload began", |upload| upload.bytes == 1000)
        .unwrap();

    wait::until_wall(deadline.saturating_sub(BEFORE));
    let gateway = daemon.gateway_pid().unwrap();
    process::stop(gateway).unwrap();
    process::stop(daemon.pid()).unwrap();
    upload.write([b'q'; 1000]).unwrap();
    socket.send("queued").unwrap();
    let past = deadline.saturating_add(BEFORE / 2);
    wait::until_wall(past);
    // The gateway first: it has a moment in which only the deadline itself holds it back.
    process::resume(gateway).unwrap();
    wait::until_wall(past.saturating_add(BEFORE / 2));
    process::resume(daemon.pid()).unwrap();

    assert_eq!(socket.end().unwrap().how, End::Reset);
    let ended = upstream.wait_for_upload("the upload ended", |upload| upload.complete.is_some());
    assert_eq!(ended.unwrap().bytes, 1000);
    let deadline = Now::read().boot_at(deadline);
    for connection in upstream.log().connections() {
        assert_eq!(connection.bytes_after(deadline), 0, "{connection:?}");
    }
    assert_eq!(upstream.log().uploads()[0].complete, Some(false));
}

fn head(request: &str, token: &str, headers: &str) -> String {
    format!(
        "{request} HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
    )
}
