//! The file of signed heads: one JSON line each, append only, to be shipped elsewhere.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{lines::LineFile, signing::Statement};

/// Longer than any line.
const LONGEST_LINE: u64 = 4_096;

/// Appends heads.
pub(super) struct HeadsFile {
    file: LineFile,
    /// Lines that are not in the file yet.
    waiting: Vec<u8>,
}

impl HeadsFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            file: LineFile::new(path),
            waiting: Vec::new(),
        }
    }

    /// Appends a head and makes it survive a power failure. What can't be written is tried again
    /// with the next.
    pub(super) fn append(&mut self, head: &Statement) -> io::Result<()> {
        if self.waiting.len() as u64 > LONGEST_LINE {
            // The newest says the most.
            self.waiting.clear();
        }
        serde_json::to_writer(&mut self.waiting, head)?;
        self.waiting.push(b'\n');
        self.file.append(&mut self.waiting)?;
        self.file.sync()
    }
}

/// The last head in a file; `None` if there is no file or no head in it.
pub(super) fn last(path: &Path) -> io::Result<Option<Statement>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LINE)))?;
    let mut end = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut end)?;
    let mut lines = end.split(|byte| *byte == b'\n').rev();
    Ok(lines.find_map(|line| serde_json::from_slice(line).ok()))
}

/// Every line of a file, from the first: a head, or the text that is none.
pub(super) fn read(path: &Path) -> io::Result<Vec<Result<Statement, String>>> {
    let text = std::fs::read(path)?;
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    Ok(lines
        .map(|line| {
            serde_json::from_slice(line).map_err(|_| String::from_utf8_lossy(line).into_owned())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            chain::ChainId,
            signing::{Claim, SigningKey},
        },
        clock::WallInstant,
    };

    #[test]
    fn heads_are_read_back_and_a_torn_line_spoils_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads");
        assert_eq!(last(&path).unwrap(), None);
        let (key, _) = SigningKey::provide(folder.path()).unwrap();
        let chain = ChainId::from_bytes([1; 16]);
        let sign = |position| {
            key.sign(
                Claim::Head,
                chain,
                position,
                WallInstant::from_unix_seconds(1),
            )
        };
        let first = sign(chain.origin());
        let second = sign(chain.origin().next("{}"));
        std::fs::write(&path, "{\"chain\":\"01").unwrap();
        let mut heads = HeadsFile::new(path.clone());
        heads.append(&first).unwrap();
        heads.append(&second).unwrap();
        assert_eq!(last(&path).unwrap(), Some(second.clone()));
        let torn = Err("{\"chain\":\"01".to_owned());
        assert_eq!(read(&path).unwrap(), [torn, Ok(first), Ok(second)]);
    }
}
