//! A file that lines are appended to: whole lines or a repaired border, whatever the disk does.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

/// Readable by the owner and, for log collectors, the group.
const FILE_MODE: u32 = 0o640;

/// A file that lines are appended to. It is opened at the first write, and again when somebody
/// moved it away.
pub(super) struct LineFile {
    path: PathBuf,
    open: Option<OpenFile>,
}

struct OpenFile {
    file: File,
    /// The file ends in the middle of a line.
    torn: bool,
    /// There is something to sync.
    dirty: bool,
}

impl LineFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Appends whole lines and removes from `lines` those that are in the file.
    pub(super) fn append(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let result = self.open()?.append(lines);
        let written = result
            .as_ref()
            .map_or_else(|failed| failed.written, |()| lines.len());
        // A line that was cut is written again, whole, on a line of its own.
        let border = lines[..written]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        lines.drain(..border);
        result.map_err(|failed| failed.error)
    }

    /// Makes what was written survive a power failure, and lets go of a file that was moved away
    /// or removed.
    pub(super) fn sync(&mut self) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_torn_last_line_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "to").unwrap();
        let mut lines = b"whole\n".to_vec();
        LineFile::new(path.clone()).append(&mut lines).unwrap();
        assert!(lines.is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), "to\nwhole\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut file = LineFile::new(path.clone());
        file.append(&mut b"one\n".to_vec()).unwrap();
        fs::rename(&path, folder.path().join("lines.1")).unwrap();
        file.sync().unwrap();
        file.append(&mut b"two\n".to_vec()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn what_cannot_be_written_stays_for_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/lines");
        let mut file = LineFile::new(path.clone());
        let mut lines = b"one\n".to_vec();
        assert!(file.append(&mut lines).is_err());
        assert_eq!(lines, b"one\n");
        fs::create_dir(folder.path().join("missing")).unwrap();
        file.append(&mut lines).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
    }
}
