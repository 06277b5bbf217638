//! What is passed on to others: audit records and alerts.

use super::{WebhookState, families::Families};
use crate::audit::ExporterHealth;

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
            [
                ("delivered", exporter.delivered),
                ("rejected", exporter.rejected),
                ("missed", exporter.missed),
            ]
            .map(|(result, count)| {
                let labels = vec![("export", exporter.name.as_str()), ("result", result)];
                (labels, count)
            })
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
        exporters.iter().filter_map(|exporter| {
            let at = exporter.delivered_at?;
            let labels = vec![("export", exporter.name.as_str())];
            Some((labels, at.as_unix_seconds() as f64))
        }),
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
            [
                ("delivered", webhook.delivered),
                ("failed", webhook.failed),
                ("dropped", webhook.dropped),
            ]
            .map(|(result, count)| {
                let labels = vec![("webhook", webhook.name.as_str()), ("result", result)];
                (labels, count)
            })
        }),
    );
    out.gauges(
        "enforcer_webhook_last_success_timestamp_seconds",
        "When a receiver last took an alert, since the epoch.",
        webhooks.iter().filter_map(|webhook| {
            let at = webhook.delivered_at?;
            let labels = vec![("webhook", webhook.name.as_str())];
            Some((labels, at.as_unix_seconds() as f64))
        }),
    );
}
