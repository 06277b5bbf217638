//! The database: records in a chain, what was removed from its begin, and the chain's id.
//!
//! One process writes it, any number may read it meanwhile (write-ahead log). The text of a record
//! is the one truth; the columns beside it serve to find it and are checked against it by
//! [`super::verify`].

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{
    Record,
    chain::{ChainId, Hash, Position},
    index::{Indexed, address_column, session_column, time_column},
    rfc3339,
    signing::Statement,
};
use crate::{clock::WallInstant, sqlite};

/// Version of the schema, in `user_version`.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// Somebody may be looking at the database with a tool that locks it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
CREATE TABLE chain (
    id        BLOB NOT NULL,
    begun_at  INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
    sequence        INTEGER PRIMARY KEY,
    record          TEXT NOT NULL,
    hash            BLOB NOT NULL,
    time            INTEGER NOT NULL,
    event           TEXT NOT NULL,
    session         INTEGER,
    subject         TEXT,
    reason          TEXT,
    client          BLOB,
    proxied_client  BLOB
) STRICT;
CREATE INDEX records_by_time ON records (time);
CREATE INDEX records_by_event ON records (event);
CREATE INDEX records_by_session ON records (session) WHERE session IS NOT NULL;
CREATE INDEX records_by_subject ON records (subject) WHERE subject IS NOT NULL;
CREATE INDEX records_by_reason ON records (reason) WHERE reason IS NOT NULL;
CREATE INDEX records_by_client ON records (client) WHERE client IS NOT NULL;
CREATE INDEX records_by_proxied_client ON records (proxied_client)
    WHERE proxied_client IS NOT NULL;
CREATE TABLE anchor (
    sequence   INTEGER NOT NULL,
    hash       BLOB NOT NULL,
    time       TEXT NOT NULL,
    signature  TEXT NOT NULL
) STRICT;
";

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file can't be made or opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A later version of enforcer wrote it.
    #[error("{path} has schema version {found}; this enforcer knows {SCHEMA_VERSION}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// What is in the file is no database of ours.
    #[error("the database is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// SQLite failed, but may well succeed later.
    #[error(transparent)]
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        if sqlite::is_damage(&error) {
            Self::Damaged(error)
        } else {
            Self::Database(error)
        }
    }
}

/// The open database, and the end of its chain.
pub(super) struct Ledger {
    connection: Connection,
    chain: ChainId,
    last: Position,
    begun: bool,
}

/// Records that were removed from the begin of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removable {
    /// The last of them.
    pub(super) through: Position,
    /// How many.
    pub(super) count: u64,
}

impl Ledger {
    /// Opens the database; if there is none, it is made, with a new chain.
    pub(super) fn open(path: &Path, now: WallInstant) -> Result<Self, LedgerError> {
        sqlite::ensure_writable(path).map_err(|source| LedgerError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let begun = match version {
            0 => {
                create(&mut connection, now)?;
                true
            }
            SCHEMA_VERSION => false,
            found => {
                return Err(LedgerError::Newer {
                    path: path.to_owned(),
                    found,
                });
            }
        };
        let chain = chain_id(&connection)?;
        let last = last_position(&connection, chain)?;
        Ok(Self {
            connection,
            chain,
            last,
            begun,
        })
    }

    /// The chain's id.
    pub(super) const fn chain(&self) -> ChainId {
        self.chain
    }

    /// The last record.
    pub(super) const fn last(&self) -> Position {
        self.last
    }

    /// The chain was begun when the database was opened.
    pub(super) const fn begun(&self) -> bool {
        self.begun
    }

    /// The hash of a record, if it is there.
    pub(super) fn hash(&self, sequence: u64) -> Result<Option<Hash>, LedgerError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT hash FROM records WHERE sequence = ?")?;
        let hash = statement
            .query_row([sequence.cast_signed()], |row| row.get(0))
            .optional()?;
        Ok(hash.map(Hash::from_bytes))
    }

    /// What the first record that is there follows, if the ones before were removed.
    pub(super) fn anchor(&self) -> Result<Option<Statement>, LedgerError> {
        Ok(anchor(&self.connection, self.chain)?)
    }

    /// Appends records in one transaction: all of them, or none.
    pub(super) fn append(&mut self, records: &[&Record]) -> Result<(), LedgerError> {
        let mut last = self.last;
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
            let mut text = Vec::new();
            for record in records {
                text.clear();
                // Fields that can't be put into JSON do not exist.
                if serde_json::to_writer(&mut text, record).is_err() {
                    continue;
                }
                let text = std::str::from_utf8(&text).unwrap_or_default();
                last = last.next(text);
                let indexed = Indexed::of(record);
                insert.execute(params![
                    last.sequence.cast_signed(),
                    text,
                    last.hash.as_bytes(),
                    time_column(indexed.time),
                    indexed.event,
                    indexed.session.map(session_column),
                    indexed.subject,
                    indexed.reason,
                    indexed.client.map(|end| address_column(end.ip())),
                    indexed.proxied_client.map(|end| address_column(end.ip())),
                ])?;
            }
        }
        transaction.commit()?;
        self.last = last;
        Ok(())
    }

    /// Bytes in use. What was removed is used again; the file itself does not shrink.
    pub(super) fn size(&self) -> Result<u64, LedgerError> {
        let pragma = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
        Ok(pages.saturating_mul(pragma("page_size")?).unsigned_abs())
    }

    /// The oldest records, at most `limit` of them and never the last one; with `before`, only
    /// those that are older.
    pub(super) fn removable(
        &self,
        before: Option<WallInstant>,
        limit: u64,
    ) -> Result<Option<Removable>, LedgerError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, hash, time FROM records WHERE sequence < ? ORDER BY sequence LIMIT ?",
        )?;
        let mut rows = statement.query([self.last.sequence.cast_signed(), limit.cast_signed()])?;
        let mut found = None;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let young = before.is_some_and(|before| {
                row.get::<_, i64>(2)
                    .is_ok_and(|time| time >= time_column(before))
            });
            if young {
                break;
            }
            count += 1;
            found = Some(Removable {
                through: Position {
                    sequence: row.get::<_, i64>(0)?.cast_unsigned(),
                    hash: Hash::from_bytes(row.get(1)?),
                },
                count,
            });
        }
        Ok(found)
    }

    /// Removes the records up to the one that `anchor` is about, and keeps the anchor.
    pub(super) fn remove(&mut self, anchor: &Statement) -> Result<(), LedgerError> {
        let transaction = self.connection.transaction()?;
        let through = anchor.sequence.cast_signed();
        transaction.execute("DELETE FROM records WHERE sequence <= ?", [through])?;
        transaction.execute("DELETE FROM anchor", [])?;
        transaction.execute(
            "INSERT INTO anchor VALUES (?, ?, ?, ?)",
            params![
                through,
                anchor.hash.as_bytes(),
                anchor.time.to_string(),
                anchor.signature
            ],
        )?;
        transaction.commit()?;
        Ok(())
    }
}

fn create(connection: &mut Connection, now: WallInstant) -> rusqlite::Result<()> {
    let mut id = [0; 16];
    // Without random bytes the id is a poor one, which no record depends on.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute(
        "INSERT INTO chain VALUES (?, ?)",
        params![id, time_column(now)],
    )?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

pub(super) fn chain_id(connection: &Connection) -> rusqlite::Result<ChainId> {
    let id = connection.query_row("SELECT id FROM chain", [], |row| row.get(0))?;
    Ok(ChainId::from_bytes(id))
}

/// What the first record that is there follows, if the ones before were removed.
pub(super) fn anchor(
    connection: &Connection,
    chain: ChainId,
) -> rusqlite::Result<Option<Statement>> {
    connection
        .query_row("SELECT * FROM anchor", [], |row| {
            let time: String = row.get(2)?;
            let time = rfc3339::parse(&time).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    2,
                    rusqlite::types::Type::Text,
                    error.into(),
                )
            })?;
            Ok(Statement {
                chain,
                sequence: row.get::<_, i64>(0)?.cast_unsigned(),
                hash: Hash::from_bytes(row.get(1)?),
                time,
                signature: row.get(3)?,
            })
        })
        .optional()
}

fn last_position(connection: &Connection, chain: ChainId) -> rusqlite::Result<Position> {
    let last = connection
        .query_row(
            "SELECT sequence, hash FROM records ORDER BY sequence DESC LIMIT 1",
            [],
            |row| {
                Ok(Position {
                    sequence: row.get::<_, i64>(0)?.cast_unsigned(),
                    hash: Hash::from_bytes(row.get(1)?),
                })
            },
        )
        .optional()?;
    match last {
        Some(last) => Ok(last),
        // Somebody removed them all: what was removed in good order is still known.
        None => {
            let anchor = anchor(connection, chain)?;
            Ok(anchor.map_or_else(|| chain.origin(), |anchor| anchor.position()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditReader, Event, Filter};

    const NOW: WallInstant = WallInstant::from_unix_seconds(1_000);

    fn record(second: i64) -> Record {
        Record::new(WallInstant::from_unix_seconds(second), Event::SessionOpened)
    }

    #[test]
    fn a_chain_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        let mut ledger = Ledger::open(&path, NOW).unwrap();
        assert!(ledger.begun());
        ledger.append(&[&record(1), &record(2)]).unwrap();
        let (chain, last) = (ledger.chain(), ledger.last());
        assert_eq!(last.sequence, 2);
        assert_eq!(ledger.hash(2).unwrap(), Some(last.hash));
        drop(ledger);

        let mut ledger = Ledger::open(&path, NOW).unwrap();
        assert!(!ledger.begun());
        assert_eq!((ledger.chain(), ledger.last()), (chain, last));
        ledger.append(&[&record(3)]).unwrap();
        let text = serde_json::to_string(&record(3)).unwrap();
        assert_eq!(ledger.last(), last.next(&text));
        let mut reader = AuditReader::open(&path, Filter::default()).unwrap();
        assert_eq!(reader.read(10).unwrap().len(), 3);
    }

    #[test]
    fn a_file_that_is_no_database_is_damage_and_a_missing_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        std::fs::write(&path, "no database".repeat(1_000)).unwrap();
        assert!(matches!(
            Ledger::open(&path, NOW),
            Err(LedgerError::Damaged(_))
        ));
        let missing = folder.path().join("missing/audit.db");
        assert!(matches!(
            Ledger::open(&missing, NOW),
            Err(LedgerError::Open { .. })
        ));
    }
}
