//! One fault at a time: its line, what is said and what helps.

use super::*;

/// Replaces `from` in the good file by `to`, and expects one problem on the line of `from` with
/// these texts in what it says and what it helps with.
#[track_caller]
fn expect(from: &str, to: &str, what: &str, help: &str) {
    let line = GOOD[..GOOD.find(from).expect(from)].lines().count() + 1;
    let line = if GOOD.starts_with(from) { 1 } else { line };
    expect_at(line, &GOOD.replacen(from, to, 1), what, help);
}

#[track_caller]
fn expect_at(line: usize, text: &str, what: &str, help: &str) {
    let problems = problems(parse(text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem.line, line, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

#[test]
fn slips_in_keys_and_types() {
    expect(
        "idle_timeout = \"5m\"",
        "idle_timout = \"5m\"",
        "unknown key `idle_timout`",
        "`idle_timeout`?",
    );
    expect(
        "idle_timeout = \"5m\"",
        "colour = \"red\"",
        "unknown key `colour`",
        "`max_session`",
    );
    expect(
        "state_dir",
        "state_dri",
        "unknown key `state_dri`",
        "`state_dir`?",
    );
    expect(
        "secret_file",
        "jwks_uri",
        "unknown key `jwks_uri`",
        "`jwks_url`?",
    );
    expect(
        "max_sessions = 100",
        "max_sessions = \"many\"",
        "wrong type",
        "a whole number",
    );
}

#[test]
fn durations() {
    expect(
        "max_session = \"15m\"",
        "max_session = 900",
        "has no unit: `900`",
        "max_session = \"900s\"",
    );
    expect(
        "max_session = \"15m\"",
        "max_session = \"-15m\"",
        "negative",
        "max_session = \"15m\"",
    );
    expect(
        "max_session = \"15m\"",
        "max_session = \"0s\"",
        "zero",
        "max_session = \"15m\"",
    );
    expect(
        "max_session = \"15m\"",
        "max_session = \"100years\"",
        "longer than ten years",
        "\"8h\"",
    );
    expect(
        "idle_timeout = \"5m\"",
        "idle_timeout = \"15m\"",
        "never apply",
        "below 15m",
    );
    expect(
        "idle_timeout = \"5m\"",
        "warn_before = \"1h\"",
        "from its start",
        "below 15m",
    );
    expect(
        "idle_timeout = \"5m\"",
        "farewell = \"15m\"",
        "sent off",
        "below 15m",
    );
}

#[test]
fn words_and_numbers() {
    expect(
        "activity = \"payload\"",
        "activity = \"any\"",
        "`activity` cannot be `any`",
        "`application`, `payload`",
    );
    expect(
        "mode = \"observe\"",
        "mode = \"off\"",
        "`mode` cannot be `off`",
        "`enforce`, `observe`",
    );
    expect(
        "upstream_pool = \"session\"",
        "upstream_pool = \"none\"",
        "cannot be `none`",
        "`shared`, `session`",
    );
    expect(
        "max_sessions = 100",
        "max_sessions = 0",
        "cannot be 0",
        "1 to 16777216",
    );
    expect(
        "max_sessions = 100",
        "max_sessions = -1",
        "cannot be -1",
        "max_sessions = 65536",
    );
    expect(
        "max_sessions = 100",
        "user = \"\"",
        "`user` cannot be ``",
        "user = \"enforcer\"",
    );
    let long = format!("runtime_dir = \"/{}\"", "x".repeat(90));
    expect("max_sessions = 100", &long, "too long", "80 bytes");
}

#[test]
fn listeners() {
    expect(
        "address = \"0.0.0.0:8443\"",
        "address = \"localhost\"",
        "not an address",
        "\"0.0.0.0:8443\"",
    );
    expect(
        "protocol = \"http\"",
        "protocol = \"https\"",
        "cannot be `https`",
        "`http`, `tcp`",
    );
    expect(
        "[listeners.public]",
        "[listeners.\"a b\"]\naddress = \"[::1]:1\"\ntls = { certificate = \"c\", private_key = \"k\" }\n\n[[routes]]\nlistener = \"a b\"\nupstream = \"http://a\"\npolicy = \"sensitive\"\n\n[listeners.public]",
        "cannot be the name",
        "letters",
    );
    let second = "\n[listeners.second]\naddress = \"127.0.0.1:8443\"\ntls = { certificate = \"cert.pem\", private_key = \"key.pem\" }\n";
    let route =
        "[[routes]]\nlistener = \"second\"\nupstream = \"http://a\"\npolicy = \"sensitive\"\n";
    let line = GOOD.lines().count() + 2;
    expect_at(
        line,
        &format!("{GOOD}{}", second.replace("8443", "8444")),
        "no route starts at the listener `second`",
        "listener = \"second\"",
    );
    expect_at(
        line + 1,
        &format!("{GOOD}{second}{route}"),
        "taken by the listener on line 6",
        "another address",
    );
}

#[test]
fn issuers() {
    let algorithms = "algorithms = [\"HS256\"]";
    let source = "secret_file = \"secret\"";
    expect(
        algorithms,
        "algorithms = []",
        "`algorithms` is empty",
        "[\"HS256\"]",
    );
    expect(
        algorithms,
        "algorithms = [\"none\"]",
        "nobody signed",
        "signs with",
    );
    expect(
        algorithms,
        "algorithms = [\"HS265\"]",
        "unknown algorithm `HS265`",
        "\"HS256\"",
    );
    expect(
        algorithms,
        "algorithms = [\"ES256\"]",
        "`ES256` does not work with `secret_file`",
        "HS256, HS384, HS512",
    );
    expect(
        "audience = \"api\"",
        "audience = []",
        "`audience` is empty",
        "audience = \"api\"",
    );
    expect(
        "audience = \"api\"",
        "audience = [\"api\", \"\"]",
        "`audience` is empty",
        "audience = \"api\"",
    );
    expect(
        "issuer = \"https://idp.example\"",
        "issuer = \"\"",
        "`issuer` is empty",
        "exactly",
    );
    expect_at(
        14,
        &GOOD.replace("secret_file", "jwks_file"),
        "`HS256` does not work with `jwks_file`",
        "RS256",
    );
    expect_at(10, &GOOD.replace(source, ""), "no keys", "add one of");
    let two = format!("{source}\njwks_file = \"jwks.json\"");
    expect_at(
        10,
        &GOOD.replace(source, &two),
        "more than one source",
        "keep one",
    );
    let section = &GOOD[GOOD.find("[[identity").unwrap()..GOOD.find("[policies").unwrap()];
    let line = GOOD.lines().count() + 2;
    expect_at(
        line,
        &format!("{GOOD}{section}"),
        "on line 11 already",
        "one section",
    );
}

#[test]
fn routes() {
    expect(
        "path = \"/admin/\"",
        "path = \"admin\"",
        "does not start with `/`",
        "`/admin`",
    );
    expect(
        "path = \"/admin/\"",
        "path = \"/a/../b\"",
        "`.` or `..`",
        "lead to",
    );
    expect("path = \"/admin/\"", "path = \"/a?b\"", "query", "`/a`");
    expect("path = \"/admin/\"", "path = \"/a#b\"", "fragment", "`/a`");
    expect(
        "path = \"/admin/\"",
        "path = \"/a//b\"",
        "empty segment",
        "single",
    );
    expect(
        "path = \"/admin/\"",
        "path = \"/%61\"",
        "stand for themselves",
        "letters",
    );
    expect(
        "host = \"API.example.com.\"",
        "host = \"*.example.com\"",
        "not a host",
        "wildcard",
    );
    expect(
        "host = \"API.example.com.\"",
        "host = \"a:443\"",
        "not a host",
        "port",
    );
    expect(
        "upstream = \"https://127.0.0.1\"",
        "upstream = \"127.0.0.1\"",
        "no scheme",
        "`http://127.0.0.1`",
    );
    expect(
        "upstream_tls = { ca = \"ca.pem\", server_name = \"backend\" }",
        "upstream_tls = { certificate = \"c\" }",
        "go together",
        "both",
    );
    expect(
        "upstream_tls = { ca = \"ca.pem\", server_name = \"backend\" }",
        "upstream_tls = { server_name = \"a b\" }",
        "not a server name",
        "certificate",
    );
    expect_at(
        27,
        &GOOD.replace("https://127", "http://127"),
        "no effect",
        "`https://`",
    );
    let second = GOOD.rfind("listener = \"public\"").unwrap();
    let line = GOOD[..second].lines().count() + 1;
    let misspelt = format!(
        "{}{}",
        &GOOD[..second],
        GOOD[second..].replace("public", "publik")
    );
    expect_at(line, &misspelt, "no listener `publik`", "`public`?");
    let unknown = format!(
        "{}{}",
        &GOOD[..second],
        GOOD[second..].replace("sensitive", "x")
    );
    expect_at(line + 2, &unknown, "no policy `x`", "`sensitive`");
    let again = "[[routes]]\nlistener = \"public\"\npath = \"/\"\nupstream = \"http://a\"\npolicy = \"sensitive\"\n";
    let line = GOOD.lines().count() + 1;
    expect_at(
        line,
        &format!("{GOOD}{again}"),
        "one on line 31",
        "different",
    );
}
