//! What the two databases share: a file that can be written, damage told from trouble, and a
//! damaged file moved out of the way, kept as evidence.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

use crate::clock::WallInstant;

/// Files that belong to a database, by what is appended to its name.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// Makes sure that there is a file that can be written: SQLite would fall back to read-only, and its
/// files take their mode from this one.
pub(crate) fn ensure_writable(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Whether what is in the file is no database of ours: trying again will not help.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => true,
        // A row or a table that isn't what the schema says.
        Some(ErrorCode::Unknown) | None => true,
        Some(_) => false,
    }
}

/// Moves a database and what belongs to it out of the way, to `NAME.corrupt-SECONDS`.
pub(crate) fn set_aside(path: &Path, now: WallInstant) -> io::Result<PathBuf> {
    let aside = with_suffix(path, &format!(".corrupt-{}", now.as_unix_seconds()));
    std::fs::rename(path, &aside)?;
    for companion in COMPANIONS {
        match std::fs::rename(with_suffix(path, companion), with_suffix(&aside, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
