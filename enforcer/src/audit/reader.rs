//! Finding records in the log, also while it grows.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use serde::Deserialize;

use super::{Event, rfc3339};
use crate::clock::WallInstant;

/// Bytes that one [`LogReader::read`] looks at.
const CHUNK: usize = 128 * 1024;
/// A line that grows longer than this is none of ours.
const LONGEST_LINE: usize = 1024 * 1024;

/// Which records to show. Records of newer versions pass as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not older than this.
    pub since: Option<WallInstant>,
    /// Of this subject.
    pub subject: Option<String>,
    /// Telling of this event.
    pub event: Option<Event>,
}

/// What a filter looks at in a line.
#[derive(Deserialize)]
struct Line {
    #[serde(with = "rfc3339")]
    time: WallInstant,
    event: String,
    subject: Option<String>,
}

impl Filter {
    fn matches(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.event.is_none_or(|event| line.event == event.as_str())
            && self
                .subject
                .as_ref()
                .is_none_or(|subject| line.subject.as_ref() == Some(subject))
    }
}

/// Whether to go on at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The end is the end.
    No,
    /// More will come; the log may be truncated, moved away or not be there yet.
    Yes,
}

/// What a call of [`LogReader::read`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to read.
    More,
    /// All of the log was read.
    End,
}

/// Reads a log from its beginning.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    filter: Filter,
    follow: Follow,
    file: Option<File>,
    position: u64,
    /// Begin of a line whose end was not read yet.
    partial: Vec<u8>,
    broken_lines: u64,
    /// The log is another file by now; this one is read to its end, then let go.
    leaving: bool,
}

impl LogReader {
    /// Opens the log.
    ///
    /// # Errors
    /// If it can't be opened; one that is to be followed need not exist.
    pub fn open(path: impl Into<PathBuf>, filter: Filter, follow: Follow) -> io::Result<Self> {
        let path = path.into();
        let file = match (File::open(&path), follow) {
            (Ok(file), _) => Some(file),
            (Err(error), Follow::Yes) if error.kind() == ErrorKind::NotFound => None,
            (Err(error), _) => return Err(error),
        };
        Ok(Self {
            path,
            filter,
            follow,
            file,
            position: 0,
            partial: Vec::new(),
            broken_lines: 0,
            leaving: false,
        })
    }

    /// Lines so far that were no records.
    pub const fn broken_lines(&self) -> u64 {
        self.broken_lines
    }

    /// Reads a bounded piece of the log and appends the lines of matching records, as they stand
    /// there, to `found`. After [`Progress::End`] of a log that is followed, call again in a
    /// while.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn read(&mut self, found: &mut Vec<u8>) -> io::Result<Progress> {
        let mut chunk = vec![0; CHUNK];
        let count = match &mut self.file {
            Some(file) => file.read(&mut chunk)?,
            None => 0,
        };
        if count == 0 {
            return self.at_end(found);
        }
        self.position += count as u64;
        let mut rest = &chunk[..count];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.finish_line(found);
        }
        if self.partial.len() + rest.len() <= LONGEST_LINE {
            self.partial.extend_from_slice(rest);
        }
        Ok(Progress::More)
    }

    fn finish_line(&mut self, found: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.partial);
        match serde_json::from_slice::<Line>(&line) {
            Ok(parsed) if self.filter.matches(&parsed) => {
                found.extend_from_slice(&line);
                found.push(b'\n');
            }
            Ok(_) => {}
            Err(_) if line.is_empty() => {}
            Err(_) => self.broken_lines += 1,
        }
    }

    fn at_end(&mut self, found: &mut Vec<u8>) -> io::Result<Progress> {
        if self.follow == Follow::No {
            self.finish_line(found);
            return Ok(Progress::End);
        }
        if !self.was_replaced()? {
            return Ok(Progress::End);
        }
        if !std::mem::replace(&mut self.leaving, true) {
            return Ok(Progress::More);
        }
        self.leaving = false;
        self.finish_line(found);
        self.file = match File::open(&self.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.position = 0;
        Ok(match self.file {
            Some(_) => Progress::More,
            None => Progress::End,
        })
    }

    /// The log is shorter than what was read of it, or another file that its writer, having let
    /// go of this one, has begun.
    fn was_replaced(&self) -> io::Result<bool> {
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(file) = &self.file else {
            return Ok(true);
        };
        let ours = file.metadata()?;
        let same = (found.dev(), found.ino()) == (ours.dev(), ours.ino());
        Ok(if same {
            ours.len() < self.position
        } else {
            found.len() > 0
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;
    use crate::audit::Record;

    fn line(second: i64, event: Event, subject: &str) -> String {
        let mut record = Record::new(WallInstant::from_unix_seconds(second), event);
        record.subject = Some(subject.to_owned());
        serde_json::to_string(&record).unwrap() + "\n"
    }

    fn read_all(reader: &mut LogReader) -> String {
        let mut found = Vec::new();
        while reader.read(&mut found).unwrap() == Progress::More {}
        String::from_utf8(found).unwrap()
    }

    fn log(lines: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, lines.concat()).unwrap();
        (folder, path)
    }

    #[test]
    fn a_filter_picks_by_time_subject_and_event() {
        let old = line(1, Event::SessionOpened, "alice");
        let ended = line(2, Event::SessionEnded, "alice");
        let bob = line(3, Event::SessionEnded, "bob");
        let (_folder, path) = log(&[&old, &ended, &bob]);
        let read = |filter| read_all(&mut LogReader::open(&path, filter, Follow::No).unwrap());
        assert_eq!(read(Filter::default()), [&*old, &ended, &bob].concat());
        let since = Some(WallInstant::from_unix_seconds(2));
        let filter = Filter {
            since,
            ..Filter::default()
        };
        assert_eq!(read(filter.clone()), [&*ended, &bob].concat());
        let subject = Some("alice".to_owned());
        assert_eq!(read(Filter { subject, ..filter }), ended);
        let event = Some(Event::SessionOpened);
        assert_eq!(
            read(Filter {
                event,
                ..Filter::default()
            }),
            old
        );
    }

    #[test]
    fn broken_lines_are_counted_and_lines_longer_than_a_chunk_are_found() {
        let long = line(1, Event::SessionOpened, &"x".repeat(3 * CHUNK));
        let endless = "y".repeat(LONGEST_LINE + CHUNK) + "\n";
        let future = "{\"time\":\"2030-01-01T00:00:00Z\",\"event\":\"of_a_newer_version\"}\n";
        let (_folder, path) = log(&["{\"torn\n", "\n", &long, &endless, "[]\n", future, "{\"ti"]);
        let mut reader = LogReader::open(&path, Filter::default(), Follow::No).unwrap();
        assert_eq!(read_all(&mut reader), [&*long, future].concat());
        assert_eq!(reader.broken_lines(), 4);
    }

    #[test]
    fn a_followed_log_may_grow_in_pieces_be_truncated_and_be_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut reader = LogReader::open(&path, Filter::default(), Follow::Yes).unwrap();
        assert_eq!(read_all(&mut reader), "");

        let first = line(1, Event::SessionOpened, "alice");
        let (head, tail) = first.split_at(20);
        let mut file = File::create(&path).unwrap();
        file.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_all(&mut reader), "");
        file.write_all(tail.as_bytes()).unwrap();
        assert_eq!(read_all(&mut reader), first);
        assert_eq!(read_all(&mut reader), "");

        let second = line(2, Event::DaemonStarted, "");
        fs::write(&path, &second).unwrap();
        assert_eq!(read_all(&mut reader), second);

        fs::rename(&path, folder.path().join("old")).unwrap();
        assert_eq!(read_all(&mut reader), "");
        fs::write(&path, &first).unwrap();
        assert_eq!(read_all(&mut reader), first);
        assert_eq!(reader.broken_lines(), 0);
    }

    #[test]
    fn a_missing_log_is_an_error_unless_it_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        assert!(LogReader::open(path, Filter::default(), Follow::No).is_err());
    }
}
