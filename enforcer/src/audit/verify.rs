//! Whether the log is what was written: nothing removed, changed, reordered or cut off.
//!
//! The chain by itself shows what happened within it. That its end was cut off, or that all of it
//! from some record on was made anew, shows only against signed heads, which is why these are to be
//! kept elsewhere.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{
    Event,
    chain::{ChainId, Hash, Position},
    heads,
    index::{Indexed, address_column, session_column, time_column},
    ledger,
    reader::{self, ReadError},
    signing::{Claim, KeyError, PublicKey, Statement},
};

/// Faults that are looked into; of what comes after only the number is known.
const MOST_FAULTS: usize = 1_000;

/// What the log is held against.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// A file of heads.
    pub heads: Option<PathBuf>,
    /// The key that heads and anchors are signed with.
    pub public_key: Option<PublicKey>,
}

/// Why the log can't be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The heads can't be read.
    #[error("cannot read {path}")]
    Heads {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What is wrong with a record, or a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Records are missing.
    Removed,
    /// A record is not what was written.
    Changed,
    /// A record stands in the place of another.
    Reordered,
    /// A column beside the record says something else.
    Mislabelled,
    /// The last records are missing.
    Truncated,
    /// A head speaks of another hash: the chain was made anew.
    Rewritten,
    /// A head or an anchor is not signed with the key.
    Unsigned,
    /// A line of the file is no head.
    NotAHead,
    /// A head is of a chain that the log knows nothing of.
    OtherChain,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub fault: Fault,
    /// The first record that it is about.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The same in words.
    pub message: String,
}

impl Finding {
    fn new(fault: Fault, first: u64, last: u64, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self {
            fault,
            first,
            last,
            message,
        }
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Nothing is wrong.
    pub intact: bool,
    /// The chain.
    pub chain: ChainId,
    /// Records looked at.
    pub records: u64,
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// Records removed in good order before the first.
    pub removed_in_order: u64,
    /// Heads of this chain that were compared with a record.
    pub heads: u64,
    /// Number of the last record that a head vouches for.
    pub vouched_for: u64,
    /// Chains that there are heads of, and that are not in this database but, as it says, in one
    /// that was damaged and moved aside.
    pub moved_aside: Vec<ChainId>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Faults beyond those that are listed.
    pub more: u64,
}

/// Verifies the database at `path`, which may be written meanwhile.
///
/// # Errors
/// If it can't be read; what is wrong with it is no error but a finding.
pub fn verify(path: &Path, evidence: &Evidence) -> Result<Verification, VerifyError> {
    // Before the records: those that they speak of are then there.
    let heads = match &evidence.heads {
        Some(file) => heads::read(file).map_err(|source| VerifyError::Heads {
            path: file.clone(),
            source,
        })?,
        None => Vec::new(),
    };
    let mut connection = reader::open(path)?;
    let verified = in_one_view(&mut connection, heads, evidence.public_key.as_ref());
    verified.map_err(|source| {
        VerifyError::Read(ReadError::Database {
            path: path.to_owned(),
            source,
        })
    })
}

fn in_one_view(
    connection: &mut Connection,
    heads: Vec<Result<Statement, String>>,
    key: Option<&PublicKey>,
) -> rusqlite::Result<Verification> {
    let view = connection.transaction()?;
    let chain = ledger::chain_id(&view)?;
    let anchor = ledger::anchor(&view, chain)?;
    let mut inspection = Inspection::new(chain, anchor, key);
    inspection.sort_heads(heads, key);
    let mut statement = view.prepare("SELECT * FROM records ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get("record")?;
        let columns = Columns {
            time: row.get("time")?,
            event: row.get("event")?,
            session: row.get("session")?,
            subject: row.get("subject")?,
            reason: row.get("reason")?,
            client: row.get("client")?,
            proxied_client: row.get("proxied_client")?,
        };
        let sequence = row.get::<_, i64>("sequence")?.cast_unsigned();
        let hash = row.get::<_, Vec<u8>>("hash")?;
        // A hash of another length is none that was written.
        let hash = Hash::from_bytes(hash.try_into().unwrap_or([0; 32]));
        inspection.look_at(Position { sequence, hash }, text, &columns);
    }
    Ok(inspection.conclude())
}

/// The columns beside a record.
#[derive(Debug, PartialEq, Eq)]
struct Columns {
    time: i64,
    event: String,
    session: Option<i64>,
    subject: Option<String>,
    reason: Option<String>,
    client: Option<Vec<u8>>,
    proxied_client: Option<Vec<u8>>,
}

impl Columns {
    /// As they should be; `None` if the text is no record.
    fn of(text: &str) -> Option<Self> {
        let indexed: Indexed = serde_json::from_str(text).ok()?;
        let address = |end: std::net::SocketAddr| address_column(end.ip()).to_vec();
        Some(Self {
            time: time_column(indexed.time),
            event: indexed.event,
            session: indexed.session.map(session_column),
            subject: indexed.subject,
            reason: indexed.reason,
            client: indexed.client.map(address),
            proxied_client: indexed.proxied_client.map(address),
        })
    }
}

/// What the first record says of the chain before.
#[derive(Deserialize)]
struct Predecessor {
    chain: Option<ChainId>,
    reason: String,
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("record {first} is missing")
    } else {
        format!("records {first} to {last} are missing")
    }
}

/// A record that does not follow from the one before.
struct Suspect {
    text: String,
    hash: Hash,
    /// The hash that stands before it.
    before: Hash,
}

struct Inspection {
    chain: ChainId,
    origin: Position,
    removed_in_order: u64,
    /// Heads of this chain, by their record.
    heads: BTreeMap<u64, Vec<Hash>>,
    first: Option<u64>,
    previous: Position,
    records: u64,
    suspects: BTreeMap<u64, Suspect>,
    heads_seen: u64,
    /// The last record that a head vouches for, and the first that one contradicts.
    vouched_for: u64,
    contradicted: Option<u64>,
    /// Chains that there are heads of, with the number of the last.
    others: BTreeMap<ChainId, u64>,
    moved_aside: Vec<ChainId>,
    findings: Vec<Finding>,
    more: u64,
}

impl Inspection {
    fn new(chain: ChainId, anchor: Option<Statement>, key: Option<&PublicKey>) -> Self {
        let origin = anchor
            .as_ref()
            .map_or_else(|| chain.origin(), Statement::position);
        let mut inspection = Self {
            chain,
            origin,
            removed_in_order: origin.sequence,
            heads: BTreeMap::new(),
            first: None,
            previous: origin,
            records: 0,
            suspects: BTreeMap::new(),
            heads_seen: 0,
            vouched_for: 0,
            contradicted: None,
            others: BTreeMap::new(),
            moved_aside: Vec::new(),
            findings: Vec::new(),
            more: 0,
        };
        if let (Some(anchor), Some(key)) = (anchor, key)
            && !key.verifies(Claim::Anchor, &anchor)
        {
            let last = anchor.sequence;
            inspection.find(Finding::new(
                Fault::Unsigned,
                1,
                last,
                format_args!(
                    "records 1 to {last} are missing, and what says that they were removed in \
                     good order is not signed with this key"
                ),
            ));
        }
        inspection
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FAULTS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    fn sort_heads(&mut self, heads: Vec<Result<Statement, String>>, key: Option<&PublicKey>) {
        for head in heads {
            let head = match head {
                Ok(head) => head,
                Err(line) => {
                    let line: String = line.chars().take(80).collect();
                    let message = format!("a line of the heads is no head: `{line}`");
                    self.find(Finding::new(Fault::NotAHead, 0, 0, message));
                    continue;
                }
            };
            let sequence = head.sequence;
            if key.is_some_and(|key| !key.verifies(Claim::Head, &head)) {
                let message = format!("the head of record {sequence} is not signed with this key");
                self.find(Finding::new(Fault::Unsigned, sequence, sequence, message));
            } else if head.chain == self.chain {
                self.heads.entry(sequence).or_default().push(head.hash);
            } else {
                let last = self.others.entry(head.chain).or_insert(0);
                *last = sequence.max(*last);
            }
        }
    }

    fn look_at(&mut self, position: Position, text: String, columns: &Columns) {
        let Position { sequence, hash } = position;
        self.records += 1;
        self.first.get_or_insert(sequence);
        let expected = self.previous.sequence + 1;
        if sequence > expected {
            self.missing(expected, sequence - 1);
        } else if self.previous.hash.followed_by(sequence, &text) != hash {
            if self.suspects.len() < MOST_FAULTS {
                let before = self.previous.hash;
                let suspect = Suspect {
                    text: text.clone(),
                    hash,
                    before,
                };
                self.suspects.insert(sequence, suspect);
            } else {
                self.more += 1;
            }
        }
        if Columns::of(&text).as_ref() != Some(columns) {
            let message = format!(
                "the columns of record {sequence}, by which it is found, are not what it says"
            );
            self.find(Finding::new(
                Fault::Mislabelled,
                sequence,
                sequence,
                message,
            ));
        }
        for head in self.heads.remove(&sequence).unwrap_or_default() {
            self.heads_seen += 1;
            if head == hash && self.contradicted.is_none() {
                self.vouched_for = sequence;
            } else if head != hash {
                self.contradicted.get_or_insert(sequence);
            }
        }
        if columns.event == Event::AuditChainStarted.as_str()
            && let Ok(Predecessor { chain, reason }) = serde_json::from_str(&text)
            && reason == "corrupt"
        {
            self.moved_aside.extend(chain);
        }
        self.previous = position;
    }

    fn missing(&mut self, first: u64, last: u64) {
        self.find(Finding::new(
            Fault::Removed,
            first,
            last,
            missing(first, last),
        ));
    }

    /// Which of the suspects stand in each other's places, and which were changed.
    fn judge_suspects(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        let mut resolved: BTreeMap<u64, Hash> = BTreeMap::new();
        for (place, suspect) in &suspects {
            let before = place
                .checked_sub(1)
                .and_then(|before| resolved.get(&before).copied())
                .unwrap_or(suspect.before);
            let belongs = |other: &Suspect| before.followed_by(*place, &other.text) == other.hash;
            if belongs(suspect) {
                // It follows from the record that belongs before it.
                continue;
            }
            let finding = match suspects.iter().find(|(_, other)| belongs(other)) {
                Some((stands_at, other)) => {
                    resolved.insert(*place, other.hash);
                    let message =
                        format!("record {place} stands in the place of record {stands_at}");
                    Finding::new(Fault::Reordered, *place, *place, message)
                }
                None => {
                    let message = format!(
                        "record {place} was changed, or the one before it was, with its hash made \
                         to fit"
                    );
                    Finding::new(Fault::Changed, *place, *place, message)
                }
            };
            self.find(finding);
        }
    }

    fn judge_heads(&mut self) {
        if let Some(contradicted) = self.contradicted {
            let first = self.vouched_for.max(self.origin.sequence) + 1;
            let message = format!(
                "records {first} to {contradicted} are not those that a signed head vouches for: \
                 the chain was made anew from one of them on"
            );
            self.find(Finding::new(Fault::Rewritten, first, contradicted, message));
        }
        let last = self.previous.sequence;
        let unmet = std::mem::take(&mut self.heads);
        if let Some((end, _)) = unmet.range(last + 1..).next_back() {
            let first = last + 1;
            let message = format!("the end was cut off: {}", missing(first, *end));
            self.find(Finding::new(Fault::Truncated, first, *end, message));
        }
        // Of what was removed in good order only the last one's hash is known.
        let origin = self.origin;
        if let Some(hashes) = unmet.get(&origin.sequence) {
            self.heads_seen += hashes.len() as u64;
            if hashes.iter().any(|hash| *hash != origin.hash) {
                let place = origin.sequence;
                let message = format!(
                    "record {place}, the last one that was removed in good order, is not the one \
                     that a signed head vouches for"
                );
                self.find(Finding::new(Fault::Rewritten, place, place, message));
            }
        }
    }

    /// Heads of other chains are in order if that chain's database was moved aside, as the log
    /// says; or may have said, in records that were removed since.
    fn judge_others(&mut self) {
        for (chain, last) in std::mem::take(&mut self.others) {
            if self.moved_aside.contains(&chain) || self.origin.sequence > 0 {
                continue;
            }
            let message = format!(
                "records 1 to {last} of chain {chain}, which there are heads of, are not in this \
                 database"
            );
            self.find(Finding::new(Fault::OtherChain, 1, last, message));
        }
    }

    fn conclude(mut self) -> Verification {
        self.judge_suspects();
        self.judge_heads();
        self.judge_others();
        self.findings.sort_by_key(|finding| finding.first);
        Verification {
            intact: self.findings.is_empty() && self.more == 0,
            chain: self.chain,
            records: self.records,
            first: self.first.unwrap_or(0),
            last: self.previous.sequence,
            removed_in_order: self.removed_in_order,
            heads: self.heads_seen,
            vouched_for: self.vouched_for,
            moved_aside: self.moved_aside,
            findings: self.findings,
            more: self.more,
        }
    }
}

#[cfg(test)]
mod tests;
