//! PostgreSQL listeners and their routes.

use super::*;

const POSTGRES: &str = r#"[listeners.db]
address = "0.0.0.0:5432"
protocol = "postgres"
identity = "certificate"
principal = "subject_cn"
tls = { certificate = "cert.pem", private_key = "key.pem", client_ca = "ca.pem" }

[policies.sensitive]
max_session = "15m"

[[routes]]
listener = "db"
upstream = "postgres+tls://db.internal"
login = { user = "app", password_file = "password" }
forward_identity = true
policy = "sensitive"
"#;

/// Replaces `from` by `to` and expects one problem on that line.
#[track_caller]
fn expect(from: &str, to: &str, what: &str, help: &str) {
    let text = POSTGRES.replacen(from, to, 1);
    let before = &POSTGRES[..POSTGRES.find(from).expect(from)];
    let line = before.matches('\n').count() + 1;
    let problems = problems(parse(&text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem.line, line, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

fn login(text: &str) -> Login {
    let config = parse(text).unwrap();
    config.routes[0].postgres.clone().unwrap().login
}

#[test]
fn a_postgresql_listener_takes_certificates_and_its_gateway_logs_in() {
    let config = parse(POSTGRES).unwrap();
    let listener = &config.listeners["db"];
    assert_eq!(listener.protocol, Protocol::Postgres);
    let by_name = RequestIdentity::Certificate(CertificateName::SubjectCommonName);
    assert_eq!(listener.identity, by_name);
    let route = &config.routes[0];
    assert_eq!(route.upstream_pool, UpstreamPool::Session);
    let upstream = &route.upstream;
    assert_eq!((&*upstream.host, upstream.port), ("db.internal", 5432));
    let tls = upstream.tls.as_ref().unwrap();
    assert_eq!(tls.opening, TlsOpening::SslRequest);
    let postgres = route.postgres.as_ref().unwrap();
    assert!(postgres.forward_identity);
    let password = Path::new("/etc/enforcer/password").to_owned();
    let app = LoginUser::Fixed("app".to_owned());
    assert_eq!(postgres.login, Login::Gateway(app, Some(password)));

    let plain = POSTGRES.replace("postgres+tls://db.internal", "postgres://db:6432");
    let upstream = &parse(&plain).unwrap().routes[0].upstream;
    assert_eq!((upstream.port, &upstream.tls), (6432, &None));
}

#[test]
fn the_gateway_logs_in_as_one_user_or_each_clients_own_or_not_at_all() {
    let line = "login = { user = \"app\", password_file = \"password\" }\n";
    assert_eq!(login(&POSTGRES.replace(line, "")), Login::Client);
    for (written, user) in [
        ("login = {}", LoginUser::Client),
        ("login = { user_from = \"client\" }", LoginUser::Client),
        ("login = { user_from = \"subject\" }", LoginUser::Subject),
    ] {
        let text = POSTGRES.replace(line, &format!("{written}\n"));
        assert_eq!(login(&text), Login::Gateway(user, None), "{written}");
    }
    expect(
        "login = { user = \"app\",",
        "login = { user = \"app\", user_from = \"subject\",",
        "`user` and `user_from` exclude each other",
        "`user_from` for one of each client's",
    );
    expect(
        "user = \"app\"",
        "user_from = \"token\"",
        "`user_from` cannot be `token`",
        "`client`, `subject`",
    );
    expect(
        "user = \"app\"",
        "user = \"\"",
        "`` cannot be a PostgreSQL user",
        "1 to 63 bytes",
    );
}

#[test]
fn tokens_need_an_issuer_and_a_login() {
    let text = POSTGRES
        .replace("\"certificate\"\nprincipal = \"subject_cn\"", "\"token\"")
        .replace(", client_ca = \"ca.pem\"", "")
        .replace(
            "login = { user = \"app\", password_file = \"password\" }\n",
            "",
        );
    let problems = problems(parse(&text).unwrap_err());
    let what: Vec<_> = problems.iter().map(|problem| &*problem.what).collect();
    assert_eq!(what.len(), 2, "{what:?}");
    assert!(what[0].contains("no token issuer"), "{what:?}");
    assert!(what[1].contains("the route has no `login`"), "{what:?}");
}

#[test]
fn clients_must_be_known() {
    let text = POSTGRES.replace(", client_ca = \"ca.pem\"", "");
    let problems = problems(parse(&text).unwrap_err());
    assert_eq!((problems.len(), problems[0].line), (1, 4), "{problems:?}");
    assert!(problems[0].what.contains("could not tell who a client is"));
}

#[test]
fn each_key_has_its_place() {
    expect(
        "postgres+tls://db.internal",
        "tls://db.internal:5432",
        "a PostgreSQL listener cannot lead to an upstream with `tls://`",
        "`postgres+tls://`",
    );
    expect(
        "forward_identity = true",
        "upstream_pool = \"shared\"",
        "`upstream_pool` has no effect on a PostgreSQL listener",
        "HTTP listener",
    );
    for (line, what) in [
        (
            "policy = \"sensitive\"\nlogin = {}\n",
            "`login` has an effect on routes from",
        ),
        (
            "policy = \"sensitive\"\nforward_identity = true\n",
            "`forward_identity` has an effect on routes from",
        ),
    ] {
        let text = GOOD.replacen("policy = \"sensitive\"\n", line, 1);
        let problems = problems(parse(&text).unwrap_err());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].what.contains(what), "{problems:?}");
    }
}

#[test]
fn a_postgresql_listener_has_one_route() {
    let route = &POSTGRES[POSTGRES.find("[[routes]]").unwrap()..];
    let problems = problems(parse(&format!("{POSTGRES}{route}")).unwrap_err());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0]
            .what
            .contains("a PostgreSQL listener has one route")
    );
}

#[test]
fn a_password_file_holds_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    for (content, password) in [
        (&b"secret\n"[..], &b"secret"[..]),
        (b"secret\r\n", b"secret"),
        (b" two words", b" two words"),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(read_password(&path).unwrap(), password);
    }
}
