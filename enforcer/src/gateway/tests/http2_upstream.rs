//! HTTP/2 towards upstreams.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, Reason, SendStream, client::ResponseFuture, server};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::{
    harness::{World, token},
    http2::{Connection, call, read},
};
use crate::{
    channel::ToWarden,
    config::{HttpVersion, Route, Upstream, UpstreamPool},
    gateway::http::route::tests::route,
};

/// An upstream that echoes bodies, chunk by chunk, with the method and path as trailers.
struct EchoUpstream {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// How the client's side of each request ended, if it was reset.
    resets: Arc<Mutex<Vec<Reason>>>,
    /// A connection says GOAWAY when it is told to leave, and tells when that has been heard.
    leave: Arc<Notify>,
    left: Arc<Notify>,
}

impl EchoUpstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            resets: Arc::default(),
            leave: Arc::default(),
            left: Arc::default(),
        };
        let (connections, resets) = (
            Arc::clone(&upstream.connections),
            Arc::clone(&upstream.resets),
        );
        let (leave, left) = (Arc::clone(&upstream.leave), Arc::clone(&upstream.left));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let resets = Arc::clone(&resets);
                let (leave, left) = (Arc::clone(&leave), Arc::clone(&left));
                connections.lock().unwrap().push(tokio::spawn(async move {
                    let mut connection = server::handshake(stream).await.unwrap();
                    let mut pings = connection.ping_pong().unwrap();
                    loop {
                        tokio::select! {
                            next = connection.accept() => match next {
                                Some(Ok((request, respond))) => {
                                    tokio::spawn(echo(request, respond, Arc::clone(&resets)));
                                }
                                _ => return,
                            },
                            () = leave.notified() => {
                                connection.graceful_shutdown();
                                pings.send_ping(Ping::opaque()).unwrap();
                            }
                            Ok(_) = poll_fn(|cx| pings.poll_pong(cx)) => left.notify_one(),
                        }
                    }
                }));
            }
        });
        upstream
    }

    fn route(&self, sharing: UpstreamPool) -> Route {
        let route = route("public", None, "/");
        Route {
            upstream: Upstream {
                version: HttpVersion::Http2,
                ..route.upstream
            },
            upstream_pool: sharing,
            ..route
        }
    }

    async fn world(&self, sharing: UpstreamPool) -> World {
        World::new(self.address, vec![self.route(sharing)]).await
    }

    fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }
}

async fn echo(
    request: Request<h2::RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    resets: Arc<Mutex<Vec<Reason>>>,
) {
    let target = format!("{} {}", request.method(), request.uri());
    let (head, mut body) = request.into_parts();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => return resets.lock().unwrap().extend(error.reason()),
        };
        body.flow_control().release_capacity(data.len()).unwrap();
        stream.send_data(data, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("target", target.parse().unwrap());
    if let Some(te) = head.headers.get("te") {
        trailers.insert("te", te.clone());
    }
    if let Some(sum) = body.trailers().await.unwrap() {
        trailers.extend(sum);
    }
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn calls_stream_both_ways_with_trailers_on_one_connection() {
    let upstream = EchoUpstream::start().await;
    let world = upstream.world(UpstreamPool::Shared).await;
    for jti in ["a", "b", "c"] {
        let connection = world.http2().await;
        let mut sender = connection.sender.ready().await.unwrap();
        let (response, mut stream) = sender.send_request(call(&token(jti, 60)), false).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        // Each chunk comes back before the next one is sent.
        for chunk in ["one", "two"] {
            stream.send_data(chunk.into(), false).unwrap();
            let echoed = response.body_mut().data().await.unwrap().unwrap();
            assert_eq!(echoed, chunk);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("sum", "6".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        assert_eq!(read(response.body_mut()).await, "");
        let trailers = response.body_mut().trailers().await.unwrap().unwrap();
        assert_eq!(trailers["target"], "POST http://localhost/echo.Echo/Talk");
        assert_eq!(
            (&trailers["te"], &trailers["sum"]),
            (&"trailers".parse().unwrap(), &"6".parse().unwrap())
        );
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn requests_of_http1_pass() {
    let upstream = EchoUpstream::start().await;
    let world = upstream.world(UpstreamPool::Shared).await;
    let mut client = world.connect().await;
    client
        .write(format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 3\r\nConnection: close\r\n\r\nabc",
            token("a", 60)
        ))
        .await;
    let (answer, orderly) = client.rest().await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        orderly && answer.starts_with("HTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\n3\r\nabc\r\n"), "{answer}");
    // An upgrade has no meaning there.
    let mut client = world.connect().await;
    client
        .write(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            token("a", 60)
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, &*answer.code()),
        (501, "websocket_not_served")
    );
}

#[tokio::test]
async fn a_closed_connection_is_made_anew() {
    let upstream = EchoUpstream::start().await;
    let world = upstream.world(UpstreamPool::Shared).await;
    let connection = world.http2().await;
    let token = token("a", 60);
    assert_eq!(connection.get(&token).await.status(), StatusCode::OK);
    upstream.connections.lock().unwrap()[0].abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(connection.get(&token).await.status(), StatusCode::OK);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_ended_session_resets_its_requests_and_no_others() {
    let upstream = EchoUpstream::start().await;
    let world = upstream.world(UpstreamPool::Shared).await;
    let ending = world.http2().await;
    let mut sender = ending.sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(call(&token("a", 60)), false).unwrap();
    let _response = response.await.unwrap();
    stream.send_data("one".into(), false).unwrap();
    world.warden.end().await;
    for _ in 0..200 {
        if !upstream.resets.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.resets.lock().unwrap().len(), 1);
    let connection = world.http2().await;
    assert_eq!(
        connection.get(&token("b", 60)).await.status(),
        StatusCode::OK
    );
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_sessions_own_connection_is_bound() {
    let upstream = EchoUpstream::start().await;
    let world = upstream.world(UpstreamPool::Session).await;
    for jti in ["a", "b", "a"] {
        let connection = world.http2().await;
        assert_eq!(
            connection.get(&token(jti, 60)).await.status(),
            StatusCode::OK
        );
    }
    assert_eq!(upstream.connections(), 2);
    let heard = world.warden.heard();
    let binds = heard
        .iter()
        .filter(|message| matches!(message, ToWarden::Bind { .. }));
    assert_eq!(binds.count(), 2);
}

/// A request at an upstream: its body, and what answers it.
type Asked = (h2::RecvStream, server::SendResponse<Bytes>);

/// An upstream for one connection, which takes so many requests at once and answers none.
async fn silent(most: u32) -> (World, mpsc::UnboundedReceiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut builder = server::Builder::new();
        // One that it does not take leaves room for others.
        builder.initial_connection_window_size(1024 * 1024);
        let handshake = builder.max_concurrent_streams(most).handshake(stream);
        let mut connection = handshake.await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            requests.send((request.into_body(), respond)).unwrap();
        }
    });
    let upstream = EchoUpstream::start().await;
    let world = World::new(address, vec![upstream.route(UpstreamPool::Shared)]).await;
    (world, asked)
}

fn get(token: &str) -> Request<()> {
    let request = Request::get("https://localhost/");
    let request = request.header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap()
}

/// Begins a request that has no body.
async fn begin(connection: &Connection, jti: &str) -> ResponseFuture {
    let mut sender = connection.sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(get(&token(jti, 60)), true).unwrap();
    response
}

#[tokio::test]
async fn a_request_that_is_given_up_is_given_up_upstream() {
    let (world, mut asked) = silent(100).await;
    let connection = world.http2().await;
    for ended in [true, false] {
        let mut sender = connection.sender.clone().ready().await.unwrap();
        let begun = sender.send_request(get(&token("a", 60)), ended);
        let (_response, mut stream) = begun.unwrap();
        let (_, mut request) = asked.recv().await.unwrap();
        stream.send_reset(Reason::CANCEL);
        let reset = poll_fn(|cx| request.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, Reason::CANCEL);
    }
    // It is not recorded as refused, which another one is.
    connection.get("no.such.token").await;
    let is_refusal = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(_));
    world.warden.hears(is_refusal).await;
    let heard = world.warden.heard();
    assert_eq!(heard.iter().filter(|it| is_refusal(it)).count(), 1);
}

/// Sends as much as there is room for, until there is none for a second.
async fn fill(stream: &mut SendStream<Bytes>) -> usize {
    const MOST: usize = 8 * 1024 * 1024;
    let mut sent = 0;
    while let Ok(room) = tokio::time::timeout(Duration::from_secs(1), room(stream)).await {
        stream.send_data(vec![0; room].into(), false).unwrap();
        sent += room;
        assert!(sent < MOST, "{sent} bytes for a peer that reads none");
    }
    sent
}

async fn room(stream: &mut SendStream<Bytes>) -> usize {
    stream.reserve_capacity(16 * 1024);
    let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
    room.unwrap().unwrap()
}

/// Takes this much.
async fn take(body: &mut h2::RecvStream, length: usize) {
    let mut taken = 0;
    while taken < length {
        let data = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        taken += data.len();
    }
}

#[tokio::test]
async fn what_a_client_does_not_take_waits_in_the_upstream() {
    let (world, mut asked) = silent(100).await;
    let connection = world.http2().await;
    let response = begin(&connection, "a").await;
    let (_, mut request) = asked.recv().await.unwrap();
    let mut stream = request.send_response(Response::new(()), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    let sent = fill(&mut stream).await;
    // Others are not held back: on the client's connection, and on the upstream's.
    let other = world.http2().await;
    for (connection, jti) in [(&connection, "a"), (&other, "b")] {
        let response = begin(connection, jti).await;
        let (_, mut request) = asked.recv().await.unwrap();
        request.send_response(Response::new(()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }
    take(&mut body, sent).await;
    room(&mut stream).await;
}

#[tokio::test]
async fn what_an_upstream_does_not_take_waits_in_the_client() {
    let (world, mut asked) = silent(100).await;
    let connection = world.http2().await;
    let mut sender = connection.sender.clone().ready().await.unwrap();
    let begun = sender.send_request(call(&token("a", 60)), false);
    let (_response, mut stream) = begun.unwrap();
    let (mut body, _request) = asked.recv().await.unwrap();
    let sent = fill(&mut stream).await;
    let mut sender = connection.sender.clone().ready().await.unwrap();
    let (response, mut other) = sender.send_request(call(&token("a", 60)), false).unwrap();
    other.send_data("little".into(), true).unwrap();
    let (mut little, mut request) = asked.recv().await.unwrap();
    take(&mut little, 6).await;
    request.send_response(Response::new(()), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    take(&mut body, sent).await;
    room(&mut stream).await;
}

#[tokio::test]
async fn what_the_upstream_says_wrongly_does_not_pass() {
    let (world, mut asked) = silent(100).await;
    let connection = world.http2().await;
    for status in [StatusCode::EARLY_HINTS, StatusCode::OK] {
        let response = begin(&connection, "a").await;
        let (_, mut request) = asked.recv().await.unwrap();
        let padded = Response::builder().status(status).header("x", " y");
        let padded = padded.body(()).unwrap();
        match status.is_informational() {
            true => request.send_informational(padded).unwrap(),
            false => drop(request.send_response(padded, false).unwrap()),
        }
        assert_eq!(response.await.unwrap().status(), StatusCode::BAD_GATEWAY);
    }
    let response = begin(&connection, "a").await;
    let (_, mut request) = asked.recv().await.unwrap();
    let mut stream = request.send_response(Response::new(()), false).unwrap();
    let mut response = response.await.unwrap();
    let mut padded = HeaderMap::new();
    padded.insert("x", "y\t".parse().unwrap());
    stream.send_trailers(padded).unwrap();
    let error = match response.body_mut().data().await {
        Some(data) => data.unwrap_err(),
        None => response.body_mut().trailers().await.unwrap_err(),
    };
    assert!(error.is_reset(), "{error}");
}

#[tokio::test]
async fn requests_wait_for_their_turn() {
    let (world, mut asked) = silent(1).await;
    let connection = world.http2().await;
    let token = token("a", 60);
    let get = || {
        let (sender, request) = (connection.sender.clone(), get(&token));
        tokio::spawn(async move {
            let mut sender = sender.ready().await.unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            response.await.unwrap().status()
        })
    };
    // The gateway learns of the limit with the first.
    for number in 1..5 {
        let waiting = (0..number).map(|_| get()).collect::<Vec<_>>();
        for _ in 0..number {
            let (_, mut request) = asked.recv().await.unwrap();
            let others = tokio::time::timeout(Duration::from_millis(50), asked.recv());
            assert!(others.await.is_err(), "two at once");
            request.send_response(Response::new(()), true).unwrap();
        }
        for request in waiting {
            assert_eq!(request.await.unwrap(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_leaving_takes_no_more_requests() {
    let upstream = EchoUpstream::start().await;
    let world = upstream.world(UpstreamPool::Shared).await;
    let mut sender = world.http2().await.sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(call(&token("a", 60)), false).unwrap();
    let mut response = response.await.unwrap();
    upstream.leave.notify_one();
    upstream.left.notified().await;
    let connection = world.http2().await;
    let other = connection.get(&token("b", 60)).await;
    assert_eq!(
        (other.status(), upstream.connections()),
        (StatusCode::OK, 2)
    );
    // What was under way goes on.
    stream.send_data("late".into(), true).unwrap();
    assert_eq!(read(response.body_mut()).await, "late");
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_the_clients_fault() {
    let (world, mut asked) = silent(100).await;
    let mut client = world.connect().await;
    client
        .write(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 10\r\n\r\nabc",
            token("a", 60)
        ))
        .await;
    let (_, mut request) = asked.recv().await.unwrap();
    client.stream.shutdown().await.unwrap();
    let reset = poll_fn(|cx| request.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::INTERNAL_ERROR);
    let refused = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(refused) if refused.code == "incomplete_request");
    world.warden.hears(refused).await;
}
