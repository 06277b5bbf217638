use std::collections::BTreeSet;

use super::*;
use crate::metrics::{GatewayFigures, RouteFigures};

/// Everything that can be there.
fn full() -> String {
    let mut tally = Tally::default();
    tally.ended.one("deadline");
    tally.observed.one("idle");
    tally.refused.one("token_expired");
    tally.received_bytes.add("client".into(), 7);
    tally.sent_bytes.add("client".into(), 7);
    let mut figures = RouteFigures::default();
    figures.answers[1] = 2;
    tally.add(GatewayFigures {
        routes: vec![(
            RouteLabels {
                listener: "public".to_owned(),
                host: "a \"b\"\\".to_owned(),
                path: "/x".to_owned(),
            },
            figures,
        )],
        handshakes: vec![("public".to_owned(), [3, 1])],
        upstream_errors: vec![("upstream_timeout".to_owned(), 1)],
        ..GatewayFigures::default()
    });
    let snapshot = Snapshot {
        abi_version: 1,
        policies: BTreeMap::from([("standard".to_owned(), PolicyLoad::default())]),
        maps: vec![MapFill {
            name: "SESSIONS".to_owned(),
            entries: 1,
            capacity: 10,
        }],
        programs: vec![("ingress".to_owned(), true)],
        canary: Some(CanaryResult {
            at: WallInstant::from_unix_seconds(1_700_000_000),
            passed: true,
        }),
        audit: AuditHealth {
            sequence: 9,
            ..AuditHealth::default()
        },
        exporters: vec![ExporterHealth {
            name: "siem".to_owned(),
            sequence: 7,
            delivered_at: Some(WallInstant::from_unix_seconds(1_700_000_001)),
            ..ExporterHealth::default()
        }],
        webhooks: vec![WebhookState {
            name: "chat".to_owned(),
            delivered_at: Some(WallInstant::from_unix_seconds(1_700_000_002)),
            ..WebhookState::default()
        }],
        ..Snapshot::default()
    };
    text(&tally, &snapshot)
}

/// Names of all samples.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// Names in something written about them.
fn mentioned(text: &str) -> BTreeSet<String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !in_name(c))
        .filter(|word| word.starts_with("enforcer_") && *word != "enforcer_")
        .map(str::to_owned)
        .collect()
}

#[test]
fn labels_are_escaped_and_known_values_start_at_zero() {
    let text = full();
    for line in [
        r#"enforcer_http_requests_total{listener="public",host="a \"b\"\\",path="/x",code="2xx"} 2"#,
        r#"enforcer_sessions_ended_total{reason="deadline"} 1"#,
        r#"enforcer_sessions_ended_total{reason="idle"} 0"#,
        r#"enforcer_alerts_total{detector="refresh_storm"} 0"#,
        r#"enforcer_tls_handshakes_total{listener="public",result="failed"} 1"#,
        r#"enforcer_cut_lateness_seconds_bucket{le="0.0001"} 0"#,
        r#"enforcer_canary_last_run_timestamp_seconds 1700000000"#,
        r#"enforcer_audit_export_behind_records{export="siem"} 2"#,
        r#"enforcer_audit_export_records_total{export="siem",result="rejected"} 0"#,
        r#"enforcer_audit_export_last_success_timestamp_seconds{export="siem"} 1700000001"#,
        r#"enforcer_webhook_last_success_timestamp_seconds{webhook="chat"} 1700000002"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn the_dashboard_the_rules_and_the_documentation_name_what_is_exported() {
    let exported = names(&full());
    let families: BTreeSet<_> = exported
        .iter()
        .map(|name| {
            let histogram = ["_bucket", "_sum", "_count"];
            let base = histogram
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            base.unwrap_or(name).to_owned()
        })
        .collect();
    let dashboard = include_str!("../../../../docs/grafana/enforcer.json");
    let rules = include_str!("../../../../docs/prometheus/alerts.yml");
    for (what, text) in [("dashboard", dashboard), ("rules", rules)] {
        let unknown: Vec<_> = mentioned(text).difference(&exported).cloned().collect();
        assert!(unknown.is_empty(), "the {what}: {unknown:?}");
    }
    let documented = mentioned(include_str!("../../../../docs/monitoring.md"));
    let missing: Vec<_> = families.difference(&documented).collect();
    assert!(missing.is_empty(), "undocumented: {missing:?}");
    let known: BTreeSet<_> = exported.union(&families).cloned().collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(unknown.is_empty(), "documented only: {unknown:?}");
}
