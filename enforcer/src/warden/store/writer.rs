//! The thread that commits, and the handle that everybody else has.
//!
//! ```text
//!             a change                      commit fails, errors + 1
//!   Idle -----------------> Committing ----------------------------> Waiting
//!     ^                      |      ^                                  |
//!     +----------------------+      +----------------------------------+
//!        commit succeeds              after a second, or at a flush
//! ```
//!
//! All changes that are queued when a commit begins go into it. Touches wait a second for company.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    Bounds, EndedKey, Snapshot, StoreHealth, StoredSession,
    batch::Batch,
    database::{self, StoreError},
    rows,
};
use crate::{
    clock::{self, WallInstant},
    session::{EndReason, KeyUse, SessionId},
};

/// Time between attempts on a database that can't be written, and between commits of nothing but
/// touches.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Opens stores.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Opens the database at `path`, making it if there is none, forgets ended keys that expired
    /// before `now`, and starts its writer. A damaged database is moved aside, as
    /// [`Snapshot::set_aside`] then says.
    ///
    /// # Errors
    /// If there can be no store in this place: it can't be written, is full, in use or of a later
    /// version.
    pub fn open(path: &Path, now: WallInstant) -> Result<(StoreHandle, Snapshot), StoreError> {
        let (connection, snapshot) = database::open(path, now)?;
        let health = StoreHealth {
            path: path.to_owned(),
            ..StoreHealth::default()
        };
        Ok((start(connection, health)?, snapshot))
    }
}

/// Changes the store, in the order of the calls. Cheap to clone; the writer ends when the last
/// one is dropped.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    changes: Sender<Change>,
    health: Arc<Mutex<StoreHealth>>,
}

impl StoreHandle {
    /// Keeps the session in place of what was kept under its id.
    pub fn save(&self, session: StoredSession) {
        self.queue(Change::Save(Box::new(session)));
    }

    /// Moves the session's last activity.
    pub fn touch(&self, id: SessionId, at: WallInstant) {
        self.queue(Change::Touch(id, at));
    }

    /// Moves when the session ends.
    pub fn bound(&self, id: SessionId, bounds: Bounds) {
        self.queue(Change::Bound(id, bounds));
    }

    /// Forgets the session and refuses its keys, each until its instant.
    pub fn end(&self, id: SessionId, keys: Vec<KeyUse>, reason: EndReason, at: WallInstant) {
        let keys = keys
            .into_iter()
            .map(|KeyUse { key, until }| EndedKey {
                key,
                reason,
                ended_at: at,
                until,
            })
            .collect();
        self.queue(Change::End(id, keys));
    }

    /// Resolves when every change before this call is on the disk, or the attempt to get it
    /// there failed; it is then tried again without this call's doing.
    pub fn flush(&self) -> Flush {
        let (done, flush) = oneshot::channel();
        // A writer that is gone drops `done`, which `Flush` reports.
        let _ = self.changes.send(Change::Flush(done));
        Flush(flush)
    }

    /// How the store does.
    pub fn health(&self) -> StoreHealth {
        lock(&self.health).clone()
    }

    fn queue(&self, change: Change) {
        lock(&self.health).queued += 1;
        // A writer that is gone leaves the change queued for ever, which the health shows.
        let _ = self.changes.send(change);
    }
}

/// The answer to [`StoreHandle::flush`], as a future or to be waited for.
#[derive(Debug)]
#[must_use = "nothing waits for the disk until this is awaited"]
pub struct Flush(oneshot::Receiver<Result<(), FlushError>>);

/// The changes are not on the disk yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The commit failed; it will be tried again.
    #[error("the store cannot be written: {0}")]
    Failed(String),
    /// The store's thread is gone.
    #[error("the store has stopped")]
    Stopped,
}

impl Flush {
    /// Blocks the thread until the answer is there. Not for asynchronous contexts.
    ///
    /// # Errors
    /// If the changes are not on the disk.
    pub fn wait(self) -> Result<(), FlushError> {
        self.0.blocking_recv().unwrap_or(Err(FlushError::Stopped))
    }
}

impl Future for Flush {
    type Output = Result<(), FlushError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(FlushError::Stopped)))
    }
}

#[derive(Debug)]
enum Change {
    Save(Box<StoredSession>),
    Touch(SessionId, WallInstant),
    Bound(SessionId, Bounds),
    End(SessionId, Vec<EndedKey>),
    Flush(oneshot::Sender<Result<(), FlushError>>),
}

fn lock(health: &Mutex<StoreHealth>) -> MutexGuard<'_, StoreHealth> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn start(
    connection: Connection,
    health: StoreHealth,
) -> Result<StoreHandle, StoreError> {
    let (sender, changes) = mpsc::channel();
    let health = Arc::new(Mutex::new(health));
    let writer = Writer {
        connection,
        health: Arc::clone(&health),
        batch: Batch::default(),
        batched: 0,
        failing: false,
        flushes: Vec::new(),
    };
    thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || writer.run(&changes))
        .map_err(StoreError::Thread)?;
    Ok(StoreHandle {
        changes: sender,
        health,
    })
}

struct Writer {
    connection: Connection,
    health: Arc<Mutex<StoreHealth>>,
    batch: Batch,
    /// Changes in the batch, before folding.
    batched: u64,
    /// The last commit failed.
    failing: bool,
    flushes: Vec<oneshot::Sender<Result<(), FlushError>>>,
}

impl Writer {
    fn run(mut self, changes: &Receiver<Change>) {
        while self.gather(changes) {
            self.commit();
        }
        self.commit();
    }

    /// Collects changes until a commit is due; false when none will come any more.
    fn gather(&mut self, changes: &Receiver<Change>) -> bool {
        if self.batch.is_empty() {
            match changes.recv() {
                Ok(change) => self.take(change),
                Err(mpsc::RecvError) => return false,
            }
        }
        let due = clock::boot_now().saturating_add(COMMIT_INTERVAL);
        while self.can_wait() {
            let left = due.saturating_duration_since(clock::boot_now());
            match changes.recv_timeout(left) {
                Ok(change) => self.take(change),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        changes.try_iter().for_each(|change| self.take(change));
        true
    }

    fn can_wait(&self) -> bool {
        self.flushes.is_empty() && (self.failing || !self.batch.is_urgent())
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Flush(done) => return self.flushes.push(done),
            Change::Save(session) => self.batch.save(*session),
            Change::Touch(id, at) => self.batch.touch(id, at),
            Change::Bound(id, bounds) => self.batch.bound(id, bounds),
            Change::End(id, keys) => self.batch.end(id, keys),
        }
        self.batched += 1;
    }

    fn commit(&mut self) {
        let result = if self.batch.is_empty() {
            Ok(())
        } else {
            rows::commit(&mut self.connection, &self.batch)
        };
        let answer = match result {
            Ok(()) => {
                self.note_success();
                Ok(())
            }
            Err(error) => Err(FlushError::Failed(self.note_failure(&error))),
        };
        for done in self.flushes.drain(..) {
            // Who asked may have given up waiting.
            let _ = done.send(answer.clone());
        }
    }

    fn note_success(&mut self) {
        self.batch = Batch::default();
        self.failing = false;
        let mut health = lock(&self.health);
        health.queued -= std::mem::take(&mut self.batched);
        if health.last_error.take().is_some() {
            tracing::info!("the store can be written again");
        }
    }

    fn note_failure(&mut self, error: &rusqlite::Error) -> String {
        self.failing = true;
        let mut health = lock(&self.health);
        if health.last_error.is_none() {
            tracing::error!(%error, "the store cannot be written");
        }
        health.errors += 1;
        let error = error.to_string();
        health.last_error = Some(error.clone());
        error
    }
}
