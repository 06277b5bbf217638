//! Audit records on their way to a network.
//!
//! The warden hands over one batch at a time of each exporter, and keeps it until it hears how that
//! went.

mod otlp;
mod syslog;

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;

use self::{otlp::Collector, syslog::SyslogSender};
use super::{
    link::Link,
    upstream::tls::{NativeRoots, UpstreamTlsError},
};
use crate::{
    channel::{ExportBatch, ExportOutcome, ToWarden},
    config::{Config, Export},
};

/// Batches that may wait: the warden sends one of each exporter.
const QUEUE: usize = 64;

/// Where records go, by the name of the exporter.
#[derive(Debug, Default)]
pub(crate) struct Receivers(HashMap<String, Arc<Receiver>>);

#[derive(Debug)]
enum Receiver {
    Otlp(Collector),
    Syslog(SyslogSender),
}

impl Receivers {
    /// Loads what the configuration names: to be called before the process is sealed.
    pub(crate) fn load(
        config: &Config,
        roots: &mut NativeRoots,
    ) -> Result<Self, (String, UpstreamTlsError)> {
        let mut receivers = HashMap::new();
        for (name, export) in &config.audit.exports {
            let receiver = match export {
                Export::JsonFile(_) | Export::Syslog(_) => continue,
                Export::SyslogNetwork(receiver) => {
                    SyslogSender::load(receiver, roots).map(Receiver::Syslog)
                }
                Export::Otlp { url, outbound } => {
                    Collector::load(url.clone(), outbound, roots).map(Receiver::Otlp)
                }
            };
            let receiver = receiver.map_err(|error| (name.clone(), error))?;
            receivers.insert(name.clone(), Arc::new(receiver));
        }
        Ok(Self(receivers))
    }

    /// Sends what the warden hands over, each batch by itself, for as long as the link lives.
    pub(crate) fn serve(self, link: &Arc<Link>) {
        let (sender, mut batches) = mpsc::channel::<ExportBatch>(QUEUE);
        link.take_exports(sender);
        let link = Arc::clone(link);
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                let receiver = self.0.get(&batch.exporter).cloned();
                let link = Arc::clone(&link);
                tokio::spawn(async move {
                    let ExportBatch {
                        exporter,
                        batch,
                        records,
                    } = batch;
                    let outcome = match receiver {
                        // A task of its own: whatever becomes of it, the warden hears of it.
                        Some(receiver) => {
                            tokio::spawn(async move { receiver.send(&records).await })
                                .await
                                .unwrap_or_else(|error| ExportOutcome::Failed(error.to_string()))
                        }
                        None => ExportOutcome::Failed("the gateway does not know it".to_owned()),
                    };
                    link.tell(ToWarden::Exported {
                        exporter,
                        batch,
                        outcome,
                    });
                });
            }
        });
    }
}

impl Receiver {
    async fn send(&self, records: &[String]) -> ExportOutcome {
        match self {
            Self::Otlp(collector) => collector.send(records).await,
            Self::Syslog(sender) => match sender.send(records).await {
                Ok(()) => ExportOutcome::Delivered,
                Err(error) => ExportOutcome::Interrupted(error.to_string()),
            },
        }
    }
}
