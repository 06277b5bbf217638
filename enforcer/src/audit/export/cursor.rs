//! Up to where an exporter has come, in a file of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::super::chain::ChainId;

/// A place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    chain: ChainId,
    sequence: u64,
}

/// The file of a cursor.
#[derive(Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
    cursor: Option<Cursor>,
}

impl CursorFile {
    /// Reads `audit.export.NAME` in `state_dir`. One that can't be read begins anew.
    pub(super) fn new(state_dir: &Path, name: &str) -> Self {
        let path = state_dir.join(format!("audit.export.{name}"));
        let text = fs::read(&path).unwrap_or_default();
        let cursor = serde_json::from_slice(&text).ok();
        Self { path, cursor }
    }

    pub(super) fn chain(&self) -> Option<ChainId> {
        self.cursor.map(|cursor| cursor.chain)
    }

    /// The last record that was delivered; 0 for none.
    pub(super) fn sequence(&self) -> u64 {
        self.cursor.map_or(0, |cursor| cursor.sequence)
    }

    /// The last record of `chain` that was delivered.
    pub(super) fn sequence_in(&self, chain: ChainId) -> u64 {
        if self.chain() == Some(chain) {
            self.sequence()
        } else {
            0
        }
    }

    pub(super) fn begin(&mut self, chain: ChainId) {
        self.cursor = Some(Cursor { chain, sequence: 0 });
    }

    /// The records up to `sequence` are delivered. A file that is there whole or as it was.
    pub(super) fn move_to(&mut self, sequence: u64) -> io::Result<()> {
        let Some(cursor) = &mut self.cursor else {
            return Ok(());
        };
        cursor.sequence = sequence;
        let draft = self.path.with_added_extension("new");
        fs::write(&draft, serde_json::to_vec(cursor)?)?;
        fs::rename(&draft, &self.path)
    }
}
