//! Tunnels, over HTTP/1.1 and HTTP/2.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    harness::{Client, World, token},
    http2::Connection,
};
use crate::{
    channel::{BoundRole, ToWarden},
    config::{HostPattern, PortRange, TargetPattern},
};

/// A target, and its ends of the connections that come.
struct Place {
    address: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<TcpStream>,
}

impl Place {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sender.send(stream).unwrap();
            }
        });
        Self { address, arrivals }
    }

    async fn arrival(&mut self) -> TcpStream {
        self.arrivals.recv().await.unwrap()
    }
}

fn pattern(host: HostPattern, port: u16) -> TargetPattern {
    let ports = PortRange {
        first: port,
        last: port,
    };
    TargetPattern { host, ports }
}

/// A world whose tunnels lead to one place, and to a name that is none.
async fn world() -> (World, Place) {
    let place = Place::new().await;
    let loopback = HostPattern::Network("127.0.0.1/32".parse().unwrap());
    let nowhere = HostPattern::Name("nowhere.invalid".to_owned());
    let targets = [
        pattern(loopback.clone(), place.address.port()),
        pattern(loopback, 1),
        pattern(nowhere, 1),
    ];
    (World::tunnels(&targets).await, place)
}

impl Client {
    async fn ask(&mut self, target: &str, token: &str) {
        self.write(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
             Proxy-Authorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    }

    async fn tunnel(&mut self, target: SocketAddr) {
        self.ask(&target.to_string(), &token("a", 60)).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("session-expires-in: "), "{head}");
        for field in ["content-length", "transfer-encoding"] {
            assert!(!head.contains(field), "{head}");
        }
    }
}

impl Connection {
    async fn ask(&self, target: &str) -> (http::Response<RecvStream>, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(target)
            .header("proxy-authorization", format!("Bearer {}", token("a", 60)))
            .body(())
            .unwrap();
        let (response, sending) = sender.send_request(request, false).unwrap();
        (response.await.unwrap(), sending)
    }

    async fn tunnel(&self, target: SocketAddr) -> (RecvStream, SendStream<Bytes>) {
        let (response, sending) = self.ask(&target.to_string()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key("session-expires-in"));
        (response.into_body(), sending)
    }
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn bytes_flow_both_ways_on_a_connection_of_the_sessions_own() {
    let (world, mut place) = world().await;
    let mut client = world.connect().await;
    client.tunnel(place.address).await;
    let mut target = place.arrival().await;
    client.write("up").await;
    assert_eq!(read(&mut target, 2).await, b"up");
    target.write_all(b"down").await.unwrap();
    assert_eq!(client.exactly(4).await, b"down");
    let named = place.address.to_string();
    let bound = |message: &ToWarden| {
        matches!(message, ToWarden::Bind { role: BoundRole::Upstream, target, .. }
            if target.as_ref() == Some(&named))
    };
    world.warden.hears(bound).await;
}

#[tokio::test]
async fn what_is_sent_before_the_answer_is_the_targets() {
    let (world, mut place) = world().await;
    let mut client = world.connect().await;
    let target = place.address;
    let eager = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nAuthorization: Bearer {}\r\n\r\n\n\0eager",
        token("a", 60)
    );
    client.write(eager).await;
    let mut target = place.arrival().await;
    assert_eq!(read(&mut target, 7).await, b"\n\0eager");
    client.head().await;
    client.write("more").await;
    assert_eq!(read(&mut target, 4).await, b"more");
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let (world, mut place) = world().await;
    let mut first = world.connect().await;
    first.tunnel(place.address).await;
    let mut target = place.arrival().await;
    first.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    target.read_to_end(&mut rest).await.unwrap();
    target.write_all(b"still here").await.unwrap();
    drop(target);
    assert_eq!(first.rest().await, (b"still here".to_vec(), true));

    let connection = world.http2().await;
    let (mut receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    sending.send_data(Bytes::from("all"), true).unwrap();
    target.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"all");
    target.write_all(b"still here").await.unwrap();
    drop(target);
    let read = super::http2::read(&mut receiving).await;
    assert_eq!(read, "still here");

    let (mut receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    target.shutdown().await.unwrap();
    assert_eq!(super::http2::read(&mut receiving).await, "");
    sending.send_data(Bytes::from("late"), true).unwrap();
    rest.clear();
    target.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"late");
}

#[tokio::test]
async fn many_tunnels_share_a_connection() {
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    let mut tunnels = Vec::new();
    for number in 0..20_u8 {
        let (receiving, mut sending) = connection.tunnel(place.address).await;
        let mut target = place.arrival().await;
        sending.send_data(Bytes::from(vec![number]), false).unwrap();
        assert_eq!(read(&mut target, 1).await, [number]);
        tunnels.push((receiving, sending, target));
    }
    for (number, (receiving, _, target)) in tunnels.iter_mut().enumerate() {
        target.write_all(&[number as u8]).await.unwrap();
        assert_eq!(*receiving.data().await.unwrap().unwrap(), [number as u8]);
    }
}

#[tokio::test]
async fn what_breaks_off_is_no_end() {
    let (world, mut place) = world().await;
    let reset = |stream: TcpStream| {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    };
    let mut client = world.connect().await;
    client.tunnel(place.address).await;
    reset(place.arrival().await);
    assert!(!client.rest().await.1);

    let connection = world.http2().await;
    let (mut receiving, _sending) = connection.tunnel(place.address).await;
    reset(place.arrival().await);
    let error = receiving.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR));
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::CONNECT_ERROR] {
        let (_receiving, mut sending) = connection.tunnel(place.address).await;
        let mut target = place.arrival().await;
        sending.send_data(Bytes::from("cut sho"), false).unwrap();
        read(&mut target, 7).await;
        sending.send_reset(reason);
        let mut rest = Vec::new();
        let error = target.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// RFC 9113, section 8.5.
#[tokio::test]
async fn trailers_are_no_end() {
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    for said in ["", "cut sho"] {
        let (mut receiving, mut sending) = connection.tunnel(place.address).await;
        let mut target = place.arrival().await;
        sending.send_data(Bytes::from(said), false).unwrap();
        read(&mut target, said.len()).await;
        sending.send_trailers(HeaderMap::new()).unwrap();
        let error = target.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let error = receiving.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
    }
    let _other = connection.tunnel(place.address).await;
}

#[tokio::test]
async fn a_reset_after_the_other_sides_end_is_no_end() {
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    let (mut receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    target.shutdown().await.unwrap();
    assert_eq!(super::http2::read(&mut receiving).await, "");
    sending.send_data(Bytes::from("cut sho"), false).unwrap();
    read(&mut target, 7).await;
    sending.send_reset(Reason::CANCEL);
    let error = target.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Also while neither side says anything, and the client has nothing more to say.
#[tokio::test]
async fn a_reset_after_the_clients_end_reaches_the_target() {
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    let (_receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    sending.send_data(Bytes::from("all"), true).unwrap();
    target.read_to_end(&mut Vec::new()).await.unwrap();
    sending.send_reset(Reason::CANCEL);
    let broken_off = async {
        loop {
            match target.take_error().unwrap() {
                Some(error) => return error,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(5), broken_off).await;
    // To a side that has been told of the end.
    assert_eq!(error.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_a_tunnel_holds_back_flows_on() {
    const MOST: usize = 8 * 1024 * 1024;
    const PIECE: usize = 16 * 1024;
    let second = Duration::from_secs(1);
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    let (mut receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    let mut sent = 0;
    while let Ok(length) = tokio::time::timeout(second, target.write(&[0; PIECE])).await {
        sent += length.unwrap();
        assert!(sent < MOST, "{sent} bytes for a client that reads none");
    }
    let mut received = 0;
    while received < sent {
        let data = receiving.data().await.unwrap().unwrap();
        received += data.len();
        receiving
            .flow_control()
            .release_capacity(data.len())
            .unwrap();
    }

    sent = 0;
    let room = async |sending: &mut SendStream<Bytes>| {
        sending.reserve_capacity(PIECE);
        let room = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await;
        room.unwrap().unwrap()
    };
    while let Ok(room) = tokio::time::timeout(second, room(&mut sending)).await {
        sending.send_data(vec![0; room].into(), false).unwrap();
        sent += room;
        assert!(sent < MOST, "{sent} bytes for a target that reads none");
    }
    read(&mut target, sent).await;
    room(&mut sending).await;
}

#[tokio::test]
async fn an_ended_session_resets_both_sides() {
    let (world, mut place) = world().await;
    let mut client = world.connect().await;
    client.tunnel(place.address).await;
    let mut target = place.arrival().await;
    world.warden.end().await;
    assert!(!client.rest().await.1);
    let mut rest = Vec::new();
    assert!(target.read_to_end(&mut rest).await.is_err());
}

#[tokio::test]
async fn a_farewell_leaves_tunnels_alone_and_takes_no_more() {
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    let (mut receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    world.warden.farewell(Duration::from_secs(5)).await;
    let mut idle = connection.sender.clone();
    let refused = async {
        loop {
            match idle.clone().ready().await {
                Ok(ready) => idle = ready,
                Err(error) => return error,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(5), refused).await;
    assert!(refused.expect("no GOAWAY").is_go_away());
    sending.send_data(Bytes::from("up"), false).unwrap();
    assert_eq!(read(&mut target, 2).await, b"up");
    target.write_all(b"down").await.unwrap();
    assert_eq!(receiving.data().await.unwrap().unwrap(), "down");
}

#[tokio::test]
async fn who_does_not_read_is_not_written_to() {
    const MOST: usize = 16 * 1024 * 1024;
    let (world, mut place) = world().await;
    let connection = world.http2().await;
    let (_receiving, _sending) = connection.tunnel(place.address).await;
    let mut client = world.connect().await;
    client.tunnel(place.address).await;
    for mut target in [place.arrival().await, place.arrival().await] {
        let mut written = 0;
        let flood = async {
            while written < MOST {
                written += target.write(&[0; 64 * 1024]).await.unwrap();
            }
        };
        let stalled = tokio::time::timeout(Duration::from_secs(1), flood).await;
        assert!(stalled.is_err(), "{MOST} bytes went somewhere");
    }
}

#[tokio::test]
async fn what_cannot_be_is_answered_with_its_code_and_recorded() {
    let (world, place) = world().await;
    let here = place.address.to_string();
    let there = "127.0.0.1:1".to_owned();
    for (target, token, status, code) in [
        ("127.0.0.2:1", token("a", 60), 403, "target_not_allowed"),
        ("db.example:2", token("a", 60), 403, "target_not_allowed"),
        (
            "nowhere.invalid:1",
            token("a", 60),
            502,
            "target_unresolved",
        ),
        (&there, token("a", 60), 502, "target_unreachable"),
        ("127.0.0.1", token("a", 60), 400, "invalid_target"),
        (&here, "no.such.token".to_owned(), 401, "token_malformed"),
    ] {
        let mut client = world.connect().await;
        client.ask(target, &token).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{target}");
        assert_eq!(answer.header("connection"), Some("close"), "{target}");
        let recorded = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(refused) if refused.code == code);
        world.warden.hears(recorded).await;
    }
    let connection = world.http2().await;
    let (response, _) = connection.ask("127.0.0.2:1").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let (response, _) = connection.ask(&there).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let _tunnel = connection.tunnel(place.address).await;
}

#[tokio::test]
async fn a_connect_with_a_body_is_malformed() {
    let (world, place) = world().await;
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut client = world.connect().await;
        let target = place.address;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{framing}\r\n\r\n");
        client.write(head).await;
        assert_eq!(client.answer().await.code(), "bad_request");
    }
    // Over HTTP/2 there is none, and so no length.
    let mut sender = world.http2().await.sender.ready().await.unwrap();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(place.address.to_string())
        .header("content-length", 5)
        .body(())
        .unwrap();
    let (response, _sending) = sender.send_request(request, false).unwrap();
    let error = response.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
}

#[tokio::test]
async fn what_the_client_says_is_activity_and_pings_are_none() {
    let (world, mut place) = world().await;
    let (sender, mut driver) = h2::client::handshake(world.connect2().await).await.unwrap();
    let mut pings = driver.ping_pong().unwrap();
    let connection = Connection {
        sender,
        end: tokio::spawn(driver),
    };
    let (mut receiving, mut sending) = connection.tunnel(place.address).await;
    let mut target = place.arrival().await;
    assert_eq!(world.warden.touches(), 1);
    let interval = Duration::from_millis(1100);
    let end = tokio::time::sleep(2 * interval);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            pong = pings.ping(h2::Ping::opaque()) => drop(pong.unwrap()),
        }
        // Read, so that windows are updated.
        target.write_all(&[0; 4096]).await.unwrap();
        let data = receiving.data().await.unwrap().unwrap();
        receiving
            .flow_control()
            .release_capacity(data.len())
            .unwrap();
    }
    assert_eq!(world.warden.touches(), 1);
    sending.send_data(Bytes::from("up"), false).unwrap();
    read(&mut target, 2).await;
    let touched = async {
        while world.warden.touches() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(interval, touched).await.unwrap();
}
