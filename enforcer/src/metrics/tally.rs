//! Totals since the warden started: from audit records, and from what gateways report.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use super::{
    Counts, Distribution,
    figures::{GatewayFigures, RouteFigures, RouteLabels},
};
use crate::audit::{ConnectionRole, Event, Record};

/// Upper bounds of the buckets for how late something was.
pub const LATENESS_BOUNDS: [Duration; 11] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// Routes and listeners that are told apart.
const MOST_ROUTES: usize = 16_384;

/// What was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions renewed.
    pub renewed: u64,
    /// Sessions ended, by reason.
    pub ended: Counts,
    /// Observed sessions that met their limit, by reason.
    pub observed: Counts,
    /// Requests and connections refused, by code.
    pub refused: Counts,
    /// Violations, by reason.
    pub violations: Counts,
    /// Connections bound, by role.
    pub connections_opened: Counts,
    /// Connections closed, by role.
    pub connections_closed: Counts,
    /// Payload received on closed connections, by role.
    pub received_bytes: Counts,
    /// Payload sent and acknowledged on closed connections, by role.
    pub sent_bytes: Counts,
    /// Sockets reset.
    pub sockets_reset: u64,
    /// Packets that were dropped of ended sessions.
    pub dropped_packets: u64,
    /// How long after the limit payload passed.
    pub cut_lateness: Distribution,
    /// How long after the limit the sockets were reset.
    pub reset_lateness: Distribution,
    /// Alerts by detector.
    pub alerts: Counts,
    /// Gateways that died.
    pub gateways_died: u64,
    /// By route.
    pub routes: BTreeMap<RouteLabels, RouteFigures>,
    /// TLS handshakes by listener: done.
    pub handshakes_done: Counts,
    /// TLS handshakes by listener: failed.
    pub handshakes_failed: Counts,
    /// Requests that an upstream failed, by code.
    pub upstream_errors: Counts,
    /// Reports of gateways that were lost.
    pub reports_lost: u64,
    /// Spans that were exported, and those that were not.
    pub spans: [u64; 2],
}

impl Default for Tally {
    fn default() -> Self {
        let none = Counts::default;
        let lateness = || Distribution::new(LATENESS_BOUNDS.len());
        Self {
            opened: 0,
            renewed: 0,
            ended: none(),
            observed: none(),
            refused: none(),
            violations: none(),
            connections_opened: none(),
            connections_closed: none(),
            received_bytes: none(),
            sent_bytes: none(),
            sockets_reset: 0,
            dropped_packets: 0,
            cut_lateness: lateness(),
            reset_lateness: lateness(),
            alerts: none(),
            gateways_died: 0,
            routes: BTreeMap::new(),
            handshakes_done: none(),
            handshakes_failed: none(),
            upstream_errors: none(),
            reports_lost: 0,
            spans: [0; 2],
        }
    }
}

impl Tally {
    /// Counts what a record tells of.
    pub fn observe(&mut self, record: &Record) {
        match record.event {
            Event::SessionOpened => self.opened += 1,
            Event::SessionRenewed => self.renewed += 1,
            Event::SessionEnded => self.session_ended(record),
            Event::SessionObserved => self.observed.one(reason(record)),
            Event::SessionRefused => self.refused.one(reason(record)),
            Event::Violation => self.violations.one(reason(record)),
            Event::Alert => self.alerts.one(reason(record)),
            Event::ConnectionOpened => self.connections_opened.one(role(record)),
            Event::ConnectionClosed => {
                self.connections_closed.one(role(record));
                let received = record.bytes_received.unwrap_or_default();
                self.received_bytes.add(role(record), received);
                let sent = record.bytes_sent.unwrap_or_default();
                self.sent_bytes.add(role(record), sent);
            }
            Event::GatewayDied => self.gateways_died += 1,
            _ => {}
        }
    }

    fn session_ended(&mut self, record: &Record) {
        self.ended.one(reason(record));
        self.sockets_reset += record.sockets_reset.unwrap_or_default();
        self.dropped_packets += record.dropped_packets.unwrap_or_default();
        for (distribution, micros) in [
            (&mut self.cut_lateness, record.lateness_us),
            (&mut self.reset_lateness, record.reset_lateness_us),
        ] {
            if let Some(micros) = micros {
                distribution.observe(&LATENESS_BOUNDS, Duration::from_micros(micros));
            }
        }
    }

    /// Adds what happened in a gateway.
    pub fn add(&mut self, figures: GatewayFigures) {
        for (labels, more) in figures.routes {
            let known = self.routes.contains_key(&labels);
            if known || self.routes.len() < MOST_ROUTES {
                self.routes.entry(labels).or_default().merge(&more);
            }
        }
        for (listener, [done, failed]) in figures.handshakes {
            self.handshakes_done.add(listener.clone().into(), done);
            self.handshakes_failed.add(listener.into(), failed);
        }
        for (code, count) in figures.upstream_errors {
            self.upstream_errors.add(code.into(), count);
        }
        self.reports_lost = self.reports_lost.saturating_add(figures.reports_lost);
        for (total, more) in self.spans.iter_mut().zip(figures.spans) {
            *total = total.saturating_add(more);
        }
    }
}

fn reason(record: &Record) -> Cow<'static, str> {
    record.reason.clone().unwrap_or(Counts::OTHER.into())
}

fn role(record: &Record) -> Cow<'static, str> {
    record
        .role
        .map_or(Counts::OTHER, ConnectionRole::as_str)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallInstant;

    fn record(event: Event) -> Record {
        Record::new(WallInstant::from_unix_seconds(0), event)
    }

    #[test]
    fn an_ended_session_counts_by_reason_and_with_its_lateness() {
        let mut tally = Tally::default();
        let mut ended = record(Event::SessionEnded).because("deadline");
        ended.lateness_us = Some(0);
        ended.reset_lateness_us = Some(700);
        ended.sockets_reset = Some(2);
        tally.observe(&ended);
        tally.observe(&record(Event::SessionEnded).because("revoked"));
        assert_eq!(tally.ended.get("deadline"), 1);
        assert_eq!(tally.sockets_reset, 2);
        assert_eq!(tally.cut_lateness.count(), 1);
        let reset: Vec<_> = tally.reset_lateness.cumulative().take(3).collect();
        assert_eq!(reset, [0, 0, 1]);
    }

    #[test]
    fn reports_of_gateways_add_up_and_are_bounded() {
        let mut tally = Tally::default();
        let labels = |path: String| RouteLabels {
            listener: "public".to_owned(),
            host: String::new(),
            path,
        };
        let mut figures = RouteFigures::default();
        figures.answers[1] = 3;
        for number in 0..MOST_ROUTES + 10 {
            tally.add(GatewayFigures {
                routes: vec![(labels(number.to_string()), figures.clone())],
                handshakes: vec![("public".to_owned(), [1, u64::MAX])],
                ..GatewayFigures::default()
            });
        }
        tally.add(GatewayFigures {
            routes: vec![(labels("0".to_owned()), figures)],
            ..GatewayFigures::default()
        });
        assert_eq!(tally.routes.len(), MOST_ROUTES);
        assert_eq!(tally.routes[&labels("0".to_owned())].answers[1], 6);
        assert_eq!(tally.handshakes_failed.get("public"), u64::MAX);
    }
}
