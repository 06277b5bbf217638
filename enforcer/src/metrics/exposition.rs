//! The figures as text (Prometheus text format, version 0.0.4).

mod deliveries;
mod families;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use enforcer_abi::Stats;

use self::families::{Families, Labels};
use super::{
    Counts, Tally,
    figures::{REQUEST_BOUNDS, RouteLabels, STATUS_CLASSES},
    tally::LATENESS_BOUNDS,
};
use crate::{
    audit::{AuditHealth, DetectorKind, ExporterHealth},
    clock::WallInstant,
    session::EndReason,
    warden::store::StoreHealth,
};

/// `Content-Type` of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is now, beside what has been counted.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Version of the maps' layouts.
    pub abi_version: u32,
    /// When the warden started, in seconds since the epoch.
    pub started_at_seconds: f64,
    /// Live sessions.
    pub sessions: usize,
    /// Their connections.
    pub connections: usize,
    /// Both for each policy.
    pub policies: BTreeMap<String, PolicyLoad>,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// Which programs are attached.
    pub programs: Vec<(String, bool)>,
    /// The kernel's counters.
    pub kernel: Stats,
    /// Gateways by state.
    pub gateways: BTreeMap<&'static str, usize>,
    /// Sockets that could not be reset yet.
    pub stuck_sockets: usize,
    /// The audit log.
    pub audit: AuditHealth,
    /// The store.
    pub store: StoreHealth,
    /// Canaries that passed, and those that failed.
    pub canaries: [u64; 2],
    /// The last one.
    pub canary: Option<CanaryResult>,
    /// The exporters of the audit log.
    pub exporters: Vec<ExporterHealth>,
    /// The receivers of alerts.
    pub webhooks: Vec<WebhookState>,
}

/// How much is under a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyLoad {
    /// Live sessions.
    pub sessions: usize,
    /// Their connections.
    pub connections: usize,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// How a canary went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryResult {
    /// When it was over.
    pub at: WallInstant,
    /// Whether the kernel cut it.
    pub passed: bool,
}

/// How alerts get to a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// Its name.
    pub name: String,
    /// Alerts that wait.
    pub queued: usize,
    /// Alerts that it has taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Alerts that it will never get.
    pub dropped: u64,
    /// When it last took one, since the start.
    pub delivered_at: Option<WallInstant>,
}

/// All figures.
pub fn text(tally: &Tally, snapshot: &Snapshot) -> String {
    let mut families = Families::default();
    build(&mut families, snapshot);
    sessions(&mut families, tally, snapshot);
    cuts(&mut families, tally);
    traffic(&mut families, tally);
    kernel(&mut families, snapshot);
    records(&mut families, tally, snapshot);
    families.text()
}

fn build(out: &mut Families, snapshot: &Snapshot) {
    let abi = snapshot.abi_version.to_string();
    let version = env!("CARGO_PKG_VERSION");
    out.gauges(
        "enforcer_build_info",
        "Version of the daemon and of its maps' layouts.",
        [(vec![("version", version), ("abi_version", &abi)], 1.0)],
    );
    out.gauge(
        "enforcer_start_time_seconds",
        "When the warden started, since the epoch.",
        snapshot.started_at_seconds,
    );
    let gateways = ["starting", "serving", "draining"];
    out.gauges(
        "enforcer_gateways",
        "Gateway processes by state.",
        gateways.map(|state| {
            let count = snapshot.gateways.get(state).copied().unwrap_or_default();
            (vec![("state", state)], count as f64)
        }),
    );
    out.gauges(
        "enforcer_program_attached",
        "Whether an eBPF program is attached to the daemon's cgroup.",
        snapshot
            .programs
            .iter()
            .map(|(name, attached)| (vec![("program", name.as_str())], f64::from(*attached))),
    );
}

fn sessions(out: &mut Families, tally: &Tally, snapshot: &Snapshot) {
    out.gauge(
        "enforcer_live_sessions",
        "Live sessions.",
        snapshot.sessions as f64,
    );
    out.gauge(
        "enforcer_live_connections",
        "Open connections of live sessions, of clients and to upstreams.",
        snapshot.connections as f64,
    );
    let policies = || snapshot.policies.iter();
    out.gauges(
        "enforcer_policy_sessions",
        "Live sessions under a policy. A session counts for each of its policies.",
        policies().map(|(name, load)| (vec![("policy", name.as_str())], load.sessions as f64)),
    );
    out.gauges(
        "enforcer_policy_connections",
        "Open connections of the live sessions under a policy.",
        policies().map(|(name, load)| (vec![("policy", name.as_str())], load.connections as f64)),
    );
    out.counter(
        "enforcer_sessions_opened_total",
        "Sessions opened.",
        tally.opened,
    );
    out.counter(
        "enforcer_sessions_renewed_total",
        "Sessions whose limits changed: a newer credential, or another policy.",
        tally.renewed,
    );
    out.counters(
        "enforcer_sessions_ended_total",
        "Sessions ended, by reason.",
        with_zeros(
            &tally.ended,
            "reason",
            &EndReason::ALL.map(EndReason::as_str),
        ),
    );
    out.counters(
        "enforcer_sessions_observed_total",
        "Sessions that are only observed and met their limit, by reason.",
        labelled(&tally.observed, "reason"),
    );
    out.counters(
        "enforcer_requests_refused_total",
        "Requests and connections refused, by code.",
        labelled(&tally.refused, "reason"),
    );
    out.counters(
        "enforcer_violations_total",
        "What must not happen, was tried and was stopped, by reason.",
        with_zeros(
            &tally.violations,
            "reason",
            &["pre_authentication_timeout", "unknown_session"],
        ),
    );
}

fn cuts(out: &mut Families, tally: &Tally) {
    out.histograms(
        "enforcer_cut_lateness_seconds",
        "How long after its limit the last payload of an ended session passed; 0 if none did.",
        &LATENESS_BOUNDS,
        [(Vec::new(), &tally.cut_lateness)],
    );
    out.histograms(
        "enforcer_reset_lateness_seconds",
        "How long after its limit the sockets of an ended session were reset.",
        &LATENESS_BOUNDS,
        [(Vec::new(), &tally.reset_lateness)],
    );
    out.counter(
        "enforcer_sockets_reset_total",
        "Sockets of ended sessions that were reset.",
        tally.sockets_reset,
    );
    out.counter(
        "enforcer_ended_session_packets_dropped_total",
        "Packets of ended sessions that were dropped, as their records say.",
        tally.dropped_packets,
    );
}

fn traffic(out: &mut Families, tally: &Tally) {
    let routes = || tally.routes.iter();
    out.histograms(
        "enforcer_http_request_duration_seconds",
        "How long until the head of the answer, by route.",
        &REQUEST_BOUNDS,
        routes().map(|(route, figures)| (route_labels(route), &figures.durations)),
    );
    out.counters(
        "enforcer_http_requests_total",
        "Requests answered, by route and class of status.",
        routes().flat_map(|(route, figures)| {
            let classes = STATUS_CLASSES.iter().zip(figures.answers);
            let answered = classes.filter(|(_, count)| *count > 0);
            answered.map(|(class, count)| {
                let mut labels = route_labels(route);
                labels.push(("code", class));
                (labels, count)
            })
        }),
    );
    out.counters(
        "enforcer_upstream_errors_total",
        "Requests that an upstream failed, by code.",
        labelled(&tally.upstream_errors, "reason"),
    );
    let handshakes = |counts, result| {
        let of_listener = move |(listener, count)| {
            let labels: Labels<'_> = vec![("listener", listener), ("result", result)];
            (labels, count)
        };
        Counts::iter(counts).map(of_listener)
    };
    out.counters(
        "enforcer_tls_handshakes_total",
        "TLS handshakes with clients.",
        handshakes(&tally.handshakes_done, "done")
            .chain(handshakes(&tally.handshakes_failed, "failed")),
    );
    out.counters(
        "enforcer_connections_opened_total",
        "Connections bound to a session, by role.",
        with_zeros(&tally.connections_opened, "role", &["client", "upstream"]),
    );
    out.counters(
        "enforcer_connections_closed_total",
        "Connections closed, by role.",
        with_zeros(&tally.connections_closed, "role", &["client", "upstream"]),
    );
    out.counters(
        "enforcer_received_bytes_total",
        "TCP payload received on closed connections, by role.",
        labelled(&tally.received_bytes, "role"),
    );
    out.counters(
        "enforcer_sent_bytes_total",
        "TCP payload sent and acknowledged on closed connections, by role.",
        labelled(&tally.sent_bytes, "role"),
    );
}

fn kernel(out: &mut Families, snapshot: &Snapshot) {
    let maps = || snapshot.maps.iter();
    out.gauges(
        "enforcer_map_entries",
        "Entries in an eBPF map.",
        maps().map(|map| (vec![("map", map.name.as_str())], map.entries as f64)),
    );
    out.gauges(
        "enforcer_map_capacity",
        "Entries that fit an eBPF map.",
        maps().map(|map| (vec![("map", map.name.as_str())], map.capacity as f64)),
    );
    let stats = &snapshot.kernel;
    out.counters(
        "enforcer_kernel_packets_dropped_total",
        "Packets dropped since the maps were made, by reason.",
        [
            ("deadline", stats.dropped_deadline),
            ("idle", stats.dropped_idle),
            ("revoked", stats.dropped_revoked),
            ("unknown_session", stats.dropped_unknown_session),
            ("pre_authentication", stats.dropped_pre_authentication),
            ("untracked", stats.dropped_untracked),
        ]
        .map(|(reason, count)| (vec![("reason", reason)], count)),
    );
    for (name, help, count) in [
        (
            "enforcer_kernel_packets_held_total",
            "Outgoing payload held back just before a limit.",
            stats.held_before_limit,
        ),
        (
            "enforcer_kernel_packets_observed_total",
            "Packets that observe mode let pass.",
            stats.observed,
        ),
        (
            "enforcer_kernel_events_lost_total",
            "Events that found the ring buffer full; the warden reads the maps instead.",
            stats.events_lost,
        ),
        (
            "enforcer_kernel_storage_failures_total",
            "Sockets whose storage could not be made.",
            stats.storage_failures,
        ),
        (
            "enforcer_kernel_connections_untracked_total",
            "Sockets that found CONNECTIONS full.",
            stats.connections_full,
        ),
        (
            "enforcer_kernel_connections_opened_total",
            "TCP connections opened in the daemon's cgroup.",
            stats.connections_opened,
        ),
        (
            "enforcer_kernel_connections_closed_total",
            "TCP connections closed in the daemon's cgroup.",
            stats.connections_closed,
        ),
    ] {
        out.counter(name, help, count);
    }
    out.gauge(
        "enforcer_stuck_sockets",
        "Sockets that could not be reset: dropped, and tried again.",
        snapshot.stuck_sockets as f64,
    );
}

fn records(out: &mut Families, tally: &Tally, snapshot: &Snapshot) {
    let audit = &snapshot.audit;
    out.gauge(
        "enforcer_audit_queue_records",
        "Audit records that wait to be written.",
        audit.queued as f64,
    );
    out.counter(
        "enforcer_audit_records_written_total",
        "Audit records written.",
        audit.written,
    );
    out.counter(
        "enforcer_audit_records_lost_total",
        "Audit records that were lost.",
        audit.lost,
    );
    out.gauge(
        "enforcer_audit_failing",
        "Whether the last write of the audit log failed.",
        f64::from(!audit.works()),
    );
    let store = &snapshot.store;
    out.gauge(
        "enforcer_store_queue_changes",
        "Changes of sessions that wait to be committed.",
        store.queued as f64,
    );
    out.counter(
        "enforcer_store_errors_total",
        "Commits of the store that failed.",
        store.errors,
    );
    out.counter(
        "enforcer_gateways_died_total",
        "Gateways that died and were replaced.",
        tally.gateways_died,
    );
    out.counter(
        "enforcer_gateway_reports_lost_total",
        "Reports of gateways to the warden that were lost.",
        tally.reports_lost,
    );
    let [exported, dropped] = tally.spans;
    out.counters(
        "enforcer_trace_spans_total",
        "Spans of requests, exported and dropped.",
        [
            (vec![("result", "exported")], exported),
            (vec![("result", "dropped")], dropped),
        ],
    );
    out.counters(
        "enforcer_alerts_total",
        "Alerts by detector.",
        with_zeros(
            &tally.alerts,
            "detector",
            &DetectorKind::ALL.map(DetectorKind::as_str),
        ),
    );
    canary(out, snapshot);
    deliveries::exporters(out, &snapshot.exporters, snapshot.audit.sequence);
    deliveries::webhooks(out, &snapshot.webhooks);
}

fn canary(out: &mut Families, snapshot: &Snapshot) {
    let [passed, failed] = snapshot.canaries;
    out.counters(
        "enforcer_canary_runs_total",
        "Canaries, by result.",
        [
            (vec![("result", "passed")], passed),
            (vec![("result", "failed")], failed),
        ],
    );
    if let Some(last) = snapshot.canary {
        out.gauge(
            "enforcer_canary_last_success",
            "Whether the last canary was cut as it should be.",
            f64::from(last.passed),
        );
        out.gauge(
            "enforcer_canary_last_run_timestamp_seconds",
            "When the last canary was over, since the epoch.",
            last.at.as_unix_seconds() as f64,
        );
    }
}

fn route_labels(route: &RouteLabels) -> Labels<'_> {
    vec![
        ("listener", &route.listener),
        ("host", &route.host),
        ("path", &route.path),
    ]
}

fn labelled<'a>(counts: &'a Counts, name: &'static str) -> impl Iterator<Item = (Labels<'a>, u64)> {
    counts
        .iter()
        .map(move |(label, count)| (vec![(name, label)], count))
}

/// With a zero for what is known to be possible: a rate needs a value from before the first.
fn with_zeros<'a>(
    counts: &'a Counts,
    name: &'static str,
    known: &[&'static str],
) -> Vec<(Labels<'a>, u64)> {
    let zeros = known.iter().filter(|label| counts.get(label) == 0);
    let zeros = zeros.map(|label| (vec![(name, *label)], 0));
    labelled(counts, name).chain(zeros).collect()
}
