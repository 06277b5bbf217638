//! Alerts on their way to webhooks: queued here and on the disk, sent by the gateway.
//!
//! ```text
//!   push --> waiting --due--> in flight --Delivered--> gone
//!               ^                 |
//!               +-- back-off -----+  an error, or no word in time
//! ```
//!
//! One alert is in flight for each receiver: one that hangs holds up only itself. An alert may
//! reach a receiver twice, when the answer to the first attempt was lost; its id says so.

mod queue;
mod spool;

use std::{collections::BTreeMap, path::Path};

use self::{
    queue::{Alert, Queue},
    spool::Spool,
};
use super::{admin::GatewayState, core::Core};
use crate::{
    audit::Record,
    channel::{Delivery, ToGateway},
    clock::Now,
    config::Config,
    metrics::WebhookState,
};

/// Folder of the queues in `state_dir`.
const FOLDER: &str = "alerts";

/// The queues of all receivers.
#[derive(Default)]
pub struct Alerts {
    queues: BTreeMap<String, Queue>,
    spool: Option<Spool>,
}

impl Alerts {
    /// Queues for the receivers of the configuration, with what is left on the disk for them. A disk
    /// that can't be used is said, and the queues are in memory then.
    pub fn open(config: &Config) -> Self {
        let names: Vec<_> = config
            .monitoring
            .webhooks
            .iter()
            .map(|webhook| webhook.name.clone())
            .collect();
        if names.is_empty() {
            return Self::default();
        }
        let (spool, mut kept) = match Spool::open(&config.daemon.state_dir.join(FOLDER), &names) {
            Ok((spool, kept)) => (Some(spool), kept),
            Err(error) => {
                tracing::error!(%error, "alerts cannot be queued on the disk");
                (None, BTreeMap::new())
            }
        };
        let queue = |name: String| {
            let queue = Queue::new(kept.remove(&name).unwrap_or_default());
            (name, queue)
        };
        Self {
            queues: names.into_iter().map(queue).collect(),
            spool,
        }
    }

    /// How each receiver does.
    pub fn states(&self) -> Vec<WebhookState> {
        self.queues
            .iter()
            .map(|(name, queue)| queue.state(name))
            .collect()
    }

    fn push(&mut self, record: &Record, now: Now) {
        let Ok(body) = serde_json::to_string(record) else {
            return;
        };
        for (webhook, queue) in &mut self.queues {
            let alert = Alert {
                id: alert_id(now),
                body: body.clone(),
                raised_at: now.wall,
            };
            if queue.push(alert.clone())
                && let Some(spool) = &self.spool
            {
                spool.store(webhook, alert);
            }
        }
    }

    /// What is to be sent now.
    fn due(&mut self, now: Now) -> Vec<Delivery> {
        let mut due = Vec::new();
        for (webhook, queue) in &mut self.queues {
            for given_up in queue.give_up(now) {
                tracing::error!(webhook, "an alert is given up: nobody took it for too long");
                if let Some(spool) = &self.spool {
                    spool.remove(webhook, given_up);
                }
            }
            if let Some(alert) = queue.due(now.boot, random()) {
                due.push(Delivery {
                    webhook: webhook.clone(),
                    id: alert.id.clone(),
                    body: alert.body.clone(),
                });
            }
        }
        due
    }

    fn settled(&mut self, webhook: &str, id: &str, failure: Option<&str>, now: Now) {
        let Some(queue) = self.queues.get_mut(webhook) else {
            return;
        };
        if let Some(failure) = failure {
            tracing::warn!(webhook, failure, "an alert was not taken; it is sent again");
        }
        if queue.settled(id, failure.is_none(), now, random())
            && let Some(spool) = &self.spool
        {
            spool.remove(webhook, id.to_owned());
        }
    }
}

impl Core {
    /// Once a second: queues what was raised, and has sent what is due.
    pub(super) fn tend_alerts(&mut self, now: Now) {
        for record in self.audit.take_urgent() {
            self.alerts.push(&record, now);
        }
        let serving = self
            .gateways
            .iter()
            .find(|(_, state, _)| *state == GatewayState::Serving)
            .map(|(id, ..)| id);
        let Some(gateway) = serving else { return };
        for delivery in self.alerts.due(now) {
            self.gateways.send(gateway, ToGateway::Deliver(delivery));
        }
    }

    /// A gateway says what became of an alert.
    pub(super) fn on_delivered(
        &mut self,
        webhook: &str,
        id: &str,
        failure: Option<&str>,
        now: Now,
    ) {
        self.alerts.settled(webhook, id, failure, now);
    }

    /// Takes over the receivers of a configuration, and what waits for them.
    pub(super) fn open_alerts(&mut self, config: &Config) {
        self.alerts = Alerts::open(config);
    }
}

/// The order of ids is that of the alerts.
fn alert_id(now: Now) -> String {
    format!("{:020}-{:08x}", now.wall.as_unix_nanos().max(0), random())
}

/// Spreads attempts, and tells alerts of one instant apart. Nothing secret hangs on it.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers all receivers are tried at the same pace.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

/// Whether a name can be a file's here: an id that this module has made.
fn is_id(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Where the alerts of a receiver are.
fn folder_of(root: &Path, webhook: &str) -> std::path::PathBuf {
    root.join(webhook)
}
