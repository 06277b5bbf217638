//! Finding records in the database, also while it grows.
//!
//! A reader takes the records page by page, each in a transaction of its own, so that one that is
//! slow never keeps the writer from reusing its write-ahead log.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, params_from_iter, types::Value};

use super::{
    chain::{ChainId, Hash},
    filter::{Condition, Filter},
    ledger::{self, SCHEMA_VERSION},
};

/// Longest wait for a writer that sets the database up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Records that [`AuditReader::records`] takes at a time.
const PAGE: usize = 500;

/// Why records can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no database, or it can't be opened.
    #[error("cannot open {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// The reason.
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
    /// SQLite failed.
    #[error("cannot read {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
}

impl ReadError {
    /// What failed and why, on one line.
    pub fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number in the chain.
    pub sequence: u64,
    /// Its JSON object, on one line; reads as a [`super::Record`] unless a later version wrote it.
    pub text: String,
    /// Its hash.
    pub hash: Hash,
}

impl StoredRecord {
    /// The line with the number as its first field.
    pub fn line(&self) -> String {
        let rest = self.text.strip_prefix('{').unwrap_or(&self.text);
        format!("{{\"sequence\":{},{rest}", self.sequence)
    }
}

/// Opens a database that somebody else may be writing.
pub(super) fn open(path: &Path) -> Result<Connection, ReadError> {
    let unreadable = |source| ReadError::Database {
        path: path.to_owned(),
        source,
    };
    fs::File::open(path).map_err(|source| ReadError::Open {
        path: path.to_owned(),
        source,
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unreadable)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unreadable)?;
    match connection.pragma_query_value(None, "user_version", |row| row.get(0)) {
        Ok(SCHEMA_VERSION) => Ok(connection),
        Ok(0) => Err(ReadError::Open {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "it is not set up yet"),
        }),
        Ok(found) => Err(ReadError::Newer {
            path: path.to_owned(),
            found,
        }),
        // Its companions can't be made: on a read-only file system nobody else writes either.
        Err(error) if !has_log(path) && is_read_only(&error) => {
            let mut uri = "file:".to_owned();
            uri.extend(form_urlencoded::byte_serialize(
                path.as_os_str().as_encoded_bytes(),
            ));
            uri.push_str("?immutable=1");
            let uri = uri.replace('+', "%20");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI).map_err(unreadable)
        }
        Err(error) => Err(unreadable(error)),
    }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

fn is_read_only(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly))
}

/// Reads records in their order.
#[derive(Debug)]
pub struct AuditReader {
    path: PathBuf,
    filter: Filter,
    condition: Condition,
    follow: bool,
    open: Option<OpenDatabase>,
}

#[derive(Debug)]
struct OpenDatabase {
    connection: Connection,
    chain: ChainId,
    /// Device and inode of the file.
    file: (u64, u64),
    /// The last record that was looked at.
    after: i64,
    /// The last record to look at.
    through: i64,
}

impl AuditReader {
    /// Opens the database at `path`, to read the records that are there now.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(path: &Path, filter: Filter) -> Result<Self, ReadError> {
        let mut reader = Self::new(path, filter, false);
        reader.reopen()?;
        Ok(reader)
    }

    /// Opens the database at `path`, to read the records that are there and those that come. It
    /// need not be there yet, and may be replaced by another.
    ///
    /// # Errors
    /// If it is there and can't be opened.
    pub fn follow(path: &Path, filter: Filter) -> Result<Self, ReadError> {
        let mut reader = Self::new(path, filter, true);
        reader.reopen_if_there()?;
        Ok(reader)
    }

    fn new(path: &Path, filter: Filter, follow: bool) -> Self {
        Self {
            path: path.to_owned(),
            condition: filter.condition(),
            filter,
            follow,
            open: None,
        }
    }

    /// Leaves out all but the latest `count` of the records that are there.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn skip_to_latest(&mut self, count: u64) -> Result<(), ReadError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let skipped = skip(open, &self.condition, count);
        skipped.map_err(|source| unreadable(&self.path, source))
    }

    /// Leaves out the records up to this number.
    pub fn skip_through(&mut self, sequence: u64) {
        if let Some(open) = &mut self.open {
            open.after = sequence.cast_signed();
        }
    }

    /// The chain of the database, if it is there.
    pub fn chain(&self) -> Option<ChainId> {
        self.open.as_ref().map(|open| open.chain)
    }

    /// The next records, at most `limit`; none at the end. When following, call again in a while.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn read(&mut self, limit: usize) -> Result<Vec<StoredRecord>, ReadError> {
        let mut found = self.page(limit)?;
        if found.is_empty() && self.follow && self.was_replaced() {
            self.reopen_if_there()?;
            found = self.page(limit)?;
        }
        Ok(found)
    }

    /// All of the records, one after the other.
    pub fn records(mut self) -> impl Iterator<Item = Result<StoredRecord, ReadError>> {
        let mut page = Vec::new().into_iter();
        let mut over = false;
        std::iter::from_fn(move || {
            if let Some(record) = page.next() {
                return Some(Ok(record));
            }
            if over {
                return None;
            }
            match self.read(PAGE) {
                Ok(next) => {
                    page = next.into_iter();
                    let record = page.next();
                    over = record.is_none();
                    record.map(Ok)
                }
                Err(error) => {
                    over = true;
                    Some(Err(error))
                }
            }
        })
    }

    fn page(&mut self, limit: usize) -> Result<Vec<StoredRecord>, ReadError> {
        let Some(open) = &mut self.open else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let read = read_page(open, &self.condition, limit, &mut found);
        read.map_err(|source| unreadable(&self.path, source))?;
        Ok(found)
    }

    fn reopen_if_there(&mut self) -> Result<(), ReadError> {
        match self.reopen() {
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.open = None;
                Ok(())
            }
            result => result,
        }
    }

    fn reopen(&mut self) -> Result<(), ReadError> {
        let file = identity(&self.path);
        let connection = open(&self.path)?;
        let read = ledger::chain_id(&connection)
            .and_then(|chain| Ok((chain, window(&connection, &self.filter)?)));
        let (chain, (first, last)) = read.map_err(|source| unreadable(&self.path, source))?;
        self.open = Some(OpenDatabase {
            connection,
            chain,
            file,
            after: first - 1,
            through: if self.follow { i64::MAX } else { last },
        });
        Ok(())
    }

    fn was_replaced(&self) -> bool {
        match &self.open {
            Some(open) => self.path.exists() && identity(&self.path) != open.file,
            None => true,
        }
    }
}

fn unreadable(path: &Path, source: rusqlite::Error) -> ReadError {
    ReadError::Database {
        path: path.to_owned(),
        source,
    }
}

fn identity(path: &Path) -> (u64, u64) {
    fs::metadata(path).map_or((0, 0), |file| (file.dev(), file.ino()))
}

/// The first and last record within the times of the filter. The wall clock may have been set
/// back meanwhile: what is between them is looked at one by one.
fn window(connection: &Connection, filter: &Filter) -> rusqlite::Result<(i64, i64)> {
    if !filter.has_times() {
        return Ok((1, last_there(connection)?));
    }
    let Condition { sql, values } = filter.times("time");
    let sql = format!(
        "SELECT coalesce(min(sequence), 1), coalesce(max(sequence), 0) FROM records WHERE true{sql}"
    );
    connection.query_row(&sql, params_from_iter(values), |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

fn last_there(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(sequence), 0) FROM records";
    connection
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))
}

fn page_values(open: &OpenDatabase, through: i64, condition: &Condition, limit: u64) -> Vec<Value> {
    let mut values = vec![open.after.into(), through.into()];
    values.extend(condition.values.iter().cloned());
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    values
}

/// Leaves out all but the latest `count`.
fn skip(open: &mut OpenDatabase, condition: &Condition, count: u64) -> rusqlite::Result<()> {
    let through = open.through.min(last_there(&open.connection)?);
    let sql = format!(
        "SELECT min(sequence) FROM (SELECT sequence FROM records \
         WHERE sequence > ? AND sequence <= ?{} ORDER BY sequence DESC LIMIT ?)",
        condition.sql
    );
    let values = page_values(open, through, condition, count);
    let first: Option<i64> = open
        .connection
        .query_row(&sql, params_from_iter(values), |row| row.get(0))?;
    open.after = first.map_or(through, |first| first - 1);
    Ok(())
}

/// One page. What was looked at is not looked at again.
fn read_page(
    open: &mut OpenDatabase,
    condition: &Condition,
    limit: usize,
    found: &mut Vec<StoredRecord>,
) -> rusqlite::Result<()> {
    let through = open.through.min(last_there(&open.connection)?);
    let sql = format!(
        "SELECT sequence, record, hash FROM records \
         WHERE sequence > ? AND sequence <= ?{} ORDER BY sequence LIMIT ?",
        condition.sql
    );
    let mut statement = open.connection.prepare_cached(&sql)?;
    let values = page_values(open, through, condition, limit as u64);
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        found.push(StoredRecord {
            sequence: row.get::<_, i64>(0)?.cast_unsigned(),
            text: row.get(1)?,
            hash: Hash::from_bytes(row.get(2)?),
        });
    }
    drop(rows);
    drop(statement);
    open.after = match found.last() {
        Some(last) if found.len() >= limit => last.sequence.cast_signed(),
        _ => open.after.max(through),
    };
    Ok(())
}

#[cfg(test)]
mod tests;
