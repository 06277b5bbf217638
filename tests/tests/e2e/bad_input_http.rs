//! Requests whose end is a matter of opinion, and others that no honest client sends.
//!
//! What follows the doubtful request is a whole second one. Whoever disagrees with the gateway
//! about where the first ends would see it: the upstream must not.

use enforcer_tests::Scene;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: enforcer.test\r\n\r\n";

/// Each of these heads is refused with `status`, the connection is closed after that one answer,
/// and nothing reaches the upstream. `{token}` stands for a good token.
#[track_caller]
fn refused(label: &str, status: u16, requests: &[&str]) {
    let scene = Scene::new(label).expect("a scene");
    let _daemon = scene.start().expect("a daemon");
    let client = scene.client().expect("a client");
    let token = scene.token("alice").expect("a token");
    for request in requests {
        let request = request.replace("{token}", &format!("Authorization: Bearer {token}"));
        let raw = client.tls().expect("a connection");
        raw.write(format!("{request}{SMUGGLED}")).expect("sent");
        let (answer, _) = raw.read_to_end().expect("an end");
        let expected = format!("HTTP/1.1 {status} ");
        assert!(
            answer.starts_with(&expected),
            "{request:?} was answered {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{request:?}: {answer:?}"
        );
    }
    let forwarded = scene.upstream.log().requests();
    assert!(forwarded.is_empty(), "{forwarded:?}");
    assert_eq!(
        client.get("/headers", &token).expect("an answer").status,
        200
    );
}

#[test]
fn content_length_and_transfer_encoding_together() {
    let body = "\r\n\r\n0\r\n\r\n";
    let first = ["Content-Length: 5\r\nTransfer-Encoding: chunked", body].concat();
    let second = ["Transfer-Encoding: chunked\r\nContent-Length: 5", body].concat();
    refused("cl-te", 400, &[&post(&first), &post(&second)]);
}

#[test]
fn content_lengths_that_disagree_or_are_no_number() {
    let shapes = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 99999999999999999999999999",
    ];
    let requests = shapes.map(|shape| post(&format!("{shape}\r\n\r\nhello")));
    refused(
        "content-length",
        400,
        &requests.each_ref().map(String::as_str),
    );
}

#[test]
fn transfer_encodings_that_are_not_plainly_chunked() {
    let shapes = [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
    ];
    let requests = shapes.map(|shape| post(&format!("{shape}\r\n\r\n0\r\n\r\n")));
    refused(
        "transfer-encoding",
        400,
        &requests.each_ref().map(String::as_str),
    );
}

#[test]
fn transfer_encoding_in_http_1_0() {
    let request =
        post("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    refused("te-http-1-0", 400, &[&request]);
}

#[test]
fn header_lines_that_are_read_in_two_ways() {
    let shapes = [
        "Content-Length : 5",
        " Content-Length: 5",
        "X-Folded: a\r\n Content-Length: 5",
        "X-Folded: a\r\n\tContent-Length: 5",
        "X-Nul: a\0b",
        "X-Return: a\rContent-Length: 5",
        "No colon at all",
        ": no name",
        "Content\u{b}Length: 5",
    ];
    let requests = shapes.map(|shape| post(&format!("{shape}\r\n\r\n")));
    refused(
        "header-lines",
        400,
        &requests.each_ref().map(String::as_str),
    );
}

#[test]
fn hosts_that_are_missing_or_several() {
    refused(
        "hosts",
        400,
        &[
            "GET /headers HTTP/1.1\r\n{token}\r\n\r\n",
            "GET /headers HTTP/1.1\r\nHost: enforcer.test\r\nHost: elsewhere.test\r\n{token}\r\n\r\n",
            "GET /headers HTTP/1.1\r\nHost: enforcer.test, elsewhere.test\r\n{token}\r\n\r\n",
            "GET /headers HTTP/1.1\r\nHost: user@enforcer.test\r\n{token}\r\n\r\n",
        ],
    );
}

#[test]
fn several_authorization_headers() {
    refused(
        "authorizations",
        400,
        &["GET /headers HTTP/1.1\r\nHost: enforcer.test\r\n{token}\r\n{token}\r\n\r\n"],
    );
}

#[test]
fn request_lines_that_are_none() {
    refused(
        "request-lines",
        400,
        &[
            "GET  /headers HTTP/1.1\r\nHost: enforcer.test\r\n{token}\r\n\r\n",
            "GET /headers\r\nHost: enforcer.test\r\n{token}\r\n\r\n",
            "GET /head ers HTTP/1.1\r\nHost: enforcer.test\r\n{token}\r\n\r\n",
            "GET /headers HTTP/1.1 HTTP/1.1\r\nHost: enforcer.test\r\n{token}\r\n\r\n",
            "G\0T /headers HTTP/1.1\r\nHost: enforcer.test\r\n{token}\r\n\r\n",
        ],
    );
}

#[test]
fn headers_without_measure() {
    let many = "X-Many: 1\r\n".repeat(2_000);
    let long = format!("X-Long: {}\r\n", "x".repeat(100_000));
    let request = |headers: &str| {
        format!("GET /headers HTTP/1.1\r\nHost: enforcer.test\r\n{{token}}\r\n{headers}\r\n")
    };
    refused("measure", 431, &[&request(&many), &request(&long)]);
}

/// The head is fine and forwarded; the body breaks off where it can't be understood.
#[test]
fn chunks_that_are_none_end_the_upload_and_the_connection() {
    let scene = Scene::new("chunks").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let bodies = [
        "FFFFFFFFFFFFFFFFF\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "five\r\n",
        "\r\n\r\n",
    ];
    for body in bodies {
        let head = post("Transfer-Encoding: chunked\r\n\r\n");
        let head = head.replace("{token}", &format!("Authorization: Bearer {token}"));
        let raw = client.tls().unwrap();
        raw.write(format!("{head}{body}{SMUGGLED}")).unwrap();
        let (answer, _) = raw.read_to_end().unwrap();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{body:?}: {answer:?}");
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{body:?}: {answer:?}"
        );
    }
    let log = scene.upstream.log();
    assert!(
        log.requests()
            .iter()
            .all(|request| request.target == "/upload"),
        "{log:?}"
    );
    assert!(
        log.uploads()
            .iter()
            .all(|upload| upload.complete != Some(true)),
        "{log:?}"
    );
}

#[test]
fn identity_and_hop_by_hop_headers_of_a_client_do_not_pass() {
    let scene = Scene::new("hygiene").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let request = format!(
        "GET /headers HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n\
         X-Enforcer-Subject: root\r\nX-Enforcer-Session: 0000000000000001\r\n\
         Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: gopher\r\n\
         Keep-Alive: timeout=5\r\nTE: gzip;q=0.5, trailers\r\nProxy-Authorization: Basic eDp5\r\n\
         X-Hop: here\r\nConnection: close, X-Hop\r\n\r\n"
    );
    let raw = scene.client().unwrap().tls().unwrap();
    raw.write(request).unwrap();
    let (answer, _) = raw.read_to_end().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let requests = scene.upstream.log().requests();
    let headers = &requests[0].headers;
    let all = |name: &str| {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap_or("?"))
            .collect::<Vec<_>>()
    };
    assert_eq!(all("x-enforcer-subject"), ["alice"]);
    assert_eq!(all("x-enforcer-session").len(), 1);
    assert_ne!(all("x-enforcer-session"), ["0000000000000001"]);
    assert_eq!(all("x-forwarded-proto"), ["https"]);
    let seen = format!("{:?} {:?}", all("x-forwarded-for"), all("forwarded"));
    assert!(
        !seen.contains("1.2.3.4") && seen.contains("10.77.0.1"),
        "{seen}"
    );
    for name in [
        "authorization",
        "keep-alive",
        "proxy-authorization",
        "x-hop",
    ] {
        assert_eq!(all(name), [""; 0], "{name}");
    }
    // The gateway's own words to its next hop.
    assert_eq!(all("te"), ["trailers"]);
    assert_eq!(all("connection"), ["te"]);
}

fn post(headers_and_body: &str) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: enforcer.test\r\n{{token}}\r\n{headers_and_body}")
}
