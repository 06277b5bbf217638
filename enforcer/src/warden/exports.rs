//! The exporters of the audit log, and the way of their batches through the loop to the gateway that
//! serves and back.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::mpsc::{self, Sender},
};

use super::{admin::GatewayState, core::Core, processes::Incoming};
use crate::{
    audit::{AuditSettings, Destination, Exporter, ExporterHealth, ExporterParts, HandOver},
    channel::{ExportBatch, ExportOutcome, ToGateway},
    config::{Config, Export},
};

/// To the loop.
type LoopSender = tokio::sync::mpsc::Sender<Incoming>;

/// All of them.
#[derive(Debug, Default)]
pub struct Exports {
    to_loop: Option<LoopSender>,
    running: BTreeMap<String, Export>,
    exporters: Vec<Exporter>,
    /// Where those that need the gateway wait for what it says.
    waiting: HashMap<String, Sender<(u64, ExportOutcome)>>,
}

impl Exports {
    /// Starts those of the configuration. Batches for the gateway go to the loop.
    pub fn start(config: &Config, to_loop: &LoopSender) -> io::Result<Self> {
        let settings = AuditSettings::of(config);
        let mut exports = Self {
            to_loop: Some(to_loop.clone()),
            running: config.audit.exports.clone(),
            ..Self::default()
        };
        for (name, export) in &config.audit.exports {
            let (destination, gateway) = match export {
                Export::JsonFile(path) => (Destination::JsonFile(path.clone()), None),
                Export::Syslog(path) => (Destination::Syslog(path.clone()), None),
                Export::SyslogNetwork(_) | Export::Otlp { .. } => {
                    let (outcomes, heard) = mpsc::channel();
                    exports.waiting.insert(name.clone(), outcomes);
                    let to_loop = to_loop.clone();
                    let hand_over: HandOver = Box::new(move |batch| {
                        to_loop.blocking_send(Incoming::Export(batch)).is_ok()
                    });
                    (Destination::Gateway, Some((hand_over, heard)))
                }
            };
            exports.exporters.push(Exporter::start(ExporterParts {
                name: name.clone(),
                destination,
                database: settings.database(),
                state_dir: settings.state_dir.clone(),
                gateway,
            })?);
        }
        Ok(exports)
    }

    /// How they do.
    pub fn health(&self) -> Vec<ExporterHealth> {
        self.exporters.iter().map(Exporter::health).collect()
    }

    /// What became of a batch.
    pub(super) fn heard(&self, exporter: &str, batch: u64, outcome: ExportOutcome) {
        if let Some(waiting) = self.waiting.get(exporter) {
            // One that is gone waits for nothing.
            let _ = waiting.send((batch, outcome));
        }
    }
}

impl Core {
    /// From now on the audit log is kept and passed on as the configuration says.
    pub(super) fn keep_audit(&mut self, config: &Config) {
        self.audit.reconfigure(AuditSettings::of(config));
        if self.exports.running == config.audit.exports {
            return;
        }
        let Some(to_loop) = self.exports.to_loop.clone() else {
            return;
        };
        match Exports::start(config, &to_loop) {
            Ok(exports) => self.exports = exports,
            Err(error) => tracing::error!("the audit exports stay as they were: {error}"),
        }
    }

    /// Hands a batch to the gateway that serves.
    pub(super) fn export(&mut self, batch: ExportBatch) {
        let serving = self
            .gateways
            .iter()
            .find(|(_, state, _)| *state == GatewayState::Serving)
            .map(|(id, ..)| id);
        match serving {
            Some(id) => self.gateways.send(id, ToGateway::Export(batch)),
            None => {
                let outcome = ExportOutcome::Failed("no gateway serves".to_owned());
                self.exports.heard(&batch.exporter, batch.batch, outcome);
            }
        }
    }
}
