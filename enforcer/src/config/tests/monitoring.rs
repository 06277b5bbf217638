//! `[metrics]`, `[canary]`, `[detectors.NAME]`.

use super::*;
use crate::audit::{DetectorKind, DetectorSettings};

#[track_caller]
fn fault(added: &str, what: &str, help: &str) {
    let text = format!("{GOOD}\n{added}");
    let problems = problems(parse(&text).expect_err(what));
    let [problem] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert_eq!(problem.line, text.lines().count(), "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.help.contains(help), "{problem:?}");
}

#[test]
fn without_a_word_there_are_canaries_and_all_detectors_but_no_metrics_address() {
    let monitoring = parse(GOOD).unwrap().monitoring;
    assert_eq!(monitoring, Monitoring::default());
    assert_eq!(monitoring.metrics_address, None);
    assert_eq!(monitoring.canary_interval, Some(Duration::from_secs(3_600)));
    assert_eq!(monitoring.detectors.len(), DetectorKind::ALL.len());
}

#[test]
fn each_can_be_set_and_turned_off() {
    let text = format!(
        "{GOOD}\n[metrics]\naddress = \"127.0.0.1:9464\"\n[canary]\ninterval = \"0s\"\n\
         [detectors.refresh_storm]\nthreshold = 3\n[detectors.idle_return]\nenabled = false\n"
    );
    let monitoring = parse(&text).unwrap().monitoring;
    assert_eq!(monitoring.metrics_address, "127.0.0.1:9464".parse().ok());
    assert_eq!(monitoring.canary_interval, None);
    let storm = DetectorSettings {
        threshold: 3,
        window: Duration::from_secs(60),
    };
    assert_eq!(monitoring.detectors[&DetectorKind::RefreshStorm], storm);
    assert!(!monitoring.detectors.contains_key(&DetectorKind::IdleReturn));
}

#[test]
fn webhooks_and_traces_say_where_to_and_how() {
    let text = format!(
        "{GOOD}\n[[alerts.webhook]]\nname = \"chat\"\nurl = \"https://chat.example/hook\"\n\
         secret_file = \"chat.secret\"\noutbound = {{ timeout = \"1s\" }}\n\
         [traces]\notlp = \"http://127.0.0.1:4318\"\ncontinue_clients = true\n"
    );
    let monitoring = parse(&text).unwrap().monitoring;
    let [webhook] = &monitoring.webhooks[..] else {
        panic!("{monitoring:?}");
    };
    assert_eq!(webhook.url, "https://chat.example/hook");
    assert_eq!(webhook.secret_file, Path::new("/etc/enforcer/chat.secret"));
    assert_eq!(webhook.outbound.timeout, Duration::from_secs(1));
    assert!(monitoring.traces.unwrap().continue_clients);
}

#[test]
fn slips_of_webhooks() {
    let webhook = |name: &str, url: &str| {
        format!("[[alerts.webhook]]\nsecret_file = \"s\"\nname = \"{name}\"\nurl = \"{url}\"")
    };
    fault(
        &webhook("chat", "http://chat.example"),
        "not an `https://` URL",
        "url = ",
    );
    let dotted = webhook("..", "https://a").replacen("\nname = \"..\"", "", 1) + "\nname = \"..\"";
    fault(&dotted, "cannot be the name of a webhook", "begin it with");
    let one = webhook("a", "https://a");
    let two = "[[alerts.webhook]]\nsecret_file = \"s\"\nurl = \"https://a\"\nname = \"a\"";
    fault(
        &format!("{one}\n{two}"),
        "webhook `a` is on line",
        "its own name",
    );
    fault(
        "[traces]\notlp = \"collector:4318\"",
        "`otlp` is not",
        "http://collector",
    );
}

#[test]
fn slips() {
    fault(
        "[metrics]\naddress = \"localhost:9464\"",
        "is not an address with a port",
        "an IP address",
    );
    fault(
        "[metrics]\naddress = \"127.0.0.1:8443\"",
        "taken by the listener `public`",
        "another address",
    );
    fault("[canary]\ninterval = \"1s\"", "shorter", "\"10s\"");
    fault(
        "[detectors.refresh_strom]",
        "no detector `refresh_strom`",
        "`refresh_storm`?",
    );
    fault(
        "[detectors.idle_return]\nthreshold = 101",
        "`threshold` cannot be 101",
        "from 1 to 100",
    );
    fault(
        "[detectors.clock_skew]\nthreshold = 0",
        "`threshold` cannot be 0",
        "from 1",
    );
    fault(
        "[detectors.clock_skew]\nwindow = \"0s\"",
        "`window` is zero",
        "window = ",
    );
    fault(
        "[detectors.clock_skew]\ntreshold = 1",
        "unknown key `treshold`",
        "`threshold`?",
    );
}
