//! The one way to the audit log, past those who watch: totals and detectors.

use std::cell::RefCell;

use crate::{
    audit::{AuditHealth, AuditSettings, AuditSink, Detectors, Event, Record},
    metrics::{GatewayFigures, Tally},
};

/// Takes records, counts them, lets the detectors look at them, and passes them on.
pub struct Recorder {
    sink: AuditSink,
    watch: RefCell<Watch>,
}

#[derive(Default)]
struct Watch {
    tally: Tally,
    detectors: Option<Detectors>,
    /// Records that somebody is to be told of.
    urgent: Vec<Record>,
}

impl Recorder {
    /// Nothing counted yet, and no detectors.
    pub fn new(sink: AuditSink) -> Self {
        Self {
            sink,
            watch: RefCell::default(),
        }
    }

    /// From now on the log is kept by these settings.
    pub fn reconfigure(&self, settings: AuditSettings) {
        self.sink.reconfigure(settings);
    }

    /// These look at records from now on.
    pub fn detect_with(&self, detectors: Detectors) {
        self.watch.borrow_mut().detectors = Some(detectors);
    }

    /// Queues the record, and an alert for what it completes.
    pub fn write(&self, record: Record) {
        let watch = &mut *self.watch.borrow_mut();
        let alerts = match &mut watch.detectors {
            Some(detectors) => detectors.observe(&record, record.time),
            None => Vec::new(),
        };
        watch.pass(&self.sink, record);
        for alert in alerts {
            watch.pass(&self.sink, alert.into_record());
        }
    }

    /// Adds what happened in a gateway.
    pub fn count(&self, figures: GatewayFigures) {
        self.watch.borrow_mut().tally.add(figures);
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.watch.borrow().tally.clone()
    }

    /// Alerts since the last call.
    pub fn take_urgent(&self) -> Vec<Record> {
        std::mem::take(&mut self.watch.borrow_mut().urgent)
    }

    /// How the log does.
    pub fn health(&self) -> AuditHealth {
        self.sink.health()
    }
}

/// Alerts that wait to be taken: what comes faster than that is one story anyhow.
const MOST_URGENT: usize = 1_000;

impl Watch {
    fn pass(&mut self, sink: &AuditSink, record: Record) {
        self.tally.observe(&record);
        if matches!(record.event, Event::Alert | Event::CanaryFailed) {
            log(&record);
            if self.urgent.len() < MOST_URGENT {
                self.urgent.push(record.clone());
            }
        }
        sink.write(record);
    }
}

/// For the daemon's log, which journald keeps: the fields are those of the record.
fn log(record: &Record) {
    tracing::warn!(
        event = record.event.as_str(),
        reason = record.reason.as_deref(),
        session = record.session.map(tracing::field::display),
        issuer = record.issuer.as_deref(),
        subject = record.subject.as_deref(),
        client = record.client.map(tracing::field::display),
        "{}",
        record.detail.as_deref().unwrap_or_default()
    );
}
