//! The database file: opening, its schema, and what to do when it is damaged.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Snapshot, rows};
use crate::{clock::WallInstant, sqlite};

/// Version of the schema, in `user_version`: one more than there are migrations.
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;
/// The predecessor may still be closing its database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The first version.
pub(super) const SCHEMA: &str = "
CREATE TABLE sessions (
    id                INTEGER PRIMARY KEY,
    issuer            TEXT NOT NULL,
    subject           TEXT NOT NULL,
    authorized_party  TEXT,
    names_session     INTEGER NOT NULL,
    started_at        INTEGER NOT NULL,
    opened_at         INTEGER NOT NULL,
    deadline          INTEGER NOT NULL,
    boot_deadline     INTEGER NOT NULL,
    boot_id           TEXT NOT NULL,
    token_expires_at  INTEGER NOT NULL,
    policies          TEXT NOT NULL,
    idle_timeout      INTEGER,
    last_activity     INTEGER NOT NULL
) STRICT;
CREATE TABLE session_keys (
    key         BLOB PRIMARY KEY,
    session_id  INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_keys_by_session ON session_keys (session_id);
CREATE TABLE ended_keys (
    key       BLOB PRIMARY KEY,
    reason    TEXT NOT NULL,
    ended_at  INTEGER NOT NULL,
    until     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_keys_by_until ON ended_keys (until);
";

/// From version 1 on, each to the next.
const MIGRATIONS: [&str; 3] = [
    "ALTER TABLE sessions ADD COLUMN signing_key BLOB;
     ALTER TABLE sessions ADD COLUMN certificate BLOB;",
    "ALTER TABLE sessions ADD COLUMN hours_end_at INTEGER;
     ALTER TABLE sessions ADD COLUMN first_address TEXT;",
    "ALTER TABLE sessions DROP COLUMN boot_deadline;
     ALTER TABLE sessions DROP COLUMN boot_id;
     ALTER TABLE sessions DROP COLUMN idle_timeout;
     ALTER TABLE sessions ADD COLUMN warned_for INTEGER;",
];

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be made or opened.
    #[error("cannot open {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It can be read, but not written.
    #[error("{0} cannot be written: Read-only file system")]
    ReadOnly(PathBuf),
    /// Another daemon has it.
    #[error("{0} is in use by another daemon")]
    InUse(PathBuf),
    /// A later version of enforcer wrote it.
    #[error("{path} has schema version {found}; this enforcer knows {SCHEMA_VERSION}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite failed.
    #[error("cannot use {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A damaged database can't be moved out of the way.
    #[error("{path} is damaged and cannot be moved aside")]
    SetAside {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The writer's thread can't be started.
    #[error("cannot start the store's thread")]
    Thread(#[source] io::Error),
}

/// Opens the database, or a new one if there is none or it is damaged.
pub(super) fn open(path: &Path, now: WallInstant) -> Result<(Connection, Snapshot), StoreError> {
    let damage = match try_open(path, now) {
        Ok(opened) => return Ok(opened),
        Err(Failure::Damaged(damage)) => damage,
        Err(Failure::Unusable(error)) => return Err(error),
    };
    let aside = sqlite::set_aside(path, now).map_err(|source| StoreError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    tracing::error!(
        path = %path.display(), aside = %aside.display(), %damage,
        "the store is damaged: it was moved aside and sessions in it will be ended"
    );
    match try_open(path, now) {
        Ok((connection, mut snapshot)) => {
            snapshot.set_aside = Some(aside);
            Ok((connection, snapshot))
        }
        Err(Failure::Unusable(error)) => Err(error),
        Err(Failure::Damaged(source)) => Err(StoreError::Database {
            path: path.to_owned(),
            source,
        }),
    }
}

enum Failure {
    /// What is in the file is no database of ours.
    Damaged(rusqlite::Error),
    /// It may well be in order.
    Unusable(StoreError),
}

impl Failure {
    fn new(path: &Path, error: rusqlite::Error) -> Self {
        if sqlite::is_damage(&error) {
            return Self::Damaged(error);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unusable(StoreError::InUse(path.to_owned()))
            }
            Some(ErrorCode::ReadOnly) => Self::Unusable(StoreError::ReadOnly(path.to_owned())),
            _ => Self::Unusable(StoreError::Database {
                path: path.to_owned(),
                source: error,
            }),
        }
    }
}

fn try_open(path: &Path, now: WallInstant) -> Result<(Connection, Snapshot), Failure> {
    sqlite::ensure_writable(path).map_err(|source| {
        Failure::Unusable(match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(path.to_owned()),
            _ => StoreError::Open {
                path: path.to_owned(),
                source,
            },
        })
    })?;
    let failure = |error| Failure::new(path, error);
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failure)?;
    prepare(&connection).map_err(failure)?;
    match version(&connection).map_err(failure)? {
        found @ 0..=SCHEMA_VERSION => migrate(&mut connection, found).map_err(failure)?,
        found => {
            return Err(Failure::Unusable(StoreError::Newer {
                path: path.to_owned(),
                found,
            }));
        }
    }
    check(&connection).map_err(failure)?;
    rows::purge_ended(&connection, now).map_err(failure)?;
    let snapshot = rows::load(&connection).map_err(failure)?;
    Ok((connection, snapshot))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before the journal mode: the write-ahead log then needs no shared memory.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the schema up to date from the version that was found; 0 is an empty database.
fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let steps = std::iter::once(&SCHEMA).chain(&MIGRATIONS);
    for step in steps.skip(usize::try_from(found).unwrap_or_default()) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn check(connection: &Connection) -> rusqlite::Result<()> {
    let finding: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if finding == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(finding),
    ))
}
