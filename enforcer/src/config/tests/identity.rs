//! Issuers whose keys are published, and those that are asked about their tokens.

use super::*;

const FILE: &str = "secret_file = \"secret\"\nalgorithms = [\"HS256\"]";

/// The good file with other keys of its issuer.
fn with_keys(keys: &str) -> String {
    GOOD.replacen(FILE, &format!("{keys}\nalgorithms = [\"ES256\"]"), 1)
}

/// The good file with another issuer, which is asked.
fn with_introspection(section: &str) -> String {
    format!("{GOOD}\n[[identity.introspection]]\n{section}\n")
}

const INTROSPECTION: &str = r#"issuer = "https://idp.example"
endpoint = "https://idp.example/introspect"
client_id = "enforcer"
client_secret_file = "client-secret""#;

#[track_caller]
fn expect(text: &str, what: &str, help: &str) {
    let problems = problems(parse(text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

fn published(keys: &str) -> PublishedKeys {
    let config = parse(&with_keys(keys)).unwrap();
    match config.identity.jwt[0].keys.clone() {
        KeySource::Published(published) => *published,
        file => panic!("{file:?}"),
    }
}

#[test]
fn keys_are_published_at_a_url_or_where_the_issuer_says() {
    let by_url = published("jwks_url = \"https://keys.example/set\"");
    let url = "https://keys.example/set".parse().unwrap();
    assert_eq!(by_url.location, KeyLocation::Jwks(url));
    assert_eq!(by_url.refresh_interval, Duration::from_secs(300));
    assert_eq!(by_url.stale_ttl, Duration::from_secs(3600));
    assert_eq!(by_url.outbound, Outbound::default());

    let discovered = published(
        "discovery = true\nrefresh_interval = \"10s\"\nstale_ttl = \"0s\"\n\
         outbound = { ca = \"ca.pem\", allow_networks = [\"127.0.0.1\"], timeout = \"1s\" }",
    );
    let url = "https://idp.example/.well-known/openid-configuration";
    let url = url.parse().unwrap();
    assert_eq!(discovered.location, KeyLocation::Discovery(url));
    assert_eq!(discovered.stale_ttl, Duration::ZERO);
    let ca = Path::new("/etc/enforcer/ca.pem").to_owned();
    assert_eq!(discovered.outbound.ca, Some(ca));
    let networks = ["127.0.0.1/32".parse().unwrap()];
    assert_eq!(discovered.outbound.allow_networks, networks);
    assert_eq!(discovered.outbound.timeout, Duration::from_secs(1));
}

#[test]
fn a_document_is_below_the_issuers_name_whether_or_not_it_ends_in_a_slash() {
    let text = with_keys("discovery = true").replacen(
        "https://idp.example",
        "https://idp.example/realms/main/",
        1,
    );
    let config = parse(&text).unwrap();
    let KeySource::Published(keys) = &config.identity.jwt[0].keys else {
        panic!("{:?}", config.identity);
    };
    let url = "https://idp.example/realms/main/.well-known/openid-configuration";
    assert_eq!(keys.location, KeyLocation::Discovery(url.parse().unwrap()));
}

#[test]
fn slips_in_sources_of_keys() {
    for (keys, what, help) in [
        ("", "the issuer has no keys", "`discovery = true`"),
        ("discovery = false", "the issuer has no keys", "`jwks_url`"),
        (
            "discovery = true\njwks_file = \"jwks.json\"",
            "more than one source of keys",
            "keep one of",
        ),
        (
            "jwks_url = \"http://idp.example/keys\"",
            "`jwks_url` is not an `https://` URL",
            "https://",
        ),
        (
            "jwks_file = \"jwks.json\"\nrefresh_interval = \"1m\"",
            "`refresh_interval` has no effect",
            "`discovery = true`",
        ),
        (
            "discovery = true\nrefresh_interval = \"0s\"",
            "`refresh_interval` is zero",
            "",
        ),
        (
            "discovery = true\noutbound = { certificate = \"client.pem\" }",
            "`certificate` and `private_key` go together",
            "both",
        ),
        (
            "discovery = true\noutbound = { allow_networks = [\"10.0.0.1/8\"] }",
            "bits beyond its prefix",
            "`10.0.0.0/8`",
        ),
    ] {
        expect(&with_keys(keys), what, help);
    }
    let nameless = with_keys("discovery = true").replacen("https://idp.example", "idp", 1);
    expect(&nameless, "`idp` cannot be discovered", "`jwks_url`");
    let shared = GOOD.replacen(
        "secret_file = \"secret\"",
        "jwks_url = \"https://idp.example/keys\"",
        1,
    );
    expect(&shared, "`HS256` does not work with `jwks_url`", "RS256");
}

#[test]
fn an_issuer_is_asked_about_its_tokens() {
    let config = parse(&with_introspection(INTROSPECTION)).unwrap();
    let [asked] = &config.identity.introspection[..] else {
        panic!("{:?}", config.identity);
    };
    assert_eq!(asked.audience, [""; 0]);
    assert_eq!(asked.token_prefix, "");
    let secret = Path::new("/etc/enforcer/client-secret").to_owned();
    assert_eq!(asked.client.proof, ClientProof::SecretBasic(secret));
    assert_eq!(asked.active_ttl, Duration::from_secs(30));
    assert_eq!(asked.default_token_lifetime, Duration::from_secs(600));
    assert!(!asked.certificate_bound);

    let certificate = INTROSPECTION.replace(
        "client_secret_file = \"client-secret\"",
        "client_authentication = \"tls_client_auth\"\naudience = \"api\"\nactive_ttl = \"0s\"\n\
         certificate_bound = true\n\
         outbound = { certificate = \"cert.pem\", private_key = \"key.pem\" }",
    );
    let config = parse(&with_introspection(&certificate)).unwrap();
    let asked = &config.identity.introspection[0];
    assert_eq!(asked.client.proof, ClientProof::Tls);
    assert!(asked.certificate_bound);
    assert_eq!(
        (asked.audience[0].as_str(), asked.active_ttl),
        ("api", Duration::ZERO)
    );
}

#[test]
fn slips_in_introspection() {
    let without_secret = INTROSPECTION.replace("client_secret_file = \"client-secret\"", "");
    let with = |line: &str| format!("{INTROSPECTION}\n{line}");
    for (section, what, help) in [
        (
            without_secret.clone(),
            "no secret to show",
            "`client_secret_file`",
        ),
        (
            format!("{without_secret}client_authentication = \"tls_client_auth\""),
            "needs a certificate",
            "outbound",
        ),
        (
            with("client_authentication = \"tls_client_auth\""),
            "needs no secret",
            "remove",
        ),
        (
            with("client_authentication = \"basic\""),
            "cannot be `basic`",
            "`client_secret_basic`",
        ),
        (
            with("token_prefix = \"a b\""),
            "no beginning of a token",
            "at_",
        ),
        (with("audience = []"), "`audience` is empty", "aud"),
        (
            INTROSPECTION.replace("https://idp.example/i", "http://idp.example/i"),
            "`endpoint` is not an `https://` URL",
            "https://",
        ),
        (
            INTROSPECTION.replace("endpoint = \"https://idp.example/introspect\"\n", ""),
            "key `endpoint` is missing",
            "endpoint = \"https://",
        ),
    ] {
        expect(&with_introspection(&section), what, help);
    }
    let other = INTROSPECTION.replace("issuer = \"https://idp", "issuer = \"https://other");
    let twice = |second: &str| {
        let first = with_introspection(INTROSPECTION);
        format!("{first}[[identity.introspection]]\n{second}\n")
    };
    expect(&twice(&other), "look like those", "`token_prefix`");
    let prefixed = format!("{other}\ntoken_prefix = \"at_\"");
    assert!(parse(&twice(&prefixed)).is_ok());
    let again = format!("{INTROSPECTION}\ntoken_prefix = \"at_\"");
    expect(&twice(&again), "has a section on line", "one section");
}
