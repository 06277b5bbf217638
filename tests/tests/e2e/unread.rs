//! Who never reads: what is meant for them waits where it comes from, and the gateway holds no more
//! of it than its buffers. Requests are in `http2_floods`, PostgreSQL is in `postgres`.

use std::thread;

use enforcer_tests::{
    Scene,
    client::{
        Client,
        http2::{Frame, Peer, block, kind, setting},
    },
    config::Route,
    daemon::Daemon,
    namespace::Task,
};
use tokio::net::TcpListener;

/// What never ends, and what a client reads meanwhile.
const ENDLESS: &str = "GET /download HTTP/1.1\r\nHost: a\r\n\r\n";
const LENGTH: usize = 50_000_000;
const CLIENTS: usize = 20;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// In KiB: what the allocator keeps, and what passes for the client that reads.
const MOST_GROWTH: u64 = 16 * 1024;
/// In KiB: the buffers of a stream, TLS included.
const MOST_HELD: u64 = 256;

fn check_held(daemon: &Daemon<'_>, before: u64, streams: usize) {
    let growth = daemon
        .gateway_memory()
        .expect("a figure")
        .saturating_sub(before);
    let most = MOST_GROWTH + streams as u64 * MOST_HELD;
    assert!(growth < most, "{growth} KiB more for {streams} streams");
}

/// A download to its end: by then whatever would fill up has done so. `first` is said before it.
fn read_meanwhile(client: &Client, first: &str) {
    let reader = client.tls().expect("a connection");
    let request =
        format!("GET /download?length={LENGTH} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    reader.write(format!("{first}{request}")).expect("written");
    let (said, _) = reader.read_to_end().expect("an end");
    assert!(said.len() > LENGTH, "only {} bytes", said.len());
}

#[test]
fn messages_for_websockets_that_are_not_read_wait_in_the_upstream() {
    let scene = Scene::new("unread-ws").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let before = daemon.gateway_memory().unwrap();
    let unread = (0..CLIENTS).map(|_| client.websocket("/flood", &token).unwrap());
    let unread = unread.collect::<Vec<_>>();
    let path = format!("/download?length={LENGTH}");
    for _ in 0..2 {
        let answer = client.get(&path, &token).unwrap();
        assert_eq!(answer.body.len(), LENGTH);
        check_held(&daemon, before, CLIENTS);
    }
    for socket in unread {
        assert_eq!(socket.receive().unwrap().len(), 64 * 1024);
    }
}

#[test]
fn bytes_for_tunnels_that_are_not_read_wait_in_the_target() {
    let mut scene = Scene::new("unread-tunnels").unwrap();
    scene.config.routes = vec![Route::tunnel(&["127.0.0.1:*"])];
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let target = scene.upstream.address().to_string();
    let token = format!("Bearer {}", scene.token("alice").unwrap());
    let head = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: {token}\r\n\r\n"
    );
    let before = daemon.gateway_memory().unwrap();
    let http1 = (0..CLIENTS).map(|_| {
        let tunnel = client.tls().unwrap();
        tunnel.write(format!("{head}{ENDLESS}")).unwrap();
        tunnel
    });
    let http1 = http1.collect::<Vec<_>>();
    let connect = block(&[
        (":method", "CONNECT"),
        (":authority", &target),
        ("proxy-authorization", &token),
    ]);
    // One gives no window, the other the largest, and does not read.
    let http2 = [0, LARGEST_WINDOW].map(|window| {
        let settings = [(setting::INITIAL_WINDOW_SIZE, window)];
        let peer = Peer::with_settings(&client, &token, &settings).unwrap();
        let tunnels = (0..CLIENTS as u32).flat_map(|number| {
            let stream = 2 * number + 1;
            [
                Frame::headers(stream, &*connect),
                Frame::data(stream, ENDLESS),
            ]
        });
        let open = Frame::window_update(0, LARGEST_WINDOW - 65_535);
        let frames = std::iter::once(open).chain(tunnels);
        peer.send(&frames.collect::<Vec<_>>()).unwrap();
        peer
    });
    for _ in 0..2 {
        read_meanwhile(&client, &head);
        check_held(&daemon, before, 3 * CLIENTS);
    }
    for tunnel in http1 {
        tunnel.read_until("200 OK").unwrap();
    }
    let [mut without_window, mut unread] = http2;
    without_window.check_alive().unwrap();
    assert!(!without_window.has_waiting(kind::DATA));
    let data = unread.wait_for("data", |frame| frame.kind == kind::DATA);
    data.unwrap();
}

#[test]
fn bytes_for_clients_of_a_tcp_listener_that_do_not_read_wait_in_the_upstream() {
    let mut scene = Scene::new("unread-tcp").unwrap();
    let upstream = format!("tcp://{}", scene.upstream.address());
    scene.serve_tcp(upstream).unwrap();
    let daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let client = scene.client_showing(&alice).unwrap();
    let before = daemon.gateway_memory().unwrap();
    let unread = (0..CLIENTS).map(|_| {
        let stream = client.tls().unwrap();
        stream.write(ENDLESS).unwrap();
        stream
    });
    let unread = unread.collect::<Vec<_>>();
    for _ in 0..2 {
        read_meanwhile(&client, "");
        check_held(&daemon, before, CLIENTS);
    }
    for stream in unread {
        stream.read_until("200 OK").unwrap();
    }
}

#[test]
fn bytes_for_a_target_that_never_reads_wait_in_the_client() {
    let mut scene = Scene::new("unread-target").unwrap();
    scene.config.routes = vec![Route::tunnel(&["127.0.0.1:*"])];
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let runtime = scene.bed.daemon().runtime(1).unwrap();
    // The kernel connects whom nobody accepts.
    let listen = Task::spawn(&runtime, TcpListener::bind("127.0.0.1:0"));
    let deaf = listen.join().unwrap().unwrap();
    let token = scene.token("alice").unwrap();
    let head = |target| {
        format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
             Proxy-Authorization: Bearer {token}\r\n\r\n"
        )
    };
    let before = daemon.gateway_memory().unwrap();
    let writers = (0..CLIENTS).map(|_| {
        let tunnel = client.tls().unwrap();
        tunnel.write(head(deaf.local_addr().unwrap())).unwrap();
        tunnel.read_until("\r\n\r\n").unwrap();
        thread::spawn(move || while tunnel.write([0; 64 * 1024]).is_ok() {})
    });
    let writers = writers.collect::<Vec<_>>();
    for _ in 0..2 {
        read_meanwhile(&client, &head(scene.upstream.address()));
        check_held(&daemon, before, CLIENTS);
    }
    // They are still at it.
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    daemon.terminate().unwrap();
    for writer in writers {
        writer.join().unwrap();
    }
}
