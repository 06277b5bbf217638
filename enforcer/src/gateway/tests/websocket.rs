//! WebSockets, through the gateway.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::harness::{Client, World, read_head, token};
use crate::{
    channel::{BoundRole, ToWarden},
    gateway::websocket::frame::close_frame,
};

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// A client and its upstream, switched.
async fn switched() -> (World, Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::simple(listener.local_addr().unwrap()).await;
    let mut client = world.connect().await;
    client
        .write(format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            token("a", 60)
        ))
        .await;
    let (mut upstream, _) = listener.accept().await.unwrap();
    let head = read_head(&mut upstream).await.unwrap();
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("sec-websocket-key: "), "{head}");
    let is_bind = |message: &ToWarden| matches!(message, ToWarden::Bind { role, .. } if *role == BoundRole::Upstream);
    assert!(world.warden.heard().iter().any(is_bind));
    upstream.write_all(SWITCH).await.unwrap();
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("session-expires-in: "), "{head}");
    (world, client, upstream)
}

/// A client's frame, masked with zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

async fn exactly(upstream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    upstream.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn frames_pass_both_ways() {
    let (_world, mut client, mut upstream) = switched().await;
    let hello = masked(0x81, b"hello");
    client.write(&hello).await;
    assert_eq!(exactly(&mut upstream, hello.len()).await, hello);
    upstream.write_all(b"\x81\x02hi").await.unwrap();
    assert_eq!(client.exactly(4).await, b"\x81\x02hi");

    let close = masked(0x88, &1000_u16.to_be_bytes());
    client.write(&close).await;
    assert_eq!(exactly(&mut upstream, close.len()).await, close);
    let reply = close_frame(1000, "");
    upstream.write_all(&reply).await.unwrap();
    drop(upstream);
    assert_eq!(client.rest().await, (reply, true));
}

#[tokio::test]
async fn a_farewell_waits_for_the_message_and_lets_the_reply_pass() {
    let (world, mut client, mut upstream) = switched().await;
    upstream.write_all(b"\x01\x03abc").await.unwrap();
    assert_eq!(client.exactly(5).await, b"\x01\x03abc");
    world.warden.farewell(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The end of the message, then one that comes too late.
    upstream
        .write_all(b"\x80\x03def\x81\x04late")
        .await
        .unwrap();
    let expected = [
        b"\x80\x03def".to_vec(),
        close_frame(1008, "session expired"),
    ]
    .concat();
    assert_eq!(client.exactly(expected.len()).await, expected);
    let reply = masked(0x88, &1008_u16.to_be_bytes());
    client.write(&reply).await;
    assert_eq!(exactly(&mut upstream, reply.len()).await, reply);
    upstream.write_all(b"\x81\x04late").await.unwrap();
    drop(upstream);
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn an_end_is_no_end_of_stream() {
    let (world, mut client, mut upstream) = switched().await;
    world.warden.end().await;
    assert_eq!(client.rest().await, (Vec::new(), false));
    let mut rest = Vec::new();
    assert!(upstream.read_to_end(&mut rest).await.is_err());
}

#[tokio::test]
async fn what_is_no_frame_ends_it() {
    let (world, mut client, _upstream) = switched().await;
    client.write(b"\x81\x05hello").await;
    assert_eq!(
        client.rest().await,
        (close_frame(1002, "protocol error"), true)
    );
    let refused = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(_));
    let ToWarden::RefusedRequest(record) = world.warden.hears(refused).await else {
        panic!("nothing was refused");
    };
    assert_eq!(record.code, "websocket_violation");
    assert_eq!(
        record.detail,
        "the client's WebSocket: a frame without a mask"
    );
    assert_eq!(record.principal.unwrap().subject, "alice");

    let (_world, mut client, mut upstream) = switched().await;
    upstream.write_all(b"\x81\x02hi\x83\x00").await.unwrap();
    let expected = [b"\x81\x02hi".to_vec(), close_frame(1002, "protocol error")].concat();
    assert_eq!(client.rest().await, (expected, true));
}

#[tokio::test]
async fn pings_are_no_activity_and_messages_are() {
    let (world, mut client, mut upstream) = switched().await;
    let touches = || {
        let is_touch = |message: &&ToWarden| matches!(message, ToWarden::Touch { .. });
        world.warden.heard().iter().filter(is_touch).count()
    };
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let before = touches();
    let ping = masked(0x89, b"");
    client.write(&ping).await;
    exactly(&mut upstream, ping.len()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(touches(), before);
    client.write(&masked(0x82, b"x")).await;
    exactly(&mut upstream, 7).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(touches(), before + 1);
}
