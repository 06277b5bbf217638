//! TCP listeners and their routes.

use super::*;

const TCP: &str = r#"[listeners.db]
address = "0.0.0.0:5433"
protocol = "tcp"
principal = "san_uri"
tls = { certificate = "cert.pem", private_key = "key.pem", client_ca = "ca.pem" }

[policies.sensitive]
max_session = "15m"

[[routes]]
listener = "db"
upstream = "tls://db.internal:5432"
policy = "sensitive"
"#;

/// Replaces `from` by `to` and expects one problem on that line.
#[track_caller]
fn expect(from: &str, to: &str, what: &str, help: &str) {
    let text = TCP.replacen(from, to, 1);
    let line = TCP[..TCP.find(from).expect(from)].lines().count() + 1;
    let problems = problems(parse(&text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem.line, line, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

#[test]
fn a_tcp_listener_needs_no_token_issuer() {
    let config = parse(TCP).unwrap();
    let protocol = &config.listeners["db"].protocol;
    assert_eq!(*protocol, Protocol::Tcp(CertificateName::Uri));
    let upstream = &config.routes[0].upstream;
    assert_eq!((&*upstream.host, upstream.port), ("db.internal", 5432));
    assert_eq!(upstream.tls, Some(UpstreamTls::default()));

    let plain = TCP
        .replace("principal = \"san_uri\"\n", "")
        .replace("tls://", "tcp://");
    let config = parse(&plain).unwrap();
    let protocol = &config.listeners["db"].protocol;
    assert_eq!(*protocol, Protocol::Tcp(CertificateName::Any));
    assert_eq!(config.routes[0].upstream.tls, None);
}

#[test]
fn clients_of_a_tcp_listener_must_be_known() {
    let text = TCP.replace(", client_ca = \"ca.pem\"", "");
    let problems = problems(parse(&text).unwrap_err());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].line, 3);
    assert!(problems[0].what.contains("without `client_ca`"));
    assert!(problems[0].help.contains("add `client_ca`"));
}

#[test]
fn what_only_requests_have_has_no_place_on_a_tcp_listener() {
    for setting in [
        "host = \"db.example\"",
        "path = \"/\"",
        "forward_token = true",
        "upstream_pool = \"session\"",
        "response_timeout = \"1s\"",
    ] {
        let key = setting.split(' ').next().unwrap();
        let what = format!("`{key}` has no effect on a TCP listener");
        let line = format!("policy = \"sensitive\"\n{setting}\n");
        let text = TCP.replace("policy = \"sensitive\"\n", &line);
        let problems = problems(parse(&text).unwrap_err());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].line, TCP.lines().count() + 1);
        assert!(problems[0].what.contains(&what), "{problems:?}");
    }
}

#[test]
fn listeners_and_upstreams_carry_the_same() {
    expect(
        "upstream = \"tls://db.internal:5432\"",
        "upstream = \"https://db.internal:5432\"",
        "a TCP listener cannot lead to an upstream with `https://`",
        "`tls://`",
    );
    expect(
        "upstream = \"tls://db.internal:5432\"",
        "upstream = \"tls://db.internal\"",
        "no port",
        "`tls://db.internal:5432`",
    );
    let text = GOOD.replace("http://127.0.0.1:9000", "tcp://127.0.0.1:9000");
    let problems = problems(parse(&text).unwrap_err());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.starts_with("an HTTP listener cannot lead"));
    assert!(problems[0].help.contains("`http://`"), "{problems:?}");
}

#[test]
fn principals_are_names_in_certificates() {
    expect(
        "principal = \"san_uri\"",
        "principal = \"cn\"",
        "`principal` cannot be `cn`",
        "`subject_cn`, `san_dns`, `san_email`, `san_uri`, `spiffe`",
    );
    expect(
        "principal = \"san_uri\"",
        "identity = \"token\"",
        "`identity` has no effect on a TCP listener",
        "remove it",
    );
}

#[test]
fn a_tcp_listener_has_one_route() {
    let route = &TCP[TCP.find("[[routes]]").unwrap()..];
    let problems = problems(parse(&format!("{TCP}{route}")).unwrap_err());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].line, TCP.lines().count() + 1);
    assert!(problems[0].what.contains("a TCP listener has one route"));
}
