//! Interim responses, and bodies that wait to be asked for, over both versions on both sides.

use std::{future::poll_fn, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::ResponseFuture,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::{
    harness::{World, read_head, token},
    http2::{Connection, read},
};
use crate::{
    config::{HttpVersion, Route, Upstream},
    gateway::http::route::tests::route,
};

const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];
/// What the upstream says first: a hint, and what is not the client's to hear.
const SAID: [(&str, &str); 4] = [
    ("link", "</a.css>; rel=preload"),
    ("session-warning", "forged"),
    ("alt-svc", "h3=\":1\""),
    ("x-more", "yes"),
];
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nx-more: yes\r\n\r\n";

/// An upstream that says what it is told to.
struct Speaker {
    address: SocketAddr,
    /// The final response may follow.
    go_on: Arc<Notify>,
}

impl Speaker {
    /// Each response comes after `hints` hints and a 102, and after [`Self::go_on`]; its body is
    /// the request's.
    async fn start(version: HttpVersion, hints: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let speaker = Self {
            address: listener.local_addr().unwrap(),
            go_on: Arc::default(),
        };
        let go_on = Arc::clone(&speaker.go_on);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let go_on = Arc::clone(&go_on);
                match version {
                    HttpVersion::Http1 => tokio::spawn(speak_http1(stream, hints, go_on)),
                    HttpVersion::Http2 => tokio::spawn(speak_http2(stream, hints, go_on)),
                };
            }
        });
        speaker
    }

    async fn world(&self, version: HttpVersion) -> World {
        let route = route("public", None, "/");
        let upstream = Upstream {
            version,
            ..route.upstream
        };
        World::new(self.address, vec![Route { upstream, ..route }]).await
    }
}

async fn speak_http1(mut stream: TcpStream, hints: usize, go_on: Arc<Notify>) {
    while let Some(head) = read_head(&mut stream).await {
        assert!(!head.contains("expect:"), "{head}");
        let mut said = String::new();
        for _ in 0..hints {
            said.push_str("HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\n");
            for (name, value) in SAID {
                said.push_str(&format!("{name}: {value}\r\n"));
            }
            said.push_str("\r\n");
        }
        said.push_str("HTTP/1.1 102 Processing\r\n\r\n");
        stream.write_all(said.as_bytes()).await.unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        go_on.notified().await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
    }
}

async fn speak_http2(stream: TcpStream, hints: usize, go_on: Arc<Notify>) {
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        assert!(!request.headers().contains_key("expect"));
        tokio::spawn(answer_http2(request, respond, hints, Arc::clone(&go_on)));
    }
}

async fn answer_http2(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    hints: usize,
    go_on: Arc<Notify>,
) {
    let interim = |status: StatusCode, fields: &[(&'static str, &'static str)]| {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    };
    for _ in 0..hints {
        let hint = interim(StatusCode::EARLY_HINTS, &SAID);
        respond.send_informational(hint).unwrap();
    }
    let working = interim(StatusCode::PROCESSING, &[]);
    respond.send_informational(working).unwrap();
    let body = read(&mut request.into_body()).await;
    go_on.notified().await;
    let mut response = Response::new(());
    let length = HeaderValue::from(body.len());
    response.headers_mut().insert("content-length", length);
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

/// The next interim response; `None`: the final one comes next.
async fn interim(response: &mut ResponseFuture) -> Option<(StatusCode, HeaderMap)> {
    let interim = poll_fn(|cx| response.poll_informational(cx)).await?;
    let (head, ()) = interim.unwrap().into_parts();
    Some((head.status, head.headers))
}

impl Connection {
    async fn begin(
        &self,
        request: Request<()>,
        ended: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        sender.send_request(request, ended).unwrap()
    }
}

fn get() -> Request<()> {
    let request = Request::get("https://localhost/");
    let request = request.header("authorization", format!("Bearer {}", token("a", 60)));
    request.body(()).unwrap()
}

/// An upload whose body waits to be asked for.
fn upload(token: &str) -> Request<()> {
    let request = Request::post("https://localhost/")
        .header("authorization", format!("Bearer {token}"))
        .header("expect", "100-Continue")
        .header("content-length", 7);
    request.body(()).unwrap()
}

#[tokio::test]
async fn interim_responses_reach_clients_of_http1() {
    for version in VERSIONS {
        let upstream = Speaker::start(version, 2).await;
        let world = upstream.world(version).await;
        let mut client = world.connect().await;
        for _ in 0..2 {
            let token = token("a", 60);
            let head = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
            client.write(format!("GET / HTTP/1.1\r\n{head}")).await;
            for expected in [HINT, HINT, "HTTP/1.1 102 Processing\r\n\r\n"] {
                assert_eq!(client.head().await, expected, "{version:?}");
            }
            upstream.go_on.notify_one();
            assert_eq!(client.answer().await.status, 200);
        }
    }
}

#[tokio::test]
async fn interim_responses_reach_clients_of_http2() {
    for version in VERSIONS {
        let upstream = Speaker::start(version, 2).await;
        let world = upstream.world(version).await;
        let connection = world.http2().await;
        for _ in 0..2 {
            let (mut response, _) = connection.begin(get(), true).await;
            for _ in 0..2 {
                let (status, fields) = interim(&mut response).await.unwrap();
                assert_eq!(status, StatusCode::EARLY_HINTS, "{version:?}");
                let fields: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(fields, ["link", "x-more"], "{version:?}");
            }
            let (status, fields) = interim(&mut response).await.unwrap();
            assert_eq!((status, fields.len()), (StatusCode::PROCESSING, 0));
            upstream.go_on.notify_one();
            assert!(interim(&mut response).await.is_none());
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn clients_of_http_1_0_get_none() {
    for version in VERSIONS {
        let upstream = Speaker::start(version, 1).await;
        let world = upstream.world(version).await;
        let mut client = world.connect().await;
        upstream.go_on.notify_one();
        let token = token("a", 60);
        let head = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        client.write(format!("GET / HTTP/1.0\r\n{head}")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    }
}

#[tokio::test]
async fn more_than_a_client_can_want_is_dropped() {
    const MOST: usize = 64 * 1024;
    const SAID: usize = 2_000;
    for version in VERSIONS {
        let upstream = Speaker::start(version, SAID).await;
        let world = upstream.world(version).await;
        upstream.go_on.notify_one();
        let connection = world.http2().await;
        let (mut response, _) = connection.begin(get(), true).await;
        let (mut came, mut length) = (0, 0);
        while let Some((_, fields)) = interim(&mut response).await {
            came += 1;
            let lengths = fields
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len());
            length += lengths.sum::<usize>();
        }
        assert!(
            came < SAID && length > MOST / 4 && length <= MOST,
            "{came}: {length}"
        );
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_taken() {
    for version in VERSIONS {
        let upstream = Speaker::start(version, 0).await;
        let world = upstream.world(version).await;
        upstream.go_on.notify_one();
        let connection = world.http2().await;
        let (mut response, mut stream) = connection.begin(upload(&token("a", 60)), false).await;
        let mut asked = false;
        // The upstream's own interim response may come before.
        while !asked {
            let (status, fields) = interim(&mut response).await.unwrap();
            asked = status == StatusCode::CONTINUE && fields.is_empty();
        }
        stream.send_data("content".into(), true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(read(response.body_mut()).await, "content");

        upstream.go_on.notify_one();
        let mut client = world.connect().await;
        let token = token("a", 60);
        client
            .write(format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
                 Expect: 100-continue\r\nContent-Length: 7\r\n\r\n"
            ))
            .await;
        while client.head().await != "HTTP/1.1 100 Continue\r\n\r\n" {}
        client.write("content").await;
        let mut head = client.head().await;
        while head.starts_with("HTTP/1.1 102 ") {
            head = client.head().await;
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(client.exactly(7).await, b"content");
    }
}

#[tokio::test]
async fn a_body_that_nobody_takes_is_not_asked_for() {
    let nowhere = Speaker {
        // Nobody listens there.
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        go_on: Arc::default(),
    };
    for version in VERSIONS {
        let world = nowhere.world(version).await;
        let connection = world.http2().await;
        for (token, expected) in [
            ("no.such.token".to_owned(), StatusCode::UNAUTHORIZED),
            (token("a", 60), StatusCode::BAD_GATEWAY),
        ] {
            let (mut response, _stream) = connection.begin(upload(&token), false).await;
            assert!(interim(&mut response).await.is_none());
            assert_eq!(response.await.unwrap().status(), expected);
        }
    }
}
