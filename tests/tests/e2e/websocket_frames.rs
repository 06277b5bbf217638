//! WebSocket frames that no client means: told so, recorded, and nobody else notices.

use anyhow::{Context as _, Result, anyhow, ensure};
use enforcer_tests::{
    Scene,
    certificates::SERVER_NAME,
    client::{Client, End, Pattern, Raw, Talk},
    config::Route,
    upstream::manual::ManualUpstream,
    wait,
    websockets::Server,
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How often each comes.
const ROUNDS: u64 = 10;
/// In KiB: what the allocator keeps.
const MOST_GROWTH: u64 = 16 * 1024;
const MASK: [u8; 4] = [0; 4];
const PROTOCOL_ERROR: &[u8] = b"\x88\x10\x03\xeaprotocol error";

/// A header of a client's frame.
fn header(first: u8, length: &[u8]) -> Vec<u8> {
    [&[first], length, &MASK[..]].concat()
}

/// The length of a client's frame in 64 bits.
fn long(length: u64) -> Vec<u8> {
    [&[0xff][..], &length.to_be_bytes()].concat()
}

/// None of these is the beginning of a frame.
fn violations() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("the top bit of a length", header(0x82, &long(1 << 63))),
        ("all bits of a length", header(0x82, &long(u64::MAX))),
        ("64 bits for 65,535", header(0x82, &long(0xffff))),
        ("64 bits for nothing", header(0x82, &long(0))),
        ("16 bits for 125", header(0x82, &[0xfe, 0, 125])),
        ("a ping of 126 bytes", header(0x89, &[0xfe, 0, 126])),
        ("a close of 64 bits", header(0x88, &long(1 << 20))),
        ("a ping in fragments", header(0x09, &[0x80])),
        ("no mask", vec![0x81, 5, b'h', b'e', b'l', b'l', b'o']),
        ("reserved bits", header(0xc1, &[0x80])),
        ("all reserved bits", header(0xf1, &[0x80])),
        ("a reserved opcode", header(0x83, &[0x80])),
        ("a reserved control opcode", header(0x8f, &[0x80])),
        ("a continuation of nothing", header(0x80, &[0x80])),
        (
            "a message in a message",
            [header(0x01, &[0x80]), header(0x81, &[0x80])].concat(),
        ),
    ]
}

/// Somebody else, who talks all the time.
fn bystander(scene: &Scene, client: &Client) -> Result<Talk> {
    let socket = client.websocket("/echo", &scene.token("bob")?)?;
    Ok(socket.talk(Pattern::default()))
}

type Stream = Raw<TlsStream<TcpStream>>;

/// A connection that is to become a WebSocket.
fn asked(client: &Client, token: &str, path: &str) -> Result<Stream> {
    let raw = client.tls()?;
    raw.write(format!(
        "GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ))?;
    Ok(raw)
}

/// One that has, and the server waits for a word.
fn switched(client: &Client, token: &str) -> Result<Stream> {
    let raw = asked(client, token, "/echo")?;
    check_switched(&raw)?;
    Ok(raw)
}

/// Reads the answer's head, byte by byte: what follows may have come with it.
fn check_switched(raw: &Stream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(exactly(raw, 1)?);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    Ok(())
}

fn exactly(raw: &Stream, length: usize) -> Result<Vec<u8>> {
    let bytes = raw.read_exact(length)?;
    bytes.map_err(|ending| anyhow!("the connection ended: {ending:?}"))
}

fn check_protocol_error(raw: &Stream) -> Result<()> {
    let close = exactly(raw, PROTOCOL_ERROR.len())?;
    ensure!(close == PROTOCOL_ERROR, "{close:?}");
    let (rest, ending) = raw.read_to_end()?;
    ensure!(
        rest.is_empty() && ending.how == End::Complete,
        "{rest:?} {ending:?}"
    );
    Ok(())
}

#[test]
fn what_is_no_frame_is_a_protocol_error_recorded_and_harms_nobody() {
    let scene = Scene::new("ws-violations").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let bystander = bystander(&scene, &client).unwrap();
    let token = scene.token("mallory").unwrap();
    let before = daemon.gateway_memory().unwrap();
    for (count, (what, bytes)) in (1..).zip(violations()) {
        let told = |bytes: &[u8]| {
            let raw = switched(&client, &token)?;
            raw.write(bytes)?;
            check_protocol_error(&raw)
        };
        for _ in 0..ROUNDS {
            told(&bytes).context(what).unwrap();
        }
        wait::until(&format!("{what}: it was recorded"), || {
            (daemon.refusals("websocket_violation").ok()? == count * ROUNDS).then_some(())
        })
        .unwrap();
    }
    let grown = daemon.gateway_memory().unwrap().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{grown} KiB more");
    let record = daemon.wait_for_audit("session_refused", |it| {
        it["reason"] == "websocket_violation"
    });
    assert_eq!(record.unwrap()["subject"], "mallory");
    let echoes = bystander.received();
    wait::until("the bystander talked on", || {
        (bystander.received() > echoes).then_some(())
    })
    .unwrap();
}

/// A length is believed, and costs nothing: what does not come is waited for, like any silence.
#[test]
fn a_large_length_and_then_silence_is_an_idle_session() {
    const SOCKETS: usize = 100;
    /// What the upstream takes for a message that it would wait for.
    const LENGTH: u64 = 15 << 20;
    let mut scene = Scene::new("ws-lengths").unwrap();
    scene.config.policy().idle_timeout = Some("3s".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let bystander = bystander(&scene, &client).unwrap();
    let token = scene.token("mallory").unwrap();
    let before = daemon.gateway_memory().unwrap();
    let most = header(0x82, &long(LENGTH));
    let silent: Vec<_> = (0..SOCKETS)
        .map(|number| {
            let raw = switched(&client, &token).unwrap();
            // Every second one stops in the middle of its header.
            raw.write(&most[..most.len() - 7 * (number % 2)]).unwrap();
            raw
        })
        .collect();
    let grown = daemon.gateway_memory().unwrap().saturating_sub(before);
    // Buffers of both directions and TLS.
    let allowed = MOST_GROWTH + SOCKETS as u64 * 256;
    assert!(grown < allowed, "{grown} KiB more for {SOCKETS} sockets");
    for raw in silent {
        let (said, ending) = raw.read_to_end().unwrap();
        assert_eq!((&*said, ending.how), ("", End::Reset));
    }
    let record = daemon.wait_for_audit("session_ended", |it| it["subject"] == "mallory");
    assert_eq!(record.unwrap()["reason"], "idle");
    assert_eq!(daemon.refusals("websocket_violation").unwrap(), 0);
    assert!(bystander.is_running());
}

/// Which messages are too long is for the server to say.
#[test]
fn a_server_says_itself_that_a_message_is_too_big() {
    let mut scene = Scene::new("ws-too-big").unwrap();
    let server = Server::start(&scene.bed).unwrap();
    scene.config.routes = vec![Route::to(server.url())];
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let raw = asked(&client, &scene.token("alice").unwrap(), "/").unwrap();
    check_switched(&raw).unwrap();
    // It says what it has seen, in 126 bytes and more.
    let start = exactly(&raw, 4).unwrap();
    let length = u16::from_be_bytes([start[2], start[3]]);
    exactly(&raw, length.into()).unwrap();
    let most = header(0x82, &long(u64::MAX >> 1));
    raw.write(most).unwrap();
    assert_eq!(exactly(&raw, 4).unwrap(), b"\x88\x02\x03\xf1");
    assert_eq!(daemon.refusals("websocket_violation").unwrap(), 0);
}

#[test]
fn an_upstream_that_sends_no_frames_is_a_protocol_error_too() {
    let mut scene = Scene::new("ws-upstream").unwrap();
    let upstream = ManualUpstream::start(scene.bed.daemon()).unwrap();
    scene.config.routes = vec![Route::to(upstream.url())];
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    for nonsense in [
        &b"\x82\x80\0\0\0\0"[..],
        b"\x82\x7f\x80\0\0\0\0\0\0\0",
        b"\xc2\0",
    ] {
        let raw = asked(&client, &token, "/").unwrap();
        upstream.wait_for("\r\n\r\n").unwrap();
        upstream.say(accepted).unwrap();
        check_switched(&raw).unwrap();
        upstream.say([b"\x82\x02hi", nonsense].concat()).unwrap();
        assert_eq!(exactly(&raw, 4).unwrap(), b"\x82\x02hi");
        check_protocol_error(&raw).unwrap();
    }
    let log = std::fs::read_to_string(scene.bed.path("daemon.log")).unwrap();
    assert_eq!(log.matches("upstream_invalid").count(), 3, "{log}");
    let records = daemon.audit().unwrap();
    assert!(records.iter().all(|it| it["event"] != "session_refused"));
}
