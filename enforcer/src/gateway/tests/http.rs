//! Requests and their answers.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::harness::{EchoUpstream, World, expiry, read_head, token};
use crate::{
    channel::{Refusal, ToWarden},
    config::{Route, UpstreamPool},
    gateway::http::route::tests::route,
    session::EndReason,
};

fn opens(heard: &[ToWarden]) -> usize {
    let is_open = |message: &&ToWarden| matches!(message, ToWarden::Open { .. });
    heard.iter().filter(is_open).count()
}

#[tokio::test]
async fn a_request_reaches_its_upstream_with_a_session() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut client = world.connect().await;
    let token = token("a", 60);
    for _ in 0..3 {
        let answer = client.get("/x?y=1", &token).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with("GET /x?y=1 HTTP/1.1\r\n"));
        assert!(answer.body.contains("host: localhost\r\n"));
        assert!(answer.body.contains("x-enforcer-subject: alice\r\n"));
        assert!(!answer.body.contains("authorization"));
        assert_eq!(answer.header("alt-svc"), None);
        assert_eq!(answer.header("session-idle-timeout"), Some("300"));
        let left: u64 = answer
            .header("session-expires-in")
            .unwrap()
            .parse()
            .unwrap();
        assert!((50..=60).contains(&left));
    }
    assert_eq!(opens(&world.warden.heard()), 1);
    assert_eq!(*upstream.connections.lock().unwrap(), 1);
    world
        .warden
        .hears(|message| matches!(message, ToWarden::Touch { .. }))
        .await;
}

/// RFC 9110, section 9.3.7.
#[tokio::test]
async fn options_of_the_server_itself_are_said_to_anybody() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut client = world.connect().await;
    client
        .write("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 204);
    let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_eq!(answer.header("allow"), Some(methods));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(*upstream.connections.lock().unwrap(), 0);
    // The connection goes on; those of a resource are the upstream's; and nothing else is `*`.
    let valid = token("a", 60);
    client
        .write(format!(
            "OPTIONS /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {valid}\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert!(answer.body.starts_with("OPTIONS /x HTTP/1.1"), "{answer:?}");
    assert_eq!(client.get("*", &valid).await.code(), "invalid_path");
}

#[tokio::test]
async fn who_shows_no_valid_token_gets_no_further() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut client = world.connect().await;
    client
        .write("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &*answer.code()), (401, "missing_token"));
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"enforcer\"")
    );
    let answer = client.get("/", "x.y.z").await;
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .contains("error=\"invalid_token\"")
    );
    let valid = token("a", 60);
    client
        .write(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {valid}\r\n\
             Authorization: Bearer {valid}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(*upstream.connections.lock().unwrap(), 0);
    world
        .warden
        .hears(|message| {
            matches!(message, ToWarden::RefusedRequest(refused) if refused.code == "missing_token")
        })
        .await;
}

#[tokio::test]
async fn doubtful_framing_is_answered_after_what_came_before() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let good =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    let lines = format!("POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
    for (shape, status) in [
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled",
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("X: a\n\r\n", 400),
        ("Host: other\r\n\r\n", 400),
    ] {
        let mut client = world.connect().await;
        client.write(format!("{good}{lines}{shape}")).await;
        assert_eq!(client.answer().await.status, 200, "{shape:?}");
        let answer = client.answer().await;
        assert_eq!((answer.status, &*answer.code()), (status, "bad_request"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.rest().await, (Vec::new(), true), "{shape:?}");
    }
    let mut client = world.connect().await;
    let big = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}",
        "x".repeat(100_000)
    );
    client.write(big).await;
    assert_eq!(client.answer().await.status, 431);
    world
        .warden
        .hears(|message| {
            matches!(message, ToWarden::RefusedRequest(refused) if refused.code == "header_too_large")
        })
        .await;
}

#[tokio::test]
async fn a_connection_belongs_to_its_first_session() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token("a", 60)).await.status, 200);
    // The same principal's newer token is a renewal, an older one another session.
    assert_eq!(client.get("/", &token("b", 90)).await.status, 200);
    assert_eq!(client.get("/", &token("a", 60)).await.status, 200);
    let renewals: Vec<_> = world
        .warden
        .heard()
        .iter()
        .filter(|message| matches!(message, ToWarden::Renew { .. }))
        .filter_map(expiry)
        .collect();
    assert_eq!(renewals.len(), 1);
    let answer = client.get("/", &token("c", 30)).await;
    assert_eq!((answer.status, &*answer.code()), (421, "another_session"));
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn a_stricter_route_joins_its_policy_once() {
    let upstream = EchoUpstream::start().await;
    let strict = Route {
        policies: vec!["strict".to_owned()],
        ..route("public", None, "/admin")
    };
    let world = World::new(upstream.address, vec![route("public", None, "/"), strict]).await;
    let mut client = world.connect().await;
    let token = token("a", 60);
    for path in ["/", "/admin", "/admin", "/"] {
        assert_eq!(client.get(path, &token).await.status, 200);
    }
    assert_eq!(opens(&world.warden.heard()), 2);

    *world.warden.refuse.lock().unwrap() = Some(Refusal::SessionTooOld);
    let mut client = world.connect().await;
    let answer = client.get("/admin", &token).await;
    assert_eq!((answer.status, &*answer.code()), (401, "session_too_old"));
    for (refusal, status) in [
        (Refusal::SessionEnded(EndReason::Idle), 401),
        (Refusal::Capacity, 503),
    ] {
        *world.warden.refuse.lock().unwrap() = Some(refusal);
        let mut client = world.connect().await;
        assert_eq!(client.get("/", &token).await.status, status);
    }
}

#[tokio::test]
async fn what_leads_nowhere_says_so() {
    let upstream = EchoUpstream::start().await;
    let world = World::new(upstream.address, vec![route("public", None, "/api")]).await;
    let token = token("a", 60);
    for (path, status, code) in [
        ("/other", 404, "not_found"),
        ("/api/../x", 400, "invalid_path"),
        ("/api/%2e%2e/x", 400, "invalid_path"),
        ("/x%2fapi", 404, "not_found"),
        ("/%2fapi", 400, "ambiguous_path"),
    ] {
        // A malformed request is the last of its connection.
        let answer = world.connect().await.get(path, &token).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{path}");
    }
    let mut client = world.connect().await;
    client
        .write("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 405);
    let mut client = world.connect().await;
    client
        .write("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 501);
}

#[tokio::test]
async fn health_needs_no_token() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    for (path, status) in [("live", 200), ("ready", 200), ("fault", 404)] {
        let mut client = world.connect().await;
        client
            .write(format!(
                "GET /.well-known/enforcer/health/{path} HTTP/1.1\r\nHost: x\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, status);
    }
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const SIZE: usize = 40 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked"));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let mut body = vec![0; 64 << 10];
        let mut received = 0;
        while received < SIZE {
            received += stream.read(&mut body).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        for _ in 0..SIZE / body.len() {
            stream.write_all(&body).await.unwrap();
        }
        // Open until the client has read everything.
        let _ = stream.read(&mut body).await;
    });
    let world = World::simple(address).await;
    let mut client = world.connect().await;
    client
        .write(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
            token("a", 60)
        ))
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    let chunk = [b"10000\r\n".to_vec(), vec![0; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..SIZE / 0x10000 {
        client.write(&chunk).await;
    }
    client.write("0\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for _ in 0..SIZE / 0x10000 {
        assert_eq!(client.exactly(0x10000).await.len(), 0x10000);
    }
}

#[tokio::test]
async fn an_upstream_that_fails_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let quick = Route {
        response_timeout: Duration::from_millis(300),
        ..route("public", None, "/")
    };
    let world = World::new(address, vec![quick]).await;
    let token = token("a", 60);
    let mut client = world.connect().await;

    let answer = client.get("/slow", &token).await;
    assert_eq!((answer.status, &*answer.code()), (504, "upstream_timeout"));
    let _slow = listener.accept().await.unwrap();

    let closing = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
    };
    let (answer, ()) = tokio::join!(client.get("/early", &token), closing);
    assert_eq!((answer.status, &*answer.code()), (502, "upstream_closed"));

    let garbage = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"hello\r\n\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(client.get("/garbage", &token), garbage);
    assert_eq!((answer.status, &*answer.code()), (502, "upstream_invalid"));

    drop(listener);
    let answer = client.get("/down", &token).await;
    assert_eq!(
        (answer.status, &*answer.code()),
        (502, "upstream_unreachable")
    );
}

#[tokio::test]
async fn a_request_that_an_idle_connection_lost_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (mut first, _) = listener.accept().await.unwrap();
        read_head(&mut first).await.unwrap();
        first.write_all(answer).await.unwrap();
        read_head(&mut first).await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        read_head(&mut second).await.unwrap();
        second.write_all(answer).await.unwrap();
    });
    let world = World::simple(address).await;
    let mut client = world.connect().await;
    let token = token("a", 60);
    assert_eq!(client.get("/", &token).await.status, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.get("/", &token).await.status, 200);
    upstream.await.unwrap();
}

#[tokio::test]
async fn a_sessions_own_connection_is_bound_before_its_first_byte() {
    let upstream = EchoUpstream::start().await;
    let own = Route {
        upstream_pool: UpstreamPool::Session,
        ..route("public", None, "/")
    };
    let world = World::new(upstream.address, vec![own]).await;
    let mut client = world.connect().await;
    let token = token("a", 60);
    assert_eq!(client.get("/", &token).await.status, 200);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.get("/", &token).await.status, 200);
    let is_bind = |message: &&ToWarden| matches!(message, ToWarden::Bind { .. });
    assert_eq!(world.warden.heard().iter().filter(is_bind).count(), 1);
    assert_eq!(*upstream.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn responses_without_a_body_pass_as_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(head) = read_head(&mut stream).await {
            let answer: &[u8] = match head.split(' ').next() {
                Some("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Some("DELETE") => b"HTTP/1.1 204 No Content\r\n\r\n",
                _ => b"HTTP/1.1 304 Not Modified\r\n\r\n",
            };
            stream.write_all(answer).await.unwrap();
        }
    });
    let world = World::simple(address).await;
    let mut client = world.connect().await;
    let token = token("a", 60);
    for (method, status, length) in [
        ("HEAD", "200", true),
        ("DELETE", "204", false),
        ("GET", "304", false),
    ] {
        client
            .write(format!(
                "{method} / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(head.split(' ').nth(1), Some(status));
        assert_eq!(head.contains("content-length: 5\r\n"), length, "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("te: trailers\r\n"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"sum: 1\r\n\r\n") {
            body.push(stream.read_u8().await.unwrap());
        }
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n\
                  1\r\nx\r\n0\r\nSum: 2\r\n\r\n",
            )
            .await
            .unwrap();
    });
    let world = World::simple(address).await;
    let mut client = world.connect().await;
    client
        .write(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nTE: trailers\r\n\
             Connection: TE\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\ny\r\n0\r\nSum: 1\r\n\r\n",
            token("a", 60)
        ))
        .await;
    client.head().await;
    let body = b"1\r\nx\r\n0\r\nsum: 2\r\n\r\n";
    assert_eq!(client.exactly(body.len()).await, body);
    upstream.await.unwrap();
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_so() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(answer.contains("this port speaks TLS"));

    // A record that is none, and a ClientHello that is none.
    for garbage in [&[0x99; 16][..], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0xff]] {
        let mut client = TcpStream::connect(world.address).await.unwrap();
        client.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&0x15), "an alert");
    }
    for code in ["plain_http", "tls_failed"] {
        world
            .warden
            .hears(|message| {
                matches!(message, ToWarden::RefusedRequest(refused) if refused.code == code)
            })
            .await;
    }
}
