//! The thread that appends records to the log.
//!
//! [`AuditSink::write`] puts a record into a bounded queue and returns. The thread takes all that
//! is queued, turns it into lines and appends them with one write; what a failed write left over
//! is kept and tried again. A record that finds the queue full is lost; the log says how many
//! were, as soon as it can say anything again.
//!
//! ```text
//!              write fails                        write fails (retry each second)
//!   Working ----------------> Failing, last_error -------------+
//!      ^                          |            ^               |
//!      +--------------------------+            +---------------+
//!        write succeeds: audit_lost first, if records were lost
//! ```

mod file;

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::file::LogFile;
use super::{Event, Record};
use crate::clock;

/// Records that may wait for the disk.
const QUEUE_CAPACITY: u64 = 8_192;
/// Longest time that written records may stay out of the disk's own memory, and shortest between
/// two syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Time between attempts on a log that can't be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a hung disk at shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the log does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHealth {
    /// The log.
    pub path: PathBuf,
    /// Records that are in the file.
    pub written: u64,
    /// Records that wait to be written.
    pub queued: u64,
    /// Records that will never be.
    pub lost: u64,
    /// Why the last write failed; absent while writes succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl AuditHealth {
    /// Records get into the log.
    pub const fn works(&self) -> bool {
        self.last_error.is_none()
    }
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Record>,
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
    /// Starts to write to `path`, which is made if it isn't there. A log that can't be opened is
    /// tried again until it can; [`AuditSink::health`] tells.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn open(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        let shared = Arc::new(Shared::default());
        shared.lock().health.path.clone_from(&path);
        let file = LogFile::new(path);
        let writer = Writer {
            shared: Arc::clone(&shared),
            file,
            lines: Vec::new(),
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

    /// Writes what is queued, syncs and ends the thread; gives up on a disk that hangs.
    /// Records that come later are lost.
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
        let waiting = state.health.queued + state.queue.len() as u64;
        if state.closing || waiting >= QUEUE_CAPACITY {
            state.health.lost += 1;
            return;
        }
        state.queue.push(record);
        if state.queue.len() == 1 {
            self.shared.changed.notify_all();
        }
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
    file: LogFile,
    /// Lines that wait to be written; `health.queued` counts them.
    lines: Vec<u8>,
    lost_reported: u64,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (closing, lost) = self.take_queue();
            let written = self.write(lost);
            if let Err(error) = &written {
                self.note_failure(error);
            }
            if closing {
                self.close();
                return;
            }
            if written.is_err() {
                self.pause(RETRY_INTERVAL);
            }
        }
    }

    /// Waits for records, syncing when that is due, and turns them into lines.
    fn take_queue(&mut self) -> (bool, u64) {
        let mut state = self.shared.lock();
        while state.queue.is_empty() && self.lines.is_empty() && !state.closing {
            let Some(due) = self.file.sync_due_in(clock::boot_now()) else {
                state = self
                    .shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if !due.is_zero() {
                (state, _) = self
                    .shared
                    .changed
                    .wait_timeout(state, due)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let synced = self.file.sync(clock::boot_now());
            state = self.shared.lock();
            state.health.last_error = synced.err().map(|error| error.to_string());
        }
        let records = std::mem::take(&mut state.queue);
        state.health.queued += records.len() as u64;
        let closing = state.closing;
        let lost = state.health.lost;
        drop(state);
        for record in &records {
            append_line(&mut self.lines, record);
        }
        (closing, lost)
    }

    fn write(&mut self, lost: u64) -> std::io::Result<()> {
        if lost > self.lost_reported {
            let mut record = Record::new(clock::wall_now(), Event::AuditLost);
            record.lost = Some(lost - self.lost_reported);
            let mut line = Vec::new();
            append_line(&mut line, &record);
            self.file.append(&mut line).result?;
            self.lost_reported = lost;
        }
        let appended = self.file.append(&mut self.lines);
        let mut state = self.shared.lock();
        state.health.written += appended.lines;
        state.health.queued = state.health.queued.saturating_sub(appended.lines);
        if appended.result.is_ok() {
            state.health.last_error = None;
        }
        drop(state);
        appended.result?;
        match self.file.sync_due_in(clock::boot_now()) {
            Some(Duration::ZERO) => self.file.sync(clock::boot_now()),
            _ => Ok(()),
        }
    }

    fn note_failure(&self, error: &std::io::Error) {
        let mut state = self.shared.lock();
        let path = &state.health.path;
        if state.health.last_error.is_none() {
            tracing::error!(path = %path.display(), %error, "the audit log can't be written");
        }
        state.health.last_error = Some(error.to_string());
    }

    /// Waits while the queue fills.
    fn pause(&self, duration: Duration) {
        let state = self.shared.lock();
        let _ = self
            .shared
            .changed
            .wait_timeout_while(state, duration, |state| !state.closing);
    }

    fn close(&mut self) {
        let synced = self.file.sync(clock::boot_now());
        let mut state = self.shared.lock();
        if let Err(error) = synced {
            state.health.last_error = Some(error.to_string());
        }
        state.health.lost += state.health.queued;
        state.health.queued = 0;
        state.closed = true;
        self.shared.changed.notify_all();
    }
}

/// A record that can't be put into JSON does not exist: all its fields can.
fn append_line(lines: &mut Vec<u8>, record: &Record) {
    let start = lines.len();
    match serde_json::to_writer(&mut *lines, record) {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(start),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::clock::WallInstant;

    fn record(second: i64) -> Record {
        Record::new(WallInstant::from_unix_seconds(second), Event::SessionOpened)
    }

    fn events(path: &Path) -> Vec<Event> {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Record>(line).unwrap().event)
            .collect()
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..500 {
            if condition() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{what} did not happen");
    }

    #[test]
    fn records_are_appended_in_order_and_the_file_is_private() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        for second in 0..5_000 {
            log.sink().write(record(second));
        }
        let health = log.close();
        assert_eq!((health.written, health.queued, health.lost), (5_000, 0, 0));
        let text = fs::read_to_string(&path).unwrap();
        for (second, line) in text.lines().enumerate() {
            let read: Record = serde_json::from_str(line).unwrap();
            assert_eq!(read.time.as_unix_seconds(), i64::try_from(second).unwrap());
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_torn_last_line_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "{\"time\":\"19").unwrap();
        let log = AuditLog::open(&path).unwrap();
        log.sink().write(record(1));
        log.close();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "{\"time\":\"19");
        assert_eq!(serde_json::from_str::<Record>(lines[1]).unwrap(), record(1));
    }

    #[test]
    fn a_log_that_cannot_be_opened_blocks_nobody_and_says_later_what_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        let sink = log.sink();
        sink.write(record(0));
        wait_until("the failure", || !sink.health().works());
        for second in 1..=QUEUE_CAPACITY.cast_signed() + 7 {
            sink.write(record(second));
        }
        let lost = sink.health().lost;
        assert!(lost >= 7, "{lost}");
        fs::create_dir(folder.path().join("missing")).unwrap();
        wait_until("the recovery", || sink.health().works());
        let health = log.close();
        assert_eq!(health.written + health.lost, QUEUE_CAPACITY + 8);
        let events = events(&path);
        assert_eq!(events[0], Event::AuditLost);
        assert_eq!(events.len() as u64, health.written + 1);
    }

    #[test]
    fn a_log_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        let sink = log.sink();
        sink.write(record(0));
        wait_until("the first record", || sink.health().written == 1);
        fs::rename(&path, folder.path().join("audit.jsonl.1")).unwrap();
        wait_until("the new log", || {
            sink.write(record(1));
            path.exists()
        });
        let health = log.close();
        let moved = events(&folder.path().join("audit.jsonl.1"));
        assert_eq!((moved.len() + events(&path).len()) as u64, health.written);
    }

    #[test]
    fn what_a_closed_log_could_not_write_is_counted_as_lost() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(folder.path().join("missing/audit.jsonl")).unwrap();
        let sink = log.sink();
        sink.write(record(0));
        let health = log.close();
        assert_eq!((health.written, health.lost, health.queued), (0, 1, 0));
        sink.write(record(1));
        assert_eq!(sink.health().lost, 2);
    }
}
