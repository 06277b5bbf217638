//! What outlives the daemon: live sessions, and the keys of ended ones.
//!
//! A SQLite database with one writer, a thread behind [`StoreHandle`]. Nobody waits for the disk
//! but who asks to, with [`StoreHandle::flush`]. The database only ever lags behind; what the
//! kernel enforces never depends on it:
//!
//! - a session that the maps know and the store doesn't is cut by the next daemon (fail closed),
//!   which is also what happens to all of them when the database had to be set aside;
//! - an ended key is durable before its end is confirmed, if the one who ends it flushes.

mod batch;
mod database;
mod rows;
mod writer;

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    database::StoreError,
    writer::{Flush, FlushError, Store, StoreHandle},
};
use crate::{
    clock::WallInstant,
    session::{CertificateId, EndReason, KeyThumbprint, KeyUse, Principal, SessionId, SessionKey},
};

/// Name of the database in `state_dir`.
pub const DATABASE_NAME: &str = "enforcer.db";

/// A live session, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// The id.
    pub id: SessionId,
    /// What it is known by: the key of each of its credentials.
    pub keys: Vec<KeyUse>,
    /// Whose it is.
    pub principal: Principal,
    /// `azp` of its credentials.
    pub authorized_party: Option<String>,
    /// Its key comes from `sid`.
    pub names_session: bool,
    /// When it started: `auth_time`, or when it was opened.
    pub started_at: WallInstant,
    /// When it was opened here.
    pub opened_at: WallInstant,
    /// When it ends whatever it does.
    pub deadline: WallInstant,
    /// Latest `exp` of its credentials.
    pub token_expires_at: WallInstant,
    /// The key that signed the credential with that `exp`, if its issuer can withdraw it.
    pub signing_key: Option<KeyThumbprint>,
    /// The certificates that this credential stands on.
    pub certificates: Vec<CertificateId>,
    /// Names of the policies that apply.
    pub policies: Vec<String>,
    /// When the hours end that bound it.
    pub hours_end_at: Option<WallInstant>,
    /// Where its first connection came from.
    pub first_address: Option<IpAddr>,
    /// Its last activity that the warden knew of.
    pub last_activity: WallInstant,
    /// The end that it was last announced for.
    pub warned_for: Option<WallInstant>,
}

/// When a session ends whatever it does, as a changed configuration has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its deadline.
    pub deadline: WallInstant,
    /// When the hours end that bound it.
    pub hours_end_at: Option<WallInstant>,
}

/// A key that opens no session any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedKey {
    /// The key.
    pub key: SessionKey,
    /// Why its session ended.
    pub reason: EndReason,
    /// When its session ended.
    pub ended_at: WallInstant,
    /// No credential with this key is valid from then on.
    pub until: WallInstant,
}

/// What the store held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Sessions that had not ended.
    pub sessions: Vec<StoredSession>,
    /// Keys that are still to be refused.
    pub ended: Vec<EndedKey>,
    /// Where a database that could not be read was moved to.
    pub set_aside: Option<PathBuf>,
}

/// How the store does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreHealth {
    /// The database.
    pub path: PathBuf,
    /// Changes that wait to be committed.
    pub queued: u64,
    /// Commits that failed since the start.
    pub errors: u64,
    /// Why the last commit failed; absent while commits succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl StoreHealth {
    /// Changes get to the disk.
    pub const fn works(&self) -> bool {
        self.last_error.is_none()
    }
}

#[cfg(test)]
mod tests;
