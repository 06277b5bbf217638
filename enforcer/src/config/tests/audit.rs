//! `[audit]`.

use super::*;

fn with(keys: &str) -> String {
    format!("{GOOD}\n[audit]\n{keys}\n")
}

#[test]
fn the_audit_log_is_kept_as_it_says_or_by_default() {
    let folder = Path::new("/etc/enforcer");
    let default = parse(GOOD).unwrap().audit;
    assert_eq!(default, Audit::within(&folder.join("state")));
    assert_eq!((default.keep, default.max_size), (None, 1 << 30));
    let keys = "keep = \"90d\"\nmax_size = \"64 MiB\"\nheads_file = \"heads\"";
    let audit = parse(&with(keys)).unwrap().audit;
    assert_eq!(audit.keep, Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(audit.max_size, 64 << 20);
    assert_eq!(audit.heads_file, folder.join("heads"));
    assert_eq!(audit.heads_interval, Duration::from_secs(60));
}

#[test]
fn what_is_no_size_is_refused_with_one_to_write() {
    for (size, what) in [
        ("1073741824", "has no unit"),
        ("lots", "is not a size"),
        ("1KiB", "is less than 1MiB"),
    ] {
        let text = with(&format!("max_size = \"{size}\""));
        let problems = problems(parse(&text).unwrap_err());
        assert!(problems[0].what.contains(what), "{problems:?}");
        assert!(problems[0].help.contains("\"1GiB\""), "{problems:?}");
    }
}

#[test]
fn an_export_goes_to_exactly_one_place() {
    let text = with(
        "[audit.exports.a]\njson_file = \"a.jsonl\"\n[audit.exports.b]\nsyslog = \"/dev/log\"\n\
         [audit.exports.c]\notlp = \"https://collector.example:4318/v1/logs\"",
    );
    let exports = parse(&text).unwrap().audit.exports;
    let file = Path::new("/etc/enforcer/a.jsonl").to_owned();
    assert_eq!(exports["a"], Export::JsonFile(file));
    assert_eq!(exports["b"], Export::Syslog("/dev/log".into()));
    let network = with("[audit.exports.a]\nsyslog = \"tls://logs.example\"\noutbound = {}");
    let network = parse(&network).unwrap().audit.exports;
    assert!(matches!(&network["a"], Export::SyslogNetwork(it) if it.port == 6514));
    let url = |export: &Export| match export {
        Export::Otlp { url, .. } => url.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(url(&exports["c"]), "https://collector.example:4318/v1/logs");
    for (keys, what) in [
        ("", "does not go to one place"),
        (
            "json_file = \"a\"\nsyslog = \"b\"",
            "does not go to one place",
        ),
        (
            "otlp = \"http://collector.example\"",
            "is not an `https://` URL",
        ),
        ("syslog = \"ftp://a\"", "is not a `tls://`"),
        (
            "syslog = \"udp://a\"\noutbound = { ca = \"ca.pem\" }",
            "are for TLS",
        ),
        ("syslog = \"a\"\noutbound = {}", "how a network is reached"),
    ] {
        let text = with(&format!("[audit.exports.a]\n{keys}"));
        let problems = problems(parse(&text).expect_err(keys));
        assert!(problems[0].what.contains(what), "{keys}: {problems:?}");
    }
}
