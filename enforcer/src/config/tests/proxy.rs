//! `proxy_protocol`.

use super::*;

const ADDRESS: &str = "address = \"0.0.0.0:8443\"\n";

fn with_networks(networks: &str) -> Result<Config, ConfigError> {
    let setting = format!("{ADDRESS}proxy_protocol = {{ from = {networks} }}\n");
    parse(&GOOD.replace(ADDRESS, &setting))
}

#[track_caller]
fn expect(result: Result<Config, ConfigError>, what: &str, help: &str) {
    let problems = problems(result.expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

#[test]
fn proxies_are_networks_or_addresses() {
    let config = with_networks("[\"10.0.0.0/8\", \"2001:db8::1\"]").unwrap();
    let expected = ["10.0.0.0/8", "2001:db8::1/128"].map(|text| text.parse().unwrap());
    assert_eq!(config.listeners["public"].proxies, expected);
    assert!(parse(GOOD).unwrap().listeners["public"].proxies.is_empty());
    expect(with_networks("[]"), "`from` is empty", "10.0.0.0/8");
    expect(with_networks("[\"lb\"]"), "not a network", "10.0.0.0/8");
    expect(
        with_networks("[\"10.0.0.1/8\"]"),
        "bits beyond its prefix",
        "write `10.0.0.0/8`",
    );
}

#[test]
fn clients_are_announced_where_they_share_nothing() {
    let session = "upstream_pool = \"session\"\n";
    let announcing = |version: &str| {
        parse(&GOOD.replace(
            session,
            &format!("{session}proxy_protocol = \"{version}\"\n"),
        ))
    };
    for (version, parsed) in [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)] {
        let config = announcing(version).unwrap();
        assert_eq!(config.routes[0].proxy_protocol, Some(parsed));
        assert_eq!(config.routes[1].proxy_protocol, None);
    }
    expect(announcing("v3"), "cannot be `v3`", "`v1`, `v2`");
    let shared = parse(&GOOD.replace(session, "proxy_protocol = \"v2\"\n"));
    expect(shared, "all of them share", "upstream_pool = \"session\"");
}
