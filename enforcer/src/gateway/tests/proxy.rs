//! The PROXY protocol, in and out.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::harness::{EchoUpstream, World, read_head, token};
use crate::{
    channel::ToWarden,
    config::{ProxyVersion, Route, UpstreamPool},
    gateway::http::route::tests::route,
};

const ANNOUNCEMENT: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n";

fn opened(message: &ToWarden) -> bool {
    matches!(message, ToWarden::Open { .. })
}

#[tokio::test]
async fn the_announced_client_is_the_client() {
    let upstream = EchoUpstream::start().await;
    let world = World::behind_proxies(upstream.address, route("public", None, "/")).await;
    let mut client = world.connect_through(ANNOUNCEMENT).await;
    let answer = client.get("/", &token("a", 60)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("x-forwarded-for: 192.0.2.7\r\n"));
    assert!(answer.body.contains("forwarded: for=192.0.2.7;"));
    let ToWarden::Open {
        announced_client, ..
    } = world.warden.hears(opened).await
    else {
        panic!("no session was opened");
    };
    assert_eq!(announced_client, Some("192.0.2.7:5000".parse().unwrap()));

    client.get("/", "no token").await;
    let refused = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(_));
    let ToWarden::RefusedRequest(refused) = world.warden.hears(refused).await else {
        panic!("nothing was refused");
    };
    assert_eq!(refused.client, "192.0.2.7:5000".parse().unwrap());
}

#[tokio::test]
async fn a_proxy_that_connects_for_itself_is_the_client() {
    let upstream = EchoUpstream::start().await;
    let world = World::behind_proxies(upstream.address, route("public", None, "/")).await;
    let mut client = world.connect_through(b"PROXY UNKNOWN\r\n").await;
    let answer = client.get("/", &token("a", 60)).await;
    assert!(answer.body.contains("x-forwarded-for: 127.0.0.1\r\n"));
}

#[tokio::test]
async fn a_proxy_must_say_for_whom_it_connects() {
    let upstream = EchoUpstream::start().await;
    let world = World::behind_proxies(upstream.address, route("public", None, "/")).await;
    for start in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"PROXY TCP4 nonsense\r\n",
    ] {
        let mut proxy = TcpStream::connect(world.address).await.unwrap();
        proxy.write_all(start).await.unwrap();
        assert_eq!(proxy.read(&mut [0; 16]).await.unwrap(), 0);
        let refused = |message: &ToWarden| match message {
            ToWarden::RefusedRequest(refused) => refused.code == "invalid_proxy_header",
            _ => false,
        };
        world.warden.hears(refused).await;
    }
}

#[tokio::test]
async fn nobody_else_may_announce_a_client() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    for announcement in [ANNOUNCEMENT, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = TcpStream::connect(world.address).await.unwrap();
        client.write_all(announcement).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(*upstream.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn an_upstream_hears_of_each_client_on_a_connection_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut lines = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.unwrap());
            }
            lines.push(String::from_utf8(line).unwrap());
            for _ in 0..2 {
                read_head(&mut stream).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
        lines
    });
    let route = Route {
        upstream_pool: UpstreamPool::Session,
        proxy_protocol: Some(ProxyVersion::V1),
        ..route("public", None, "/")
    };
    let world = World::behind_proxies(upstream, route).await;
    let token = token("a", 60);
    for announcement in [ANNOUNCEMENT, b"PROXY TCP4 192.0.2.8 10.0.0.1 6000 443\r\n"] {
        let mut client = world.connect_through(announcement).await;
        for _ in 0..2 {
            assert_eq!(client.get("/", &token).await.status, 200);
        }
    }
    let port = world.address.port();
    assert_eq!(
        serving.await.unwrap(),
        [
            format!("PROXY TCP4 192.0.2.7 127.0.0.1 5000 {port}\r\n"),
            format!("PROXY TCP4 192.0.2.8 127.0.0.1 6000 {port}\r\n"),
        ]
    );
}
