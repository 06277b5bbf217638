//! What is passed on to others: audit records and alerts.

use super::{
    WebhookState,
    families::{Families, Labels},
};
use crate::{audit::ExporterHealth, clock::WallInstant};

/// With the number of the last record that was written.
pub(super) fn exporters(out: &mut Families, exporters: &[ExporterHealth], written: u64) {
    out.gauges(
        "enforcer_audit_export_behind_records",
        "Audit records that wait for an exporter to deliver them.",
        exporters.iter().map(|exporter| {
            let behind = written.saturating_sub(exporter.sequence);
            (vec![("export", exporter.name.as_str())], behind as f64)
        }),
    );
    out.counters(
        "enforcer_audit_export_records_total",
        "Audit records delivered, refused by the receiver for good, and removed before they were.",
        exporters.iter().flat_map(|exporter| {
            let results = [
                ("delivered", exporter.delivered),
                ("rejected", exporter.rejected),
                ("missed", exporter.missed),
            ];
            by_result(("export", &exporter.name), results)
        }),
    );
    out.counters(
        "enforcer_audit_export_failures_total",
        "Deliveries of audit records that failed and are tried again.",
        exporters
            .iter()
            .map(|exporter| (vec![("export", exporter.name.as_str())], exporter.failed)),
    );
    out.gauges(
        "enforcer_audit_export_last_success_timestamp_seconds",
        "When an exporter last delivered, since the epoch.",
        exporters
            .iter()
            .filter_map(|exporter| success(("export", &exporter.name), exporter.delivered_at)),
    );
}

pub(super) fn webhooks(out: &mut Families, webhooks: &[WebhookState]) {
    out.gauges(
        "enforcer_webhook_queue_alerts",
        "Alerts that wait for a receiver.",
        webhooks.iter().map(|webhook| {
            (
                vec![("webhook", webhook.name.as_str())],
                webhook.queued as f64,
            )
        }),
    );
    out.counters(
        "enforcer_webhook_deliveries_total",
        "Alerts delivered, attempts that failed, and alerts that were given up.",
        webhooks.iter().flat_map(|webhook| {
            let results = [
                ("delivered", webhook.delivered),
                ("failed", webhook.failed),
                ("dropped", webhook.dropped),
            ];
            by_result(("webhook", &webhook.name), results)
        }),
    );
    out.gauges(
        "enforcer_webhook_last_success_timestamp_seconds",
        "When a receiver last took an alert, since the epoch.",
        webhooks
            .iter()
            .filter_map(|webhook| success(("webhook", &webhook.name), webhook.delivered_at)),
    );
}

fn by_result<'a>(
    receiver: (&'static str, &'a str),
    results: [(&'static str, u64); 3],
) -> [(Labels<'a>, u64); 3] {
    results.map(|(result, count)| (vec![receiver, ("result", result)], count))
}

fn success<'a>(
    receiver: (&'static str, &'a str),
    at: Option<WallInstant>,
) -> Option<(Labels<'a>, f64)> {
    Some((vec![receiver], at?.as_unix_seconds() as f64))
}
