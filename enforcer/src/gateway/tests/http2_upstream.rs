//! HTTP/2 towards upstreams.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, Response, StatusCode};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    harness::{World, token},
    http2::{call, read},
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
}

impl EchoUpstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            resets: Arc::default(),
        };
        let (connections, resets) = (
            Arc::clone(&upstream.connections),
            Arc::clone(&upstream.resets),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let resets = Arc::clone(&resets);
                connections.lock().unwrap().push(tokio::spawn(async move {
                    let mut connection = server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(echo(request, respond, Arc::clone(&resets)));
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
    request: http::Request<h2::RecvStream>,
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
