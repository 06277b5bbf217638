//! The thread that writes the log.
//!
//! [`AuditSink::write`] puts a record into a bounded queue and returns. The thread takes what is
//! queued and appends it in one transaction; when that fails it keeps the records and tries again
//! each second. A record that finds the queue full is lost; the log says how many were, as soon as
//! it can say anything again. Nothing that happens here is ever in the way of a cut.
//!
//! ```text
//!              append fails                       append fails (retry each second)
//!   Working ----------------> Failing, last_error -------------+
//!      ^                          |            ^               |
//!      +--------------------------+            +---------------+
//!        append succeeds: audit_lost first, if records were lost
//! ```

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    AuditSettings, Event, Record,
    floods::{Floods, is_anybodys},
    keeper::Keeper,
};
use crate::clock;

/// Records that may wait for the disk.
const QUEUE_CAPACITY: usize = 32_768;
/// Records of one transaction.
const BATCH: usize = 1_000;
/// How long a record waits for company.
const GATHER_TIME: Duration = Duration::from_millis(20);
/// Time between attempts on a log that can't be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the thread looks what else is to be done.
const CHORE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a hung disk at shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the log does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHealth {
    /// The database.
    pub path: PathBuf,
    /// Records written since the start.
    pub written: u64,
    /// Records that wait to be written.
    pub queued: u64,
    /// Records that will never be.
    pub lost: u64,
    /// Records that came too often and were counted instead of written.
    pub counted: u64,
    /// Number of the last record in the database.
    pub sequence: u64,
    /// Why the last write failed; absent while writes succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Why no head can be signed or written, or nothing removed; absent while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upkeep_error: Option<String>,
}

impl AuditHealth {
    /// Records get into the log.
    pub const fn works(&self) -> bool {
        self.last_error.is_none()
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Record>,
    settings: Option<AuditSettings>,
    closing: bool,
    closed: bool,
    health: AuditHealth,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, longest: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, longest)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// The log and the thread that writes it.
#[derive(Debug)]
pub struct AuditLog {
    sink: AuditSink,
}

/// Where records go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditSink {
    shared: Arc<Shared>,
}

impl AuditLog {
    /// Starts to write. A log that can't be opened is tried again until it can;
    /// [`AuditSink::health`] tells.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn open(settings: AuditSettings) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().health.path = settings.database();
        let writer = Writer {
            shared: Arc::clone(&shared),
            keeper: Keeper::new(settings),
            floods: Floods::default(),
            batch: VecDeque::new(),
            lost_reported: 0,
        };
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            sink: AuditSink { shared },
        })
    }

    /// Where records go.
    pub fn sink(&self) -> AuditSink {
        self.sink.clone()
    }

    /// Writes what is queued and stops. Waits 2 s at most; what could not be written by then
    /// counts as lost.
    pub fn close(self) -> AuditHealth {
        let shared = &self.sink.shared;
        let mut state = shared.lock();
        state.closing = true;
        shared.changed.notify_all();
        let (state, _) = shared
            .changed
            .wait_timeout_while(state, CLOSE_TIMEOUT, |state| !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.health.clone()
    }
}

impl AuditSink {
    /// Queues the record, or counts it as lost. Never waits for the disk.
    pub fn write(&self, record: Record) {
        let mut state = self.shared.lock();
        // What anybody can cause leaves room for the rest.
        let room = if is_anybodys(&record) {
            QUEUE_CAPACITY / 2
        } else {
            QUEUE_CAPACITY
        };
        if state.closing || state.queue.len() >= room {
            state.health.lost += 1;
            return;
        }
        state.queue.push_back(record);
        if state.queue.len() == 1 {
            self.shared.changed.notify_all();
        }
    }

    /// From now on the log is kept by these settings; another `state_dir` is for the next start.
    pub fn reconfigure(&self, settings: AuditSettings) {
        self.shared.lock().settings = Some(settings);
        self.shared.changed.notify_all();
    }

    /// How the log does.
    pub fn health(&self) -> AuditHealth {
        let state = self.shared.lock();
        let mut health = state.health.clone();
        health.queued += state.queue.len() as u64;
        health
    }
}

struct Writer {
    shared: Arc<Shared>,
    keeper: Keeper,
    floods: Floods,
    /// Records that are being written; `health.queued` counts them.
    batch: VecDeque<Record>,
    lost_reported: u64,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (closing, lost) = self.gather();
            let written = self.write(lost);
            if closing && (written.is_err() || self.batch.is_empty()) {
                let empty = self.shared.lock().queue.is_empty();
                if written.is_err() || empty {
                    return self.close();
                }
            }
            if written.is_err() {
                self.pause(RETRY_INTERVAL);
            } else {
                self.upkeep(false);
            }
        }
    }

    /// Waits for records, or until something else is to be done, and fills the batch.
    fn gather(&mut self) -> (bool, u64) {
        let mut state = self.shared.lock();
        if self.batch.is_empty() && !self.keeper.is_busy() {
            if state.queue.is_empty() && !state.closing && state.settings.is_none() {
                state = self.shared.wait(state, CHORE_INTERVAL);
            }
            if (1..BATCH).contains(&state.queue.len()) && !state.closing {
                drop(state);
                thread::sleep(GATHER_TIME);
                state = self.shared.lock();
            }
        }
        let room = BATCH.saturating_sub(self.batch.len());
        let taken = state.queue.len().min(room);
        let now = clock::boot_now();
        let taken: Vec<_> = state.queue.drain(..taken).collect();
        let before = self.batch.len() + taken.len();
        let admitted = taken.into_iter();
        self.batch
            .extend(admitted.filter_map(|record| self.floods.admit(record, now)));
        state.health.counted += (before - self.batch.len()) as u64;
        self.batch
            .extend(if state.closing && state.queue.is_empty() {
                self.floods.take_all()
            } else {
                self.floods.take_due(now)
            });
        state.health.queued = self.batch.len() as u64;
        if let Some(settings) = state.settings.take() {
            self.keeper.reconfigure(settings);
        }
        (state.closing, state.health.lost)
    }

    /// Appends the batch; before it, what is to be said of records that were lost.
    fn write(&mut self, lost: u64) -> Result<(), ()> {
        let loss = (lost > self.lost_reported).then(|| {
            let mut record = Record::new(clock::wall_now(), Event::AuditLost);
            record.lost = Some(lost - self.lost_reported);
            record
        });
        if self.batch.is_empty() && loss.is_none() && self.keeper.is_settled() {
            return Ok(());
        }
        let records: Vec<_> = loss.iter().chain(&self.batch).collect();
        let appended = self.keeper.append(&records);
        let mut state = self.shared.lock();
        if let Err(error) = appended {
            if state.health.last_error.is_none() {
                tracing::error!(path = %state.health.path.display(), %error, "the audit log cannot be written");
            }
            state.health.last_error = Some(error.to_string());
            return Err(());
        }
        if state.health.last_error.take().is_some() {
            tracing::info!("the audit log can be written again");
        }
        state.health.written += self.batch.len() as u64;
        state.health.queued = 0;
        state.health.sequence = self.keeper.sequence();
        drop(state);
        self.batch.clear();
        self.lost_reported = lost;
        Ok(())
    }

    /// Heads and retention.
    fn upkeep(&mut self, last: bool) {
        let done = self.keeper.upkeep(clock::Now::read(), last);
        let mut state = self.shared.lock();
        if let Err(error) = &done
            && state.health.upkeep_error.is_none()
        {
            tracing::error!(%error, "the audit log cannot be kept");
        }
        state.health.upkeep_error = done.err().map(|error| error.to_string());
    }

    /// Waits while the queue fills.
    fn pause(&self, duration: Duration) {
        let state = self.shared.lock();
        let _ = self
            .shared
            .changed
            .wait_timeout_while(state, duration, |state| !state.closing);
    }

    fn close(mut self) {
        self.upkeep(true);
        // Closed before anybody hears of it: the last one to leave puts the database in order.
        drop(self.keeper);
        let mut state = self.shared.lock();
        let left = self.batch.len() + state.queue.len();
        state.health.lost += left as u64;
        state.health.queued = 0;
        state.queue.clear();
        state.closed = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
