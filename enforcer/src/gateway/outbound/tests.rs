use super::*;
use crate::gateway::tests::issuer::{Issuer, Said, ok, redirect_to};

const LONGEST: usize = 1000;

fn load(settings: &config::Outbound) -> Outbound {
    Outbound::load(settings, &mut NativeRoots::default()).unwrap()
}

#[tokio::test]
async fn an_answer_comes_whole_from_a_server_that_is_verified() {
    let server = Issuer::new(|_| ok("{}")).await;
    let outbound = load(&server.outbound());
    let answer = outbound.get(&server.url("/x"), LONGEST).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"{}"[..])
    );
    assert_eq!(answer.headers[header::CONTENT_LENGTH], "2");
    assert_eq!(server.questions()[0].line, "GET /x HTTP/1.1");
    let other = Issuer::new(|_| ok("{}")).await;
    let refused = outbound.get(&other.url("/x"), LONGEST).await;
    let refused = refused.unwrap_err();
    let untrusted = matches!(refused, OutboundError::Connect(ConnectError::Tls(..)));
    assert!(untrusted, "{refused}");
    assert!(other.questions().is_empty());
}

#[tokio::test]
async fn loopback_is_asked_only_where_it_is_allowed() {
    let server = Issuer::new(|_| ok("{}")).await;
    let outbound = load(&config::Outbound {
        allow_networks: Vec::new(),
        ..server.outbound()
    });
    let port = server.port();
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
    let server = Issuer::new(|question| match question.path() {
        "/long" => ok(&"x".repeat(LONGEST + 1)),
        "/endless" => Said::All(format!(
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "x".repeat(LONGEST + 1)
        )),
        "/fits" => ok(&"x".repeat(LONGEST)),
        "/head" => Said::All(format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
            "x".repeat(2 * LONGEST_HEAD)
        )),
        "/half" => Said::All("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned()),
        "/slow" => Said::Hanging("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned()),
        _ => Said::Hanging("HTTP/1.1 200 OK\r\nx: ".to_owned()),
    })
    .await;
    let outbound = load(&server.outbound());
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
    let server = Issuer::new(|question| match question.path() {
        "/path" => redirect_to("/there#fragment"),
        "/url" => redirect_to(&format!("https://localhost:{}/there", question.port)),
        "/plain" => redirect_to(&format!("http://localhost:{}/there", question.port)),
        "/user" => redirect_to(&format!("https://me@localhost:{}/there", question.port)),
        "/metadata" => redirect_to("https://169.254.169.254/latest"),
        "/round" => redirect_to("/round"),
        "/there" => ok("there"),
        _ => redirect_to("ftp://localhost/"),
    })
    .await;
    let outbound = load(&server.outbound());
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
    let asked = server.questions();
    assert_eq!(asked.last().unwrap().line, "POST /path HTTP/1.1");
    assert_eq!(asked.last().unwrap().body, "secret");
}
