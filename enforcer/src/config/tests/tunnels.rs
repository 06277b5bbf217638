//! Routes of tunnels.

use super::*;

const TUNNEL: &str = r#"
[[routes]]
listener = "public"
protocol = "tunnel"
targets = ["db.internal:5432", "10.0.0.0/8:5900-5999"]
policy = "sensitive"
"#;

/// Replaces `from` by `to` and expects one problem on that line of the route.
#[track_caller]
fn expect(from: &str, to: &str, line: usize, what: &str, help: &str) {
    assert!(TUNNEL.contains(from), "{from}");
    let text = format!("{GOOD}{}", TUNNEL.replacen(from, to, 1));
    let problems = problems(parse(&text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem.line, GOOD.lines().count() + line, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

#[test]
fn a_tunnel_has_targets_and_no_upstream() {
    let config = parse(&format!("{GOOD}{TUNNEL}")).unwrap();
    assert_eq!(config.routes.len(), 2);
    let [tunnel] = &config.tunnels[..] else {
        panic!("{:?}", config.tunnels);
    };
    assert_eq!(tunnel.connect_timeout, Duration::from_secs(5));
    let name = HostPattern::Name("db.internal".to_owned());
    assert_eq!(tunnel.targets[0].host, name);
    let [vnc] = &tunnel.targets[1..] else {
        panic!("{:?}", tunnel.targets);
    };
    assert_eq!((vnc.ports.first, vnc.ports.last), (5900, 5999));
}

#[test]
fn a_tunnel_leads_somewhere_and_says_it_once() {
    let targets = "targets = [\"db.internal:5432\", \"10.0.0.0/8:5900-5999\"]\n";
    expect(targets, "", 2, "without `targets`", "`targets = [");
    expect(
        targets,
        "targets = []\n",
        2,
        "without `targets`",
        "`targets = [",
    );
    expect(
        "db.internal:5432",
        "db.internal",
        5,
        "`db.internal` has no port",
        "`db.internal:5432`",
    );
    let twice = "targets = [\"db.internal:5432\", \"DB.internal.:5432\"]\n";
    expect(targets, twice, 5, "collides", "remove one");
    expect(
        "\"public\"",
        "\"publik\"",
        3,
        "no listener `publik`",
        "`public`?",
    );
    expect("\"sensitive\"", "\"x\"", 6, "no policy `x`", "`sensitive`");
    expect(
        "\"tunnel\"",
        "\"tunel\"",
        4,
        "`protocol` cannot be `tunel`",
        "`tunnel`",
    );
}

#[test]
fn what_only_requests_have_has_no_place_in_a_tunnel() {
    for setting in [
        "upstream = \"http://a\"",
        "host = \"a\"",
        "path = \"/\"",
        "forward_token = true",
        "upstream_pool = \"shared\"",
        "response_timeout = \"1s\"",
    ] {
        let key = setting.split(' ').next().unwrap();
        let line = format!("policy = \"sensitive\"\n{setting}\n");
        let what = format!("`{key}` has no effect on a tunnel");
        expect("policy = \"sensitive\"\n", &line, 7, &what, "remove it");
    }
}

#[test]
fn targets_are_for_tunnels() {
    let text = GOOD.replace(
        "upstream = \"http://127.0.0.1:9000\"",
        "upstream = \"http://127.0.0.1:9000\"\ntargets = [\"a:1\"]",
    );
    let problems = problems(parse(&text).unwrap_err());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.contains("on tunnels only"));
    let text = GOOD.replace("upstream = \"http://127.0.0.1:9000\"\n", "");
    let problems = super::problems(parse(&text).unwrap_err());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].what, "key `upstream` is missing");
}
