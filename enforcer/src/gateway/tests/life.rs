//! Sessions that end, wardens that come and go.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_seqpacket::UnixSeqpacket;

use super::harness::{EchoUpstream, World, read_head, token};
use crate::channel::{ToGateway, ToWarden, Transport};

#[tokio::test]
async fn an_ended_session_resets_its_connections() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token("a", 60)).await.status, 200);
    world.warden.end().await;
    assert_eq!(client.rest().await, (Vec::new(), false));
}

#[tokio::test]
async fn the_gateway_ends_a_session_that_the_warden_forgot() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    *world.warden.max_session.lock().unwrap() = Duration::from_millis(500);
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token("a", 60)).await.status, 200);
    assert_eq!(client.rest().await, (Vec::new(), false));
}

#[tokio::test]
async fn nothing_is_forwarded_after_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        let mut body = Vec::new();
        let result = stream.read_to_end(&mut body).await;
        (body, result.is_err())
    });
    let world = World::simple(address).await;
    *world.warden.max_session.lock().unwrap() = Duration::from_millis(500);
    let mut client = world.connect().await;
    client
        .write(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 100\r\n\r\nbefore",
            token("a", 60)
        ))
        .await;
    tokio::time::sleep(Duration::from_millis(520)).await;
    let _ = client.stream.write_all(b"after").await;
    let (body, reset) = upstream.await.unwrap();
    assert_eq!(body, b"before");
    assert!(reset, "the upstream must not take the cut for an end");
}

#[tokio::test]
async fn a_farewell_closes_idle_connections() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token("a", 60)).await.status, 200);
    world.warden.farewell(Duration::from_secs(5)).await;
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn without_a_warden_bound_sessions_go_on_and_new_ones_wait() {
    let upstream = EchoUpstream::start().await;
    let mut world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let mut bound = world.connect().await;
    assert_eq!(bound.get("/", &token).await.status, 200);
    let mut unbound = world.connect().await;
    let mut fresh = world.connect().await;
    world.warden.die();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bound.get("/", &token).await.status, 200);
    let answer = unbound.get("/", &token).await;
    assert_eq!((answer.status, &*answer.code()), (503, "unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));

    // A new connection is taken by the kernel, and left for the next warden's gateway.
    let mut waiting = TcpStream::connect(world.address).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut byte = [0];
    let silence = tokio::time::timeout(Duration::from_millis(200), waiting.read(&mut byte));
    assert!(silence.await.is_err());

    let next = UnixSeqpacket::connect(&world.handover).await.unwrap();
    let next = Transport::new(next.into()).unwrap();
    next.send(&ToGateway::HandOver).await.unwrap();
    let (message, mut fds) = next.recv::<ToWarden>().await.unwrap().unwrap();
    let names = vec!["public".to_owned()];
    assert_eq!(message, ToWarden::Listeners { names });
    let listener = std::net::TcpListener::from(fds.remove(0));
    assert_eq!(listener.local_addr().unwrap(), world.address);

    // Activity that nobody heard of follows.
    let (message, _) = next.recv::<ToWarden>().await.unwrap().unwrap();
    assert!(matches!(message, ToWarden::Touch { .. }), "{message:?}");

    next.send(&ToGateway::Drain).await.unwrap();
    assert_eq!(bound.rest().await, (Vec::new(), true));
    assert_eq!(unbound.rest().await, (Vec::new(), true));
    // Who has just connected is still answered.
    let answer = fresh.get("/.well-known/enforcer/health/live", &token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(fresh.rest().await, (Vec::new(), true));
    let drained = tokio::time::timeout(Duration::from_secs(5), world.server.drained());
    drained.await.unwrap();
}
