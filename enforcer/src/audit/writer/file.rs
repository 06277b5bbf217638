//! The file of the log: whole lines or a repaired border, whatever the disk does.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    time::Duration,
};

use super::SYNC_INTERVAL;
use crate::clock::BootInstant;

/// Readable by the owner and, for log collectors, the group.
const FILE_MODE: u32 = 0o640;

/// A file that lines are appended to. It is opened at the first write, and again when somebody
/// moved it away.
pub(super) struct LogFile {
    path: PathBuf,
    open: Option<OpenFile>,
    /// When the file may be synced next.
    next_sync_at: BootInstant,
}

struct OpenFile {
    file: File,
    /// The file ends in the middle of a line.
    torn: bool,
    /// There is something to sync.
    dirty: bool,
}

/// What became of lines that were to be appended.
pub(super) struct Appended {
    /// Lines that are in the file.
    pub(super) lines: u64,
    /// Why the rest is not.
    pub(super) result: io::Result<()>,
}

impl LogFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            next_sync_at: BootInstant::from_nanos(0),
        }
    }

    /// Appends whole lines and removes from `lines` those that are in the file.
    pub(super) fn append(&mut self, lines: &mut Vec<u8>) -> Appended {
        if lines.is_empty() {
            return Appended {
                lines: 0,
                result: Ok(()),
            };
        }
        let open = match self.open() {
            Ok(open) => open,
            Err(error) => {
                return Appended {
                    lines: 0,
                    result: Err(error),
                };
            }
        };
        let result = open.append(lines);
        let written = result
            .as_ref()
            .map_or_else(|failed| failed.written, |()| lines.len());
        // A line that was cut is written again, whole, on a line of its own.
        let border = lines[..written]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let count = lines[..border]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        lines.drain(..border);
        Appended {
            lines: count as u64,
            result: result.map_err(|failed| failed.error),
        }
    }

    /// How long until the file should be synced; `None` while there is nothing to sync.
    pub(super) fn sync_due_in(&self, now: BootInstant) -> Option<Duration> {
        let open = self.open.as_ref()?;
        open.dirty
            .then(|| self.next_sync_at.saturating_duration_since(now))
    }

    /// Makes what was written survive a power failure, and lets go of a file that was moved away
    /// or removed.
    pub(super) fn sync(&mut self, now: BootInstant) -> io::Result<()> {
        self.next_sync_at = now.saturating_add(SYNC_INTERVAL);
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if std::mem::take(&mut open.dirty) {
            open.file.sync_data()?;
        }
        let ours = open.file.metadata()?;
        let still_there = std::fs::metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()));
        if !still_there {
            self.open = None;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut OpenFile> {
        match &mut self.open {
            Some(open) => Ok(open),
            closed => Ok(closed.insert(OpenFile::open(&self.path)?)),
        }
    }
}

struct FailedWrite {
    written: usize,
    error: io::Error,
}

impl OpenFile {
    fn open(path: &std::path::Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(path)?;
        let torn = match file.metadata()?.len().checked_sub(1) {
            Some(last) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, last)?;
                byte != [b'\n']
            }
            None => false,
        };
        Ok(Self {
            file,
            torn,
            dirty: false,
        })
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), FailedWrite> {
        let mut written = 0;
        while self.torn || written < lines.len() {
            let rest = if self.torn { b"\n" } else { &lines[written..] };
            let count = match self.file.write(rest) {
                Ok(0) => Err(ErrorKind::WriteZero.into()),
                Ok(count) => Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            }
            .map_err(|error| {
                self.torn = written > 0 && lines[written - 1] != b'\n' || self.torn;
                FailedWrite { written, error }
            })?;
            self.dirty = true;
            if std::mem::take(&mut self.torn) {
                continue;
            }
            written += count;
        }
        Ok(())
    }
}
