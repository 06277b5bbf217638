//! `[metrics]`, `[canary]`, `[detectors.NAME]`, `[[alerts.webhook]]`, `[traces]`: what the daemon
//! says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Listener, Monitoring, Traces, Webhook,
    draft::Draft,
    duration::{RawDuration, Zero},
    files::Content,
    listeners::{overlap, parse_address},
    outbound,
    raw::{Named, RawOutbound},
};
use crate::audit::{DetectorKind, DetectorSettings};

const DEFAULT_CANARY_INTERVAL: Duration = Duration::from_secs(3_600);
/// A canary lives for a second, and waits for its end for a few more.
const SHORTEST_CANARY_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetrics {
    address: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCanary {
    interval: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDetector {
    enabled: Option<bool>,
    threshold: Option<Spanned<i64>>,
    window: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAlerts {
    #[serde(default)]
    webhook: Vec<RawWebhook>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    name: Spanned<String>,
    url: Spanned<String>,
    secret_file: Spanned<PathBuf>,
    outbound: Option<Spanned<RawOutbound>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTraces {
    otlp: Spanned<String>,
    continue_clients: Option<bool>,
    outbound: Option<Spanned<RawOutbound>>,
}

/// The sections as they are written.
pub(super) struct RawMonitoring {
    pub(super) metrics: RawMetrics,
    pub(super) canary: RawCanary,
    pub(super) detectors: Named<RawDetector>,
    pub(super) alerts: RawAlerts,
    pub(super) traces: Option<RawTraces>,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            metrics_address: None,
            canary_interval: Some(DEFAULT_CANARY_INTERVAL),
            detectors: DetectorKind::all_defaults(),
            webhooks: Vec::new(),
            traces: None,
        }
    }
}

pub(super) fn convert(
    draft: &mut Draft<'_>,
    raw: RawMonitoring,
    listeners: &BTreeMap<String, Listener>,
) -> Monitoring {
    Monitoring {
        metrics_address: raw
            .metrics
            .address
            .and_then(|address| metrics_address(draft, &address, listeners)),
        canary_interval: canary_interval(draft, raw.canary.interval.as_ref()),
        detectors: detectors(draft, raw.detectors),
        webhooks: webhooks(draft, raw.alerts.webhook),
        traces: raw.traces.and_then(|raw| traces(draft, &raw)),
    }
}

fn metrics_address(
    draft: &mut Draft<'_>,
    value: &Spanned<String>,
    listeners: &BTreeMap<String, Listener>,
) -> Option<SocketAddr> {
    let address = parse_address(draft, value)?;
    let taken = listeners
        .iter()
        .find(|(_, listener)| overlap(listener.address, address));
    if let Some((name, _)) = taken {
        let what = format!("`{address}` is taken by the listener `{name}`");
        draft.report(value, what, "write another address or port");
        return None;
    }
    Some(address)
}

/// `None`: no canary.
fn canary_interval(
    draft: &mut Draft<'_>,
    value: Option<&Spanned<RawDuration>>,
) -> Option<Duration> {
    let interval = draft.duration_or("interval", value, Zero::Allowed, DEFAULT_CANARY_INTERVAL);
    if interval.is_zero() {
        return None;
    }
    match value {
        Some(value) if interval < SHORTEST_CANARY_INTERVAL => {
            draft.report(
                value,
                "`interval` is shorter than a canary may take",
                "write at least `interval = \"10s\"`, or `\"0s\"` for no canary",
            );
            None
        }
        _ => Some(interval),
    }
}

fn detectors(
    draft: &mut Draft<'_>,
    raw: Named<RawDetector>,
) -> BTreeMap<DetectorKind, DetectorSettings> {
    let names: BTreeSet<_> = DetectorKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let mut detectors = DetectorKind::all_defaults();
    for (name, raw) in raw {
        let Some(known) = draft.reference("detector", &name, &names) else {
            continue;
        };
        let kind = DetectorKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == known);
        let Some(kind) = kind else { continue };
        if raw.enabled == Some(false) {
            detectors.remove(&kind);
            continue;
        }
        let defaults = kind.defaults();
        let settings = DetectorSettings {
            threshold: threshold(draft, kind, raw.threshold.as_ref()).unwrap_or(defaults.threshold),
            window: draft.duration_or(
                "window",
                raw.window.as_ref(),
                Zero::Refused,
                defaults.window,
            ),
        };
        detectors.insert(kind, settings);
    }
    detectors
}

fn threshold(
    draft: &mut Draft<'_>,
    kind: DetectorKind,
    value: Option<&Spanned<i64>>,
) -> Option<u32> {
    let value = value?;
    let most = match kind {
        // Percent of the idle timeout.
        DetectorKind::IdleReturn => 100,
        // As many networks as are remembered.
        DetectorKind::ManyNetworks => 64,
        _ => 10_000,
    };
    let fitting = u32::try_from(*value.get_ref()).ok();
    let fitting = fitting.filter(|number| (1..=most).contains(number));
    if fitting.is_none() {
        draft.report(
            value,
            format!("`threshold` cannot be {}", value.get_ref()),
            format!("write a number from 1 to {most}"),
        );
    }
    fitting
}

fn webhooks(draft: &mut Draft<'_>, raw: Vec<RawWebhook>) -> Vec<Webhook> {
    let mut lines = BTreeMap::new();
    let mut webhooks = Vec::new();
    for raw in raw {
        let name = raw.name.get_ref();
        draft.name("webhook", &raw.name);
        if name.starts_with('.') {
            let what = format!("`{name}` cannot be the name of a webhook");
            draft.report(&raw.name, what, "begin it with a letter or a digit");
        }
        if let Some(first) = lines.insert(name.clone(), draft.line(&raw.name)) {
            let what = format!("the webhook `{name}` is on line {first} already");
            draft.report(&raw.name, what, "give each its own name");
        }
        let url = outbound::url(draft, "url", &raw.url);
        let secret_file = draft.file(&raw.secret_file, Content::Secret);
        let outbound = outbound::convert(draft, raw.outbound.as_ref());
        if let Some(url) = url {
            webhooks.push(Webhook {
                name: raw.name.into_inner(),
                url,
                secret_file,
                outbound,
            });
        }
    }
    webhooks
}

fn traces(draft: &mut Draft<'_>, raw: &RawTraces) -> Option<Traces> {
    let outbound = outbound::convert(draft, raw.outbound.as_ref());
    match outbound::parse_plain(raw.otlp.get_ref()) {
        Ok(url) => Some(Traces {
            url,
            continue_clients: raw.continue_clients.unwrap_or(false),
            outbound,
        }),
        Err(fault) => {
            draft.report(
                &raw.otlp,
                format!("`otlp` {fault}"),
                "write the collector's address such as `otlp = \"http://collector:4318\"`",
            );
            None
        }
    }
}
