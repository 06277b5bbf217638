//! Templates, conditions and requirements: what they become, and every slip in them.

use super::*;
use crate::policy::{AtSessionLimit, ClaimValue, NetworkBinding, SessionsPerSubject};

/// The good file with these lines in its policy, instead of `max_session` and `idle_timeout`.
fn with(lines: &str) -> String {
    GOOD.replace(
        "max_session = \"15m\"\nidle_timeout = \"5m\"\n",
        &format!("{lines}\n"),
    )
}

/// The line of the policy's first key in [`with`].
fn first_line() -> usize {
    GOOD[..GOOD.find("max_session = \"15m\"").unwrap()]
        .lines()
        .count()
        + 1
}

#[track_caller]
fn policy(lines: &str) -> Policy {
    let text = with(lines);
    let mut config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    config.policies.remove("sensitive").unwrap()
}

/// Expects one problem on a line of the policy, from its first.
#[track_caller]
fn expect(lines: &str, line: usize, what: &str, help: &str) {
    expect_at(&with(lines), first_line() + line, what, help);
}

#[track_caller]
fn expect_at(text: &str, line: usize, what: &str, help: &str) {
    let problems = problems(parse(text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem.line, line, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn a_template_is_where_a_policy_starts_from() {
    let limits = policy("template = \"nist-aal2\"").limits;
    assert_eq!(limits.max_session, minutes(24 * 60));
    assert_eq!(limits.idle_timeout, Some(minutes(60)));
    let limits =
        policy("template = \"nist-aal2\"\nmax_session = \"2h\"\nidle_timeout = \"10m\"").limits;
    assert_eq!(
        (limits.max_session, limits.idle_timeout),
        (minutes(120), Some(minutes(10)))
    );
    let limits = policy("template = \"pci-dss\"\nmax_session = \"8h\"").limits;
    assert_eq!(
        (limits.max_session, limits.idle_timeout),
        (minutes(480), Some(minutes(15)))
    );
    let limits = policy("template = \"nist-aal1\"").limits;
    assert_eq!(
        (limits.max_session, limits.idle_timeout),
        (minutes(30 * 24 * 60), None)
    );
}

#[test]
fn slips_in_templates() {
    expect(
        "template = \"pci-ds\"",
        0,
        "no template `pci-ds`",
        "`pci-dss`?",
    );
    expect(
        "template = \"zzz\"\nmax_session = \"8h\"",
        0,
        "no template",
        "`nist-aal1`",
    );
    let line = first_line() - 1;
    let missing = "`max_session` is missing: the template `pci-dss` sets none";
    expect_at(
        &with("template = \"pci-dss\""),
        line,
        missing,
        "max_session = \"8h\"",
    );
    expect_at(
        &with("idle_timeout = \"5m\""),
        line,
        "`max_session` is missing",
        "max_session",
    );
    expect(
        "template = \"pci-dss\"\nmax_session = \"10m\"",
        1,
        "not longer than the `idle_timeout` of the template `pci-dss` (15m)",
        "a shorter `idle_timeout`",
    );
}

#[test]
fn settings_say_where_they_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let text = with("template = \"nist-aal2\"\nidle_timeout = \"10m\"\nmax_connections = 3");
    std::fs::write(&file, text).unwrap();
    let (_, settings) = Config::load_with_settings(&file).unwrap();
    let settings = &settings["sensitive"];
    let setting = |key| settings.settings.iter().find(|it| it.key == key).unwrap();
    assert_eq!(settings.template.unwrap().name, "nist-aal2");
    assert_eq!(setting("max_session").origin, Origin::Template);
    let idle_timeout = setting("idle_timeout");
    assert_eq!(idle_timeout.origin, Origin::Line(first_line() + 1));
    assert_eq!(idle_timeout.overridden.as_deref(), Some("1h"));
    assert_eq!(setting("farewell").origin, Origin::Default);
    assert_eq!(setting("max_connections").value, "3");
    assert_eq!(setting("mode").origin, Origin::Line(first_line() + 4));
}

#[test]
fn conditions_and_requirements_are_read() {
    let policy = policy(
        r#"max_session = "8h"
max_connections = 4
max_sessions_per_subject = 2
at_session_limit = "end_oldest"
bind_network = "/24"
match = { groups = ["contractors", "interns"], level = 3, issuer = "https://idp.example", networks = ["10.0.0.0/8"] }
require = { acr = ["aal2", "aal3"], amr = "otp", max_age = "5m", scopes = ["read", "write"], claims = { verified = true }, networks = ["10.1.0.0/16"] }
hours = { time_zone = "Europe/Berlin", windows = ["mon-fri 08:00-18:00"] }"#,
    );
    let limits = &policy.limits;
    assert_eq!(limits.max_connections, Some(4));
    let then = AtSessionLimit::EndOldest;
    assert_eq!(
        limits.sessions_per_subject,
        Some(SessionsPerSubject { max: 2, then })
    );
    assert_eq!(
        limits.bind_network,
        Some(NetworkBinding { ipv4: 24, ipv6: 64 })
    );
    let matches = policy.matches.unwrap();
    assert_eq!(
        matches.to_string(),
        "issuer is `https://idp.example`, client is in 10.0.0.0/8, \
         `groups` is `contractors` or `interns`, `level` is `3`"
    );
    let require = policy.require;
    assert_eq!(require.acr, ["aal2", "aal3"]);
    assert_eq!(require.amr, ["otp"]);
    assert_eq!(require.max_age, Some(minutes(5)));
    assert_eq!(require.scopes, ["read", "write"]);
    let verified = [ClaimValue::Boolean(true)];
    assert_eq!(
        require.claims.iter().next(),
        Some(("verified", &verified[..]))
    );
    assert_eq!(require.networks.len(), 1);
    let hours = policy.hours.unwrap().to_string();
    assert_eq!(hours, "mon-fri 08:00-18:00 (Europe/Berlin)");
}

#[test]
fn slips_in_concurrency_and_binding() {
    let after = |line: &str| format!("max_session = \"8h\"\n{line}");
    for (line, what, help) in [
        (
            "max_connections = 0",
            "`max_connections` cannot be 0",
            "from 1",
        ),
        ("max_sessions_per_subject = -1", "cannot be -1", "from 1"),
        (
            "at_session_limit = \"refuse\"",
            "no effect",
            "`max_sessions_per_subject`",
        ),
        (
            "bind_network = \"24\"",
            "not the length of a prefix",
            "\"/24\"",
        ),
        ("bind_network = \"/0\"", "not the length", "\"/1\""),
        ("bind_network = \"/33\"", "not the length", "\"/32\""),
        ("bind_network_ipv6 = \"/56\"", "no effect", "`bind_network`"),
    ] {
        expect(&after(line), 1, what, help);
    }
    let word = "max_sessions_per_subject = 1\nat_session_limit = \"newest\"";
    expect(&after(word), 2, "cannot be `newest`", "`end_oldest`");
}

#[test]
fn slips_in_match() {
    let after = |line: &str| format!("max_session = \"8h\"\n{line}");
    for (line, what, help) in [
        ("match = {}", "`match` is empty", "groups"),
        (
            "match = { groups = [] }",
            "`groups` has no value",
            "a value",
        ),
        (
            "match = { groups = \"\" }",
            "`groups` has no value",
            "a value",
        ),
        ("match = { groups = 1.5 }", "wrong type", "a whole number"),
        (
            "match = { issuer = \"https://idp.exampel\" }",
            "match nobody",
            "`https://idp.example`?",
        ),
        ("match = { issuer = 3 }", "no text", "a text"),
        (
            "match = { networks = \"10.0.0.1/8\" }",
            "bits beyond its prefix",
            "`10.0.0.0/8`",
        ),
        (
            "match = { networks = \"inside\" }",
            "not a network",
            "prefix",
        ),
    ] {
        expect(&after(line), 1, what, help);
    }
}

#[test]
fn slips_in_require() {
    let after = |line: &str| format!("max_session = \"8h\"\n{line}");
    for (line, what, help) in [
        ("require = {}", "`require` is empty", "scopes"),
        (
            "require = { scope = \"a\" }",
            "unknown key `scope`",
            "`scopes`?",
        ),
        (
            "require = { scopes = [] }",
            "`scopes` is empty",
            "a list of texts",
        ),
        (
            "require = { scopes = \"a b\" }",
            "not a scope",
            "a text of its own",
        ),
        (
            "require = { acr = \"a\\\"b\" }",
            "not a class",
            "a text of its own",
        ),
        (
            "require = { max_age = \"0s\" }",
            "`max_age` is zero",
            "max_age",
        ),
        (
            "require = { claims = { a = [] } }",
            "`a` has no value",
            "a value",
        ),
        (
            "require = { networks = [] }",
            "`networks` is empty",
            "10.0.0.0/8",
        ),
    ] {
        expect(&after(line), 1, what, help);
    }
    let route = GOOD.replace(
        "upstream = \"http://127.0.0.1:9000\"",
        "upstream = \"http://127.0.0.1:9000\"\nrequire = { amr = [] }",
    );
    expect_at(&route, route.lines().count() - 1, "`amr` is empty", "amr");
}

#[test]
fn slips_in_hours() {
    let hours = |zone: &str, windows: &str| {
        format!("max_session = \"8h\"\nhours = {{ time_zone = \"{zone}\", windows = {windows} }}")
    };
    for (zone, windows, what, help) in [
        (
            "Europe/Berlim",
            "[\"mon 08:00-18:00\"]",
            "no time zone `Europe/Berlim`",
            "`Europe/Berlin`?",
        ),
        ("Mars", "[\"mon 08:00-18:00\"]", "no time zone", "IANA"),
        ("UTC", "[]", "never open", "mon-fri"),
        (
            "UTC",
            "[\"mon-sun 00:00-24:00\"]",
            "never close",
            "remove `hours`",
        ),
        (
            "UTC",
            "[\"mon 08:00-08:00\"]",
            "never opens",
            "different times",
        ),
        ("UTC", "[\"mo 08:00-18:00\"]", "none of mon", "mon-fri"),
        ("UTC", "[\"8-18\"]", "not days and times", "mon-fri"),
        (
            "UTC",
            "[\"mon 08:00-25:00\"]",
            "between 00:00 and 24:00",
            "mon-fri",
        ),
    ] {
        expect(&hours(zone, windows), 1, what, help);
    }
}

#[test]
fn slips_in_the_policies_of_routes() {
    let second = "upstream = \"http://127.0.0.1:9000\"\npolicy = \"sensitive\"";
    let section = GOOD.rfind("[[routes]]").unwrap();
    let line = GOOD[..section].lines().count() + 1;
    for (policies, place, what, help) in [
        ("", 0, "key `policy` is missing", "`policies` with several"),
        ("policies = []", 3, "`policies` is empty", "at least"),
        (
            "policies = [\"sensitive\", \"sensitive\"]",
            3,
            "there twice",
            "remove one",
        ),
        (
            "policies = [\"sensitive\", \"sensitiv\"]",
            3,
            "no policy `sensitiv`",
            "`sensitive`?",
        ),
        (
            "policy = \"sensitive\"\npolicies = [\"sensitive\"]",
            4,
            "the same thing",
            "remove `policy`",
        ),
    ] {
        let text = format!("upstream = \"http://127.0.0.1:9000\"\n{policies}");
        expect_at(&GOOD.replace(second, &text), line + place, what, help);
    }
}

#[test]
fn what_no_certificate_can_meet_is_no_policy_for_a_tcp_listener() {
    let listener = r#"
[listeners.cache]
address = "0.0.0.0:6380"
protocol = "tcp"
tls = { certificate = "cert.pem", private_key = "key.pem", client_ca = "ca.pem" }

[[routes]]
listener = "cache"
upstream = "tcp://127.0.0.1:6379"
policy = "sensitive"
"#;
    let text = |lines: &str| {
        format!(
            "{}{listener}",
            with(&format!("max_session = \"8h\"\n{lines}"))
        )
    };
    let last = text("require = { scopes = \"a\" }").lines().count();
    for key in [
        "scopes = \"a\"",
        "acr = \"a\"",
        "amr = \"a\"",
        "max_age = \"1m\"",
        "claims = { a = 1 }",
    ] {
        let text = text(&format!("require = {{ {key} }}"));
        expect_at(
            &text,
            last,
            "which no certificate has",
            "`networks`, `hours`",
        );
    }
    let fitting = "require = { networks = [\"10.0.0.0/8\"] }\n\
                   hours = { time_zone = \"UTC\", windows = [\"mon 08:00-18:00\"] }\n\
                   match = { issuer = \"CN=Some CA\" }\nmax_connections = 2\nbind_network = \"/32\"";
    assert!(parse(&text(fitting)).is_ok());
    let route = format!("{}require = {{ acr = \"a\" }}\n", text(""));
    let line = route.lines().count();
    expect_at(
        &route,
        line,
        "`acr` is asked of clients that show certificates",
        "an HTTP listener",
    );
}
