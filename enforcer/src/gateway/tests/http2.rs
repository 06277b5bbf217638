//! HTTP/2 towards clients.

use std::time::Duration;

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::harness::{EchoUpstream, World, read_head, token};
use crate::{
    channel::{Refusal, ToWarden},
    clock::boot_now,
};

/// A connection and, in the background, its end.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) end: JoinHandle<Result<(), h2::Error>>,
}

impl World {
    pub(super) async fn http2(&self) -> Connection {
        let (sender, driver) = client::handshake(self.connect2().await).await.unwrap();
        Connection {
            sender,
            end: tokio::spawn(driver),
        }
    }
}

impl Connection {
    async fn send(&self, request: Request<()>) -> Response<RecvStream> {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        response.await.unwrap()
    }

    pub(super) async fn get(&self, token: &str) -> Response<RecvStream> {
        self.send(get(token)).await
    }

    /// Waits for the end: an orderly one after a GOAWAY is `Ok`.
    async fn end(self) -> Result<(), h2::Error> {
        let end = tokio::time::timeout(Duration::from_secs(5), self.end);
        end.await.expect("the connection stays open").unwrap()
    }
}

fn get(token: &str) -> Request<()> {
    let request = Request::get("https://localhost/x?y=1");
    let request = request.header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap()
}

pub(super) fn call(token: &str) -> Request<()> {
    let request = Request::post("https://localhost/echo.Echo/Talk")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    request.body(()).unwrap()
}

pub(super) async fn read(body: &mut RecvStream) -> String {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).unwrap()
}

/// An upstream for one connection.
async fn upstream<F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> std::net::SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    address
}

#[tokio::test]
async fn many_requests_of_a_session_share_a_connection() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let connection = world.http2().await;
    let token = token("a", 60);
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let (mut sender, request) = (connection.sender.clone(), get(&token));
            tokio::spawn(async move {
                sender = sender.ready().await.unwrap();
                let (response, _) = sender.send_request(request, true).unwrap();
                response.await.unwrap()
            })
        })
        .collect();
    for request in requests {
        let mut response = request.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key("session-expires-in"));
        let head = read(response.body_mut()).await;
        assert!(head.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: localhost\r\n"), "{head}");
        assert!(!head.contains("authorization"), "{head}");
    }
    let heard = world.warden.heard();
    let opens = heard
        .iter()
        .filter(|message| matches!(message, ToWarden::Open { .. }));
    assert_eq!(opens.count(), 1);
}

#[tokio::test]
async fn another_session_is_misdirected_and_ends_the_connection() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let connection = world.http2().await;
    assert_eq!(
        connection.get(&token("a", 90)).await.status(),
        StatusCode::OK
    );
    let response = connection.get(&token("b", 60)).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(!response.headers().contains_key("connection"));
    connection.end().await.unwrap();
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_to_others() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let connection = world.http2().await;
    let response = connection.get("no.such.token").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let token = token("a", 60);
    let mut other = get(&token);
    other.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(
        connection.send(other).await.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(connection.get(&token).await.status(), StatusCode::OK);
    *world.warden.refuse.lock().unwrap() = Some(Refusal::Capacity);
    assert_eq!(connection.get(&token).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn options_of_the_server_itself_are_said_to_anybody() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let connection = world.http2().await;
    let target = Uri::builder().scheme("https").authority("localhost");
    let mut request = Request::new(());
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = target.path_and_query("*").build().unwrap();
    let response = connection.send(request).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(response.headers().contains_key("allow"));
    assert!(response.body().is_end_stream());
    assert_eq!(*upstream.connections.lock().unwrap(), 0);
}

/// RFC 9113, section 8.2.1: an HTTP/1.1 upstream would not see the space.
#[tokio::test]
async fn a_value_with_space_around_it_is_malformed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::simple(listener.local_addr().unwrap()).await;
    let connection = world.http2().await;
    let token = token("a", 60);
    for value in [" v", "v ", "\tv", "v\t", " "] {
        let mut request = get(&token);
        let value = value.parse().unwrap();
        request.headers_mut().insert("x-a", value);
        let response = connection.send(request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
    heard_refusal(&world, "bad_request").await;

    let mut request = get(&token);
    *request.method_mut() = Method::POST;
    let mut sender = connection.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_head(&mut upstream).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("sum", " 6".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let mut rest = Vec::new();
    let _ = upstream.read_to_end(&mut rest).await;
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        !rest.ends_with("0\r\n\r\n") && !rest.contains("sum"),
        "{rest}"
    );
    assert_eq!(response.await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let connection = world.http2().await;
    for (token, status) in [("no.such.token", 401), (&token("a", 60), 200)] {
        let mut request = get(token);
        *request.method_mut() = Method::HEAD;
        let response = connection.send(request).await;
        assert_eq!(response.status().as_u16(), status);
        let length = &response.headers()["content-length"];
        assert_ne!(length, "0");
        assert!(
            response.headers()["date"]
                .to_str()
                .unwrap()
                .ends_with(" GMT")
        );
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test]
async fn trailers_pass_to_the_client() {
    let address = upstream(async |mut stream: TcpStream| {
        read_head(&mut stream).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n\
                      3\r\nabc\r\n0\r\nSum: 6\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let world = World::simple(address).await;
    let mut response = world.http2().await.get(&token("a", 60)).await;
    assert_eq!(read(response.body_mut()).await, "abc");
    let trailers = response.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["sum"], "6");
}

fn assert_farewell(trailers: &HeaderMap) {
    assert_eq!(trailers["grpc-status"], "16");
    assert_eq!(trailers["grpc-message"], "session expired");
}

#[tokio::test]
async fn a_farewell_ends_a_call_with_its_status_and_the_connection() {
    let address = upstream(async |mut stream: TcpStream| {
        read_head(&mut stream).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n\
                      Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let world = World::simple(address).await;
    let connection = world.http2().await;
    let mut response = connection.send(call(&token("a", 60))).await;
    let data = response.body_mut().data().await.unwrap().unwrap();
    assert_eq!(data, "abc");
    world.warden.farewell(Duration::from_secs(5)).await;
    assert!(response.body_mut().data().await.is_none());
    let trailers = response.body_mut().trailers().await.unwrap().unwrap();
    assert_farewell(&trailers);
    connection.end().await.unwrap();
}

#[tokio::test]
async fn a_farewell_ends_a_call_without_an_answer() {
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let address = upstream(async move |mut stream: TcpStream| {
        read_head(&mut stream).await.unwrap();
        asked.send(()).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let world = World::simple(address).await;
    let connection = world.http2().await;
    let mut sender = connection.sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(call(&token("a", 60)), true).unwrap();
    was_asked.await.unwrap();
    world.warden.farewell(Duration::from_secs(5)).await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    assert_farewell(response.headers());
}

#[tokio::test]
async fn an_ended_session_resets_the_connection() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let connection = world.http2().await;
    assert_eq!(
        connection.get(&token("a", 60)).await.status(),
        StatusCode::OK
    );
    world.warden.end().await;
    assert!(connection.end().await.unwrap_err().is_io());
}

/// Neither what keeps a connection alive is, nor what the upstream says.
#[tokio::test]
async fn what_the_client_says_is_activity_and_nothing_else() {
    const INTERVAL: Duration = Duration::from_millis(1100);
    let address = upstream(async |mut stream: TcpStream| {
        read_head(&mut stream).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(&[0; 4096]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let world = World::simple(address).await;
    let (sender, mut driver) = client::handshake(world.connect2().await).await.unwrap();
    let mut pings = driver.ping_pong().unwrap();
    let (settings, mut windows) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                // Not while the last ones are under way.
                Some(window) = windows.recv() => drop(driver.set_initial_window_size(window)),
                result = &mut driver => return result,
            }
        }
    });
    let mut request = get(&token("a", 60));
    *request.method_mut() = Method::POST;
    let mut sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(world.warden.touches(), 1);
    let end = boot_now().saturating_add(2 * INTERVAL);
    for window in (60_000..).take_while(|_| boot_now() < end) {
        settings.send(window).unwrap();
        pings.ping(h2::Ping::opaque()).await.unwrap();
        let data = response.body_mut().data().await.unwrap().unwrap();
        let flow = response.body_mut().flow_control();
        flow.release_capacity(data.len()).unwrap();
    }
    assert_eq!(world.warden.touches(), 1);
    stream.send_data("up".into(), false).unwrap();
    let touched = async {
        while world.warden.touches() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(INTERVAL, touched).await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_is_not_written_to() {
    const MOST: usize = 8 * 1024 * 1024;
    let (written, total) = tokio::sync::watch::channel(0);
    let address = upstream(async move |mut stream: TcpStream| {
        read_head(&mut stream).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(&[0; 16 * 1024]).await.is_ok() {
            written.send_modify(|total| *total += 16 * 1024);
        }
    })
    .await;
    let world = World::simple(address).await;
    let connection = world.http2().await;
    let token = token("a", 60);
    let mut response = connection.get(&token).await;
    // Until the upstream is stuck.
    let mut last = usize::MAX;
    while last != *total.borrow() {
        last = *total.borrow();
        assert!(last < MOST, "{last} bytes for a client that reads none");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for _ in 0..100 {
        let data = response.body_mut().data().await.unwrap().unwrap();
        let flow = response.body_mut().flow_control();
        flow.release_capacity(data.len()).unwrap();
    }
    assert!(*total.borrow() > last);
}

#[tokio::test]
async fn who_is_not_read_from_does_not_send() {
    const MOST: usize = 8 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::simple(listener.local_addr().unwrap()).await;
    let connection = world.http2().await;
    let mut request = get(&token("a", 60));
    *request.method_mut() = Method::POST;
    let mut sender = connection.sender.clone().ready().await.unwrap();
    let (_response, mut stream) = sender.send_request(request, false).unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_head(&mut upstream).await.unwrap();
    let mut sent = 0;
    let room = async |stream: &mut SendStream<Bytes>| {
        stream.reserve_capacity(16 * 1024);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        room.unwrap().unwrap()
    };
    let second = Duration::from_secs(1);
    while let Ok(room) = tokio::time::timeout(second, room(&mut stream)).await {
        stream.send_data(vec![0; room].into(), false).unwrap();
        sent += room;
        assert!(sent < MOST, "{sent} bytes for an upstream that reads none");
    }
    tokio::spawn(async move {
        let mut taken = vec![0; 64 * 1024];
        while upstream.read(&mut taken).await.unwrap() > 0 {}
    });
    room(&mut stream).await;
}

#[tokio::test]
async fn who_only_gives_up_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::simple(listener.local_addr().unwrap()).await;
    let connection = world.http2().await;
    let token = token("a", 60);
    for _ in 0..200 {
        let Ok(mut sender) = connection.sender.clone().ready().await else {
            break;
        };
        let Ok((_, mut stream)) = sender.send_request(get(&token), false) else {
            break;
        };
        // The gateway takes it up.
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.send_reset(Reason::CANCEL);
    }
    let end = connection.end().await.unwrap_err();
    assert_eq!(end.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{end}");
    heard_refusal(&world, "too_many_given_up").await;
}

#[tokio::test]
async fn a_rapid_reset_is_a_violation() {
    const FRAMES: u32 = 500;
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut stream = world.connect2().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for id in (0..FRAMES).map(|number| 2 * number + 1) {
        // :method GET, :scheme https, :path /, :authority "a"; then CANCEL.
        bytes.extend_from_slice(&[0, 0, 6, 1, 5]);
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(b"\x82\x87\x84\x41\x01a");
        bytes.extend_from_slice(&[0, 0, 4, 3, 0]);
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&8_u32.to_be_bytes());
    }
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
    // How it ends is the kernel's to choose, as frames may have been left unread.
    let _ = read.await.expect("the connection stays open");
    assert!(
        answer.windows(4).any(|four| four == [0, 0, 0, 0xb]),
        "no ENHANCE_YOUR_CALM"
    );
    heard_refusal(&world, "http2_violation").await;
}

async fn heard_refusal(world: &World, code: &str) {
    let is_refusal = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(refused) if refused.code == code);
    world.warden.hears(is_refusal).await;
}
