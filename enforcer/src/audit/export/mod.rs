//! Exporters: each follows the log and passes its records on, to a file, to a syslog socket of this
//! machine, or by way of the gateway to a network.
//!
//! ```text
//!           batch delivered: cursor moves           delivery fails (1 s, doubling to 1 min)
//!   Sending ------------------------> Sending  -----------------------------> Waiting
//!      ^                                                                        |
//!      +------------------------------------------------------------------------+
//! ```
//!
//! An exporter has a thread and a cursor on the disk: over restarts nothing is passed over, and what
//! was sent right before one may be sent twice. The log itself is the queue, so one that hangs
//! holds up nobody, and what retention removes before it was sent is counted as missed.

mod cursor;
mod message;
mod recent;
mod syslog;

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub(crate) use message::{host_name, is_grave, message as syslog_message};

use self::{cursor::CursorFile, recent::Recent, syslog::SyslogSocket};
use super::{AuditReader, Filter, ReadError, StoredRecord, lines::LineFile, rfc3339};
use crate::{
    channel::{ExportBatch, ExportOutcome, MAX_EXPORT},
    clock::{self, WallInstant},
};

/// Records of a batch.
const BATCH: usize = 200;
/// How often it is looked for new records.
const TICK: Duration = Duration::from_millis(200);
const SHORTEST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Longest wait for what the gateway has to say of a batch: longer than it asks others.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// Where an exporter passes records on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file of JSON lines.
    JsonFile(PathBuf),
    /// A datagram socket of this machine that takes syslog messages (RFC 5424).
    Syslog(PathBuf),
    /// The gateway, which knows from its configuration what to do with it.
    Gateway,
}

/// How an exporter does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExporterHealth {
    /// Its name in the configuration.
    pub name: String,
    /// Number of the last record that was delivered.
    pub sequence: u64,
    /// Records delivered since the start.
    pub delivered: u64,
    /// Records that the receiver will not take, and that were passed over.
    pub rejected: u64,
    /// Records that were removed from the log before they were delivered.
    pub missed: u64,
    /// Deliveries that failed, and were or are to be tried again.
    #[serde(default)]
    pub failed: u64,
    /// When a delivery last succeeded; absent before the first since the start.
    #[serde(
        default,
        with = "rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub delivered_at: Option<WallInstant>,
    /// Why the last delivery failed; absent while deliveries succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Hands a batch to the gateway.
pub type HandOver = Box<dyn Fn(ExportBatch) -> bool + Send>;

/// A running exporter.
#[derive(Debug)]
pub struct Exporter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    health: Mutex<ExporterHealth>,
    stop: AtomicBool,
    stopped: (Mutex<()>, Condvar),
}

impl Shared {
    fn health(&self) -> MutexGuard<'_, ExporterHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, unless it is to stop.
    fn sleep(&self, duration: Duration) {
        let (lock, changed) = &self.stopped;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = changed.wait_timeout_while(guard, duration, |()| !self.stops());
    }
}

/// What makes an exporter.
pub struct ExporterParts {
    /// Its name in the configuration.
    pub name: String,
    /// Where it passes records on to.
    pub destination: Destination,
    /// The log.
    pub database: PathBuf,
    /// Where its cursor is.
    pub state_dir: PathBuf,
    /// To the gateway, and what it says of each batch; for that destination alone.
    pub gateway: Option<(HandOver, Receiver<(u64, ExportOutcome)>)>,
}

impl Exporter {
    /// Starts to pass records on, from where the cursor is: without one, from the oldest record.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(parts: ExporterParts) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let cursor = CursorFile::new(&parts.state_dir, &parts.name);
        *shared.health() = ExporterHealth {
            name: parts.name.clone(),
            sequence: cursor.sequence(),
            ..ExporterHealth::default()
        };
        let run = Run {
            shared: Arc::clone(&shared),
            cursor,
            way: match (parts.destination, parts.gateway) {
                (Destination::JsonFile(path), _) => Way::File(LineFile::new(path)),
                (Destination::Syslog(path), _) => Way::Syslog(SyslogSocket::new(path)),
                (Destination::Gateway, gateway) => Way::Gateway {
                    gateway,
                    name: parts.name,
                    // No batch of an exporter before this one has the same number.
                    next_batch: clock::boot_now().as_nanos(),
                },
            },
            database: parts.database,
            reader: None,
            backoff: SHORTEST_BACKOFF,
            recent: Recent::default(),
        };
        let thread = thread::Builder::new()
            .name("audit-export".to_owned())
            .spawn(move || run.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How it does.
    pub fn health(&self) -> ExporterHealth {
        self.shared.health().clone()
    }
}

/// It stops after the delivery that is under way, which nobody waits for.
impl Drop for Exporter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.stopped.1.notify_all();
        drop(self.thread.take());
    }
}

enum Way {
    File(LineFile),
    Syslog(SyslogSocket),
    Gateway {
        gateway: Option<(HandOver, Receiver<(u64, ExportOutcome)>)>,
        name: String,
        next_batch: u64,
    },
}

struct Run {
    shared: Arc<Shared>,
    cursor: CursorFile,
    way: Way,
    database: PathBuf,
    reader: Option<AuditReader>,
    backoff: Duration,
    recent: Recent,
}

impl Run {
    fn run(mut self) {
        while !self.shared.stops() {
            let records = match self.read() {
                Ok(records) => records,
                Err(error) => {
                    self.failed(&error.with_cause());
                    continue;
                }
            };
            let Some(last) = records.last().map(|record| record.sequence) else {
                self.shared.sleep(TICK);
                continue;
            };
            let first = records.first().map_or(last, |record| record.sequence);
            let outcome = self.way.deliver(&records);
            let count = records.len() as u64;
            let missed = first.saturating_sub(self.cursor.sequence() + 1);
            match outcome {
                ExportOutcome::Failed(error) => {
                    // The same records are read again.
                    self.reader = None;
                    self.failed(&error);
                    continue;
                }
                ExportOutcome::Interrupted(error) => {
                    self.reader = None;
                    self.go_back();
                    self.failed(&error);
                    continue;
                }
                ExportOutcome::Rejected(error) => {
                    tracing::error!(first, last, error, "audit records were not taken");
                    self.shared.health().rejected += count;
                }
                ExportOutcome::Delivered => {
                    let mut health = self.shared.health();
                    health.delivered += count;
                    health.delivered_at = Some(clock::wall_now());
                }
            }
            self.backoff = SHORTEST_BACKOFF;
            let before = self.cursor.sequence();
            self.recent.delivered(before, last, clock::boot_now());
            let moved = self.cursor.move_to(last);
            let mut health = self.shared.health();
            if health.last_error.take().is_some() {
                tracing::info!(exporter = health.name, "audit records are delivered again");
            }
            health.missed += missed;
            health.sequence = last;
            health.last_error = moved.err().map(|error| format!("its cursor: {error}"));
        }
    }

    /// Records that come next: few enough for one message to the gateway.
    fn read(&mut self) -> Result<Vec<StoredRecord>, ReadError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let mut reader = AuditReader::follow(&self.database, Filter::default())?;
                if let Some(chain) = reader.chain() {
                    reader.skip_through(self.cursor.sequence_in(chain));
                }
                none.insert(reader)
            }
        };
        let mut records = reader.read(BATCH)?;
        if let Some(chain) = reader.chain()
            && self.cursor.chain() != Some(chain)
        {
            // Another database: its chain is passed on from its begin.
            self.cursor.begin(chain);
        }
        let mut size = 0;
        let fitting = records.iter().take_while(|record| {
            size += record.text.len();
            size <= MAX_EXPORT
        });
        let fitting = fitting.count().max(1);
        if fitting < records.len() {
            records.truncate(fitting);
            if let Some(last) = records.last() {
                reader.skip_through(last.sequence);
            }
        }
        Ok(records)
    }

    /// To before what the receiver may have lost.
    fn go_back(&mut self) {
        let at = self.cursor.sequence();
        let Some(before) = self.recent.interrupted(at, clock::boot_now()) else {
            return;
        };
        match self.cursor.move_to(before) {
            Ok(()) => self.shared.health().sequence = before,
            Err(error) => tracing::error!(%error, "the cursor of an audit export does not move"),
        }
    }

    fn failed(&mut self, error: &str) {
        let mut health = self.shared.health();
        if health.last_error.is_none() {
            tracing::error!(
                exporter = health.name,
                error,
                "audit records are not delivered"
            );
        }
        health.last_error = Some(error.to_owned());
        health.failed += 1;
        drop(health);
        self.shared.sleep(self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }
}

impl Way {
    fn deliver(&mut self, records: &[StoredRecord]) -> ExportOutcome {
        let result = match self {
            Self::File(file) => {
                let mut lines = String::new();
                for record in records {
                    lines += &record.line();
                    lines.push('\n');
                }
                let mut lines = lines.into_bytes();
                file.append(&mut lines).and_then(|()| file.sync())
            }
            Self::Syslog(socket) => return socket.send(records),
            Self::Gateway {
                gateway,
                name,
                next_batch,
            } => return by_gateway(gateway.as_ref(), name, next_batch, records),
        };
        match result {
            Ok(()) => ExportOutcome::Delivered,
            Err(error) => ExportOutcome::Failed(error.to_string()),
        }
    }
}

fn by_gateway(
    gateway: Option<&(HandOver, Receiver<(u64, ExportOutcome)>)>,
    name: &str,
    next_batch: &mut u64,
    records: &[StoredRecord],
) -> ExportOutcome {
    let Some((hand_over, outcomes)) = gateway else {
        return ExportOutcome::Failed("there is no gateway".to_owned());
    };
    if records.iter().any(|record| record.text.len() > MAX_EXPORT) {
        // It is alone in its batch.
        return ExportOutcome::Rejected("the record is too long".to_owned());
    }
    *next_batch += 1;
    let batch = ExportBatch {
        exporter: name.to_owned(),
        batch: *next_batch,
        records: records.iter().map(StoredRecord::line).collect(),
    };
    if !hand_over(batch) {
        return ExportOutcome::Failed("the daemon is stopping".to_owned());
    }
    loop {
        match outcomes.recv_timeout(OUTCOME_TIMEOUT) {
            Ok((batch, outcome)) if batch == *next_batch => return outcome,
            // Of a batch that was given up.
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                return ExportOutcome::Failed("the gateway does not say how it went".to_owned());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return ExportOutcome::Failed("the daemon is stopping".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests;
