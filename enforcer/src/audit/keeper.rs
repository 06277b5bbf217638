//! Keeps the database: opens it, notices what happened to it meanwhile, signs heads, removes what
//! is too old or too much.
//!
//! What it notices goes into the log itself: a chain that was begun and why, a database that is not
//! the one that the last signed head speaks of, records that were removed.

use std::{path::PathBuf, time::Duration};

use super::{
    AuditSettings, Event, Record,
    chain::Position,
    heads::{self, HeadsFile},
    ledger::{Ledger, LedgerError},
    signing::{Claim, KeyError, SigningKey, Statement},
};
use crate::{
    clock::{self, BootInstant, Now},
    sqlite,
};

/// Records removed at a time, so that new ones need not wait.
const REMOVED_AT_ONCE: u64 = 1_000;
/// How often it is looked for records to remove.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);
/// A database that is too big is brought down to this part of the limit, in tenths.
const TENTHS_LEFT: u64 = 9;

/// Why the log can't be kept as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpkeepError {
    /// Neither heads nor anchors can be signed.
    #[error("nothing can be signed: {0}{cause}", cause = cause(.0))]
    Key(#[from] KeyError),
    /// Heads can't be written.
    #[error("signed heads cannot be written to {path}: {source}")]
    Heads {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Records can't be removed.
    #[error("old records cannot be removed: {0}")]
    Retention(#[from] LedgerError),
}

fn cause(error: &KeyError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(String::new, |source| format!(": {source}"))
}

/// Why records are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excess {
    Age,
    Size,
}

impl Excess {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

/// Removal under way.
#[derive(Clone, Copy, Debug)]
struct Removal {
    excess: Excess,
    count: u64,
    through: Position,
}

/// The database and all that belongs to it.
pub(super) struct Keeper {
    settings: AuditSettings,
    ledger: Option<Ledger>,
    /// To be written before anything else.
    notices: Vec<Record>,
    key: Option<SigningKey>,
    heads: HeadsFile,
    /// The last record that a head is about.
    headed: u64,
    next_head_at: BootInstant,
    removal: Option<Removal>,
    next_retention_at: BootInstant,
}

impl Keeper {
    pub(super) fn new(settings: AuditSettings) -> Self {
        Self {
            heads: HeadsFile::new(settings.heads_file.clone()),
            settings,
            ledger: None,
            notices: Vec::new(),
            key: None,
            headed: 0,
            next_head_at: BootInstant::from_nanos(0),
            removal: None,
            next_retention_at: BootInstant::from_nanos(0),
        }
    }

    pub(super) fn reconfigure(&mut self, settings: AuditSettings) {
        if settings.heads_file != self.settings.heads_file {
            self.heads = HeadsFile::new(settings.heads_file.clone());
        }
        self.settings = AuditSettings {
            state_dir: self.settings.state_dir.clone(),
            ..settings
        };
        self.next_retention_at = BootInstant::from_nanos(0);
    }

    /// The database is open and all that was noticed is written.
    pub(super) const fn is_settled(&self) -> bool {
        self.ledger.is_some() && self.notices.is_empty()
    }

    /// There is something to do even if no record comes.
    pub(super) const fn is_busy(&self) -> bool {
        !self.is_settled() || self.removal.is_some()
    }

    /// Number of the last record.
    pub(super) fn sequence(&self) -> u64 {
        self.ledger
            .as_ref()
            .map_or(0, |ledger| ledger.last().sequence)
    }

    /// Appends what was noticed and then `records`: all of them, or none. A database that turns
    /// out to be damaged is moved aside, and a new one begun with them.
    pub(super) fn append(&mut self, records: &[&Record]) -> Result<(), LedgerError> {
        match self.try_append(records) {
            Err(LedgerError::Damaged(damage)) => {
                self.set_aside(damage)?;
                self.try_append(records)
            }
            result => result,
        }
    }

    fn try_append(&mut self, records: &[&Record]) -> Result<(), LedgerError> {
        if self.ledger.is_none() {
            self.open()?;
        }
        if let Some(ledger) = &mut self.ledger {
            let all: Vec<_> = self.notices.iter().chain(records.iter().copied()).collect();
            ledger.append(&all)?;
            self.notices.clear();
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), LedgerError> {
        let now = clock::wall_now();
        let ledger = Ledger::open(&self.settings.database(), now)?;
        // Without a key, what the heads say can't be believed.
        let _ = self.provide_key();
        let head = heads::last(&self.settings.heads_file).ok().flatten();
        let head = head.filter(|head| {
            let key = self.key.as_ref();
            key.is_some_and(|key| key.public().verifies(Claim::Head, head))
        });
        let notice = if ledger.begun() {
            let reason = if head.is_some() { "missing" } else { "first" };
            Some(("the log begins here", Event::AuditChainStarted, reason))
        } else {
            match &head {
                Some(head) => contradiction(&ledger, head)?.map(|reason| {
                    tracing::error!(
                        reason,
                        "the audit log is not the one that its last signed head speaks of"
                    );
                    let detail = "the log is not the one that its last signed head speaks of";
                    (detail, Event::AuditTampered, reason)
                }),
                None => None,
            }
        };
        // What the set-aside database left to be said goes first.
        let told = self
            .notices
            .iter()
            .any(|notice| notice.event == Event::AuditChainStarted);
        if let Some((detail, event, reason)) = notice.filter(|_| !told) {
            let mut record = Record::new(now, event).because(reason);
            record.detail = Some(detail.to_owned());
            self.notices.insert(0, about(record, head.as_ref()));
        }
        self.headed = head
            .filter(|head| head.chain == ledger.chain())
            .map_or(0, |head| head.sequence);
        self.ledger = Some(ledger);
        Ok(())
    }

    /// Moves a damaged database out of the way; the next one begins with a record that says so.
    fn set_aside(&mut self, damage: rusqlite::Error) -> Result<(), LedgerError> {
        let path = self.settings.database();
        let now = clock::wall_now();
        self.ledger = None;
        self.removal = None;
        let aside = sqlite::set_aside(&path, now).map_err(|source| LedgerError::Open {
            path: path.clone(),
            source,
        })?;
        tracing::error!(
            path = %path.display(), aside = %aside.display(), %damage,
            "the audit log is damaged: it was moved aside and a new one is begun"
        );
        let head = heads::last(&self.settings.heads_file).ok().flatten();
        let mut record = Record::new(now, Event::AuditChainStarted).because("corrupt");
        record.detail = Some(format!("{damage}; moved to {}", aside.display()));
        self.notices.insert(0, about(record, head.as_ref()));
        Ok(())
    }

    fn provide_key(&mut self) -> Result<(), KeyError> {
        if self.key.is_some() {
            return Ok(());
        }
        let (key, made) = SigningKey::provide(&self.settings.state_dir)?;
        if made {
            let mut record = Record::new(clock::wall_now(), Event::AuditKeyCreated);
            record.detail = Some(format!("public key {}", key.public()));
            self.notices.push(record);
        }
        self.key = Some(key);
        Ok(())
    }

    /// Signs and writes a head if that is due, and removes a few records if there are too many.
    /// The `last` time only a head is written.
    pub(super) fn upkeep(&mut self, now: Now, last: bool) -> Result<(), UpkeepError> {
        if self.ledger.is_none() {
            return Ok(());
        }
        self.provide_key()?;
        if last {
            return self.write_head(now);
        }
        let due = self.removal.is_some() || now.boot >= self.next_retention_at;
        let removed = if due { self.remove_some(now) } else { Ok(()) };
        if now.boot >= self.next_head_at {
            self.write_head(now)?;
            self.next_head_at = now.boot.saturating_add(self.settings.heads_interval);
        }
        removed
    }

    fn write_head(&mut self, now: Now) -> Result<(), UpkeepError> {
        let (Some(ledger), Some(key)) = (&self.ledger, &self.key) else {
            return Ok(());
        };
        let last = ledger.last();
        if last.sequence == self.headed {
            return Ok(());
        }
        let head = key.sign(Claim::Head, ledger.chain(), last, now.wall);
        self.heads
            .append(&head)
            .map_err(|source| UpkeepError::Heads {
                path: self.settings.heads_file.clone(),
                source,
            })?;
        self.headed = last.sequence;
        Ok(())
    }

    fn remove_some(&mut self, now: Now) -> Result<(), UpkeepError> {
        self.next_retention_at = now.boot.saturating_add(RETENTION_INTERVAL);
        let (Some(ledger), Some(key)) = (&mut self.ledger, &self.key) else {
            return Ok(());
        };
        let shrinking = matches!(
            self.removal,
            Some(Removal {
                excess: Excess::Size,
                ..
            })
        );
        let limit = if shrinking {
            self.settings.max_size / 10 * TENTHS_LEFT
        } else {
            self.settings.max_size
        };
        let found = if ledger.size()? > limit {
            let oldest = ledger.removable(None, REMOVED_AT_ONCE)?;
            oldest.map(|removable| (Excess::Size, removable))
        } else if let Some(keep) = self.settings.keep {
            let before = now.wall.saturating_sub(keep);
            let oldest = ledger.removable(Some(before), REMOVED_AT_ONCE)?;
            oldest.map(|removable| (Excess::Age, removable))
        } else {
            None
        };
        let Some((excess, removable)) = found else {
            self.conclude_removal(now);
            return Ok(());
        };
        let anchor = key.sign(Claim::Anchor, ledger.chain(), removable.through, now.wall);
        ledger.remove(&anchor)?;
        let before = self.removal.map_or(0, |removal| removal.count);
        self.removal = Some(Removal {
            excess,
            count: before + removable.count,
            through: removable.through,
        });
        Ok(())
    }

    fn conclude_removal(&mut self, now: Now) {
        let Some(removal) = self.removal.take() else {
            return;
        };
        let mut record = Record::new(now.wall, Event::AuditPruned).because(removal.excess.as_str());
        record.removed = Some(removal.count);
        record.through = Some(removal.through.sequence);
        record.hash = Some(removal.through.hash);
        self.notices.push(record);
    }
}

/// Why the database can't be the one that the head speaks of, if so.
fn contradiction(ledger: &Ledger, head: &Statement) -> Result<Option<&'static str>, LedgerError> {
    if head.chain != ledger.chain() {
        return Ok(Some("replaced"));
    }
    Ok(match ledger.hash(head.sequence)? {
        Some(hash) if hash == head.hash => None,
        Some(_) => Some("changed"),
        None if ledger.last().sequence < head.sequence => Some("truncated"),
        None => {
            let anchor = ledger.anchor()?;
            let removed = anchor.is_some_and(|anchor| anchor.sequence >= head.sequence);
            (!removed).then_some("removed")
        }
    })
}

/// Names the chain's last known head.
fn about(mut record: Record, head: Option<&Statement>) -> Record {
    if let Some(head) = head {
        record.chain = Some(head.chain);
        record.through = Some(head.sequence);
        record.hash = Some(head.hash);
    }
    record
}
