use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::server::TlsStream;

use super::*;
use crate::{
    config::ServerTls,
    gateway::{socket::Socket, tls},
};

const LONGEST: usize = 1000;

/// Answers each request on a connection of its own with what `answer` says to its first line.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Server {
    async fn new(answer: fn(&str, u16) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, pem: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let certificate = file("ca.pem", issued.cert.pem());
        let private_key = file("key.pem", issued.signing_key.serialize_pem());
        let acceptor = tls::load(
            &ServerTls {
                certificate,
                private_key,
                client: None,
            },
            &[b"http/1.1"],
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let shaken = tls::accept(&acceptor, &Socket::new(stream)).await;
                    let Ok(Some(mut stream)) = shaken else {
                        return;
                    };
                    let line = first_line(&mut stream).await;
                    log.lock().unwrap().push(line.clone());
                    let answer = answer(&line, address.port());
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.ends_with("...") {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self {
            address,
            asked,
            folder,
        }
    }

    fn url(&self, path: &str) -> Uri {
        let port = self.address.port();
        format!("https://localhost:{port}{path}").parse().unwrap()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn first_line(stream: &mut TlsStream<Socket>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap_or_default().to_owned()
}

fn settings(ca: &Path) -> config::Outbound {
    config::Outbound {
        ca: Some(ca.to_owned()),
        allow_networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        timeout: Duration::from_millis(500),
        ..config::Outbound::default()
    }
}

fn load(settings: &config::Outbound) -> Outbound {
    Outbound::load(settings, &mut NativeRoots::default()).unwrap()
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn redirect_to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn an_answer_comes_whole_from_a_server_that_is_verified() {
    let server = Server::new(|_, _| ok("{}")).await;
    let outbound = load(&settings(&server.ca()));
    let answer = outbound.get(&server.url("/x"), LONGEST).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"{}"[..])
    );
    assert_eq!(answer.headers[header::CONTENT_LENGTH], "2");
    assert_eq!(server.asked(), ["GET /x HTTP/1.1"]);
    let other = Server::new(|_, _| ok("{}")).await;
    let refused = outbound.get(&other.url("/x"), LONGEST).await;
    let refused = refused.unwrap_err();
    let untrusted = matches!(refused, OutboundError::Connect(ConnectError::Tls(..)));
    assert!(untrusted, "{refused}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn loopback_is_asked_only_where_it_is_allowed() {
    let server = Server::new(|_, _| ok("{}")).await;
    let outbound = load(&config::Outbound {
        allow_networks: Vec::new(),
        ..settings(&server.ca())
    });
    let port = server.address.port();
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ] {
        let url: Uri = format!("https://{host}:{port}/").parse().unwrap();
        let refused = outbound.get(&url, LONGEST).await.unwrap_err();
        let forbidden = matches!(refused, OutboundError::Connect(ConnectError::Forbidden(..)));
        assert!(forbidden, "{host}: {refused}");
    }
}

#[tokio::test]
async fn answers_that_are_too_long_or_too_slow_are_given_up() {
    let server = Server::new(|line, _| match line.split(' ').nth(1) {
        Some("/long") => ok(&"x".repeat(LONGEST + 1)),
        Some("/endless") => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(LONGEST + 1)),
        Some("/fits") => ok(&"x".repeat(LONGEST)),
        Some("/head") => format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
            "x".repeat(2 * LONGEST_HEAD)
        ),
        Some("/half") => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned(),
        Some("/slow") => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n...".to_owned(),
        _ => "HTTP/1.1 200 OK\r\nx: ...".to_owned(),
    })
    .await;
    let outbound = load(&settings(&server.ca()));
    assert!(outbound.get(&server.url("/fits"), LONGEST).await.is_ok());
    for (path, expected) in [
        ("/long", "longer than 1000 bytes"),
        ("/endless", "longer than 1000 bytes"),
        ("/head", "no answer that makes sense"),
        ("/half", "broke off"),
        ("/slow", "no answer in time"),
        ("/silent", "no answer in time"),
    ] {
        let error = outbound.get(&server.url(path), LONGEST).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{path}: {error}");
    }
}

#[tokio::test]
async fn redirects_keep_the_scheme_and_end() {
    let server = Server::new(|line, port| match line.split(' ').nth(1) {
        Some("/path") => redirect_to("/there#fragment"),
        Some("/url") => redirect_to(&format!("https://localhost:{port}/there")),
        Some("/plain") => redirect_to(&format!("http://localhost:{port}/there")),
        Some("/user") => redirect_to(&format!("https://me@localhost:{port}/there")),
        Some("/metadata") => redirect_to("https://169.254.169.254/latest"),
        Some("/round") => redirect_to("/round"),
        Some("/there") => ok("there"),
        _ => redirect_to("ftp://localhost/"),
    })
    .await;
    let outbound = load(&settings(&server.ca()));
    for path in ["/path", "/url"] {
        let answer = outbound.get(&server.url(path), LONGEST).await.unwrap();
        assert_eq!(&answer.body[..], b"there", "{path}");
    }
    for (path, expected) in [
        ("/plain", "no place to ask at"),
        ("/user", "no place to ask at"),
        ("/other", "no place to ask at"),
        ("/metadata", "169.254.169.254 is a link-local address"),
        ("/round", "redirects too often"),
    ] {
        let error = outbound.get(&server.url(path), LONGEST).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{path}: {error}");
    }
    let secret = Request::post(server.url("/path")).body(Bytes::from_static(b"secret"));
    let answer = outbound.send(secret.unwrap(), LONGEST).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(server.asked().last().unwrap(), "POST /path HTTP/1.1");
}
