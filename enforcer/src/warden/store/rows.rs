//! Rows to values and back. Instants are nanoseconds.

use std::net::IpAddr;

use rusqlite::{Connection, Row, params, types::Type};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value},
};

use super::{
    EndedKey, Snapshot, StoredSession,
    batch::{Batch, SessionChange, Update},
};
use crate::{
    clock::WallInstant,
    session::{CertificateId, EndReason, KeyThumbprint, KeyUse, Principal, SessionId, SessionKey},
};

/// Reads everything.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Snapshot> {
    let mut keys =
        connection.prepare("SELECT key, until FROM session_keys WHERE session_id = ?")?;
    let mut sessions = Vec::new();
    let mut statement = connection.prepare("SELECT * FROM sessions ORDER BY opened_at, id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut session = session(row)?;
        session.keys = keys
            .query_map([row.get::<_, i64>("id")?], |row| {
                Ok(KeyUse {
                    key: key(row)?,
                    until: wall(row, "until")?,
                })
            })?
            .collect::<Result<_, _>>()?;
        sessions.push(session);
    }
    let ended = connection
        .prepare("SELECT * FROM ended_keys")?
        .query_map([], ended_key)?
        .collect::<Result<_, _>>()?;
    Ok(Snapshot {
        sessions,
        ended,
        set_aside: None,
    })
}

/// Forgets keys whose last credential has expired.
pub(super) fn purge_ended(connection: &Connection, now: WallInstant) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM ended_keys WHERE until <= ?")?
        .execute([now.as_unix_nanos()])?;
    Ok(())
}

/// Writes the batch in one transaction.
pub(super) fn commit(connection: &mut Connection, batch: &Batch) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (id, change) in &batch.sessions {
        match change {
            SessionChange::Save(session) => save(&transaction, session)?,
            SessionChange::Update(change) => update(&transaction, *id, change)?,
            SessionChange::Remove => {
                transaction
                    .prepare_cached("DELETE FROM sessions WHERE id = ?")?
                    .execute([row_id(*id)])?;
            }
        }
    }
    for ended in batch.ended.values() {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO ended_keys VALUES (?, ?, ?, ?)")?
            .execute(params![
                ended.key.as_bytes(),
                ended.reason.as_str(),
                ended.ended_at.as_unix_nanos(),
                ended.until.as_unix_nanos(),
            ])?;
    }
    if let Some(now) = batch.ended.values().map(|ended| ended.ended_at).max() {
        purge_ended(&transaction, now)?;
    }
    transaction.commit()
}

fn update(connection: &Connection, id: SessionId, change: &Update) -> rusqlite::Result<()> {
    if let Some(at) = change.last_activity {
        connection
            .prepare_cached("UPDATE sessions SET last_activity = ? WHERE id = ?")?
            .execute(params![at.as_unix_nanos(), row_id(id)])?;
    }
    if let Some(bounds) = change.bounds {
        connection
            .prepare_cached("UPDATE sessions SET deadline = ?, hours_end_at = ? WHERE id = ?")?
            .execute(params![
                bounds.deadline.as_unix_nanos(),
                bounds.hours_end_at.map(WallInstant::as_unix_nanos),
                row_id(id),
            ])?;
    }
    Ok(())
}

fn save(connection: &Connection, session: &StoredSession) -> rusqlite::Result<()> {
    let policies = serde_json::to_string(&session.policies)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached("DELETE FROM session_keys WHERE session_id = ?")?
        .execute([row_id(session.id)])?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO sessions VALUES \
             (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            row_id(session.id),
            session.principal.issuer,
            session.principal.subject,
            session.authorized_party,
            session.names_session,
            session.started_at.as_unix_nanos(),
            session.opened_at.as_unix_nanos(),
            session.deadline.as_unix_nanos(),
            session.token_expires_at.as_unix_nanos(),
            policies,
            session.last_activity.as_unix_nanos(),
            session.signing_key.as_ref().map(KeyThumbprint::as_bytes),
            certificate_ids(&session.certificates),
            session.hours_end_at.map(WallInstant::as_unix_nanos),
            session.first_address.map(|address| address.to_string()),
            session.warned_for.map(WallInstant::as_unix_nanos),
        ])?;
    for stored in &session.keys {
        connection
            .prepare_cached("INSERT OR REPLACE INTO session_keys VALUES (?, ?, ?)")?
            .execute(params![
                stored.key.as_bytes(),
                row_id(session.id),
                stored.until.as_unix_nanos(),
            ])?;
    }
    Ok(())
}

fn session(row: &Row<'_>) -> rusqlite::Result<StoredSession> {
    let id = SessionId::from_u64(row.get::<_, i64>("id")?.cast_unsigned())
        .ok_or_else(|| unreadable("a session's id is 0"))?;
    let policies: String = row.get("policies")?;
    let first_address: Option<String> = row.get("first_address")?;
    let first_address = first_address.map(|address| address.parse::<IpAddr>());
    Ok(StoredSession {
        id,
        keys: Vec::new(),
        principal: Principal {
            issuer: row.get("issuer")?,
            subject: row.get("subject")?,
        },
        authorized_party: row.get("authorized_party")?,
        names_session: row.get("names_session")?,
        started_at: wall(row, "started_at")?,
        opened_at: wall(row, "opened_at")?,
        deadline: wall(row, "deadline")?,
        token_expires_at: wall(row, "token_expires_at")?,
        signing_key: row
            .get::<_, Option<_>>("signing_key")?
            .map(KeyThumbprint::from_bytes),
        certificates: certificates(row.get("certificate")?)?,
        policies: serde_json::from_str(&policies).map_err(unreadable)?,
        last_activity: wall(row, "last_activity")?,
        hours_end_at: wall_or_none(row, "hours_end_at")?,
        first_address: first_address.transpose().map_err(unreadable)?,
        warned_for: wall_or_none(row, "warned_for")?,
    })
}

/// One after the other, in a column that once had one at most.
fn certificate_ids(certificates: &[CertificateId]) -> Option<Vec<u8>> {
    let bytes = certificates.iter().flat_map(CertificateId::as_bytes);
    (!certificates.is_empty()).then(|| bytes.copied().collect())
}

fn certificates(ids: Option<Vec<u8>>) -> rusqlite::Result<Vec<CertificateId>> {
    let ids = ids.unwrap_or_default();
    let (ids, rest) = ids.as_chunks();
    if !rest.is_empty() {
        return Err(unreadable("a certificate's id is cut short"));
    }
    Ok(ids.iter().copied().map(CertificateId::from_bytes).collect())
}

fn ended_key(row: &Row<'_>) -> rusqlite::Result<EndedKey> {
    let reason: String = row.get("reason")?;
    let reason: Result<_, value::Error> = EndReason::deserialize(reason.into_deserializer());
    Ok(EndedKey {
        key: key(row)?,
        reason: reason.map_err(unreadable)?,
        ended_at: wall(row, "ended_at")?,
        until: wall(row, "until")?,
    })
}

fn key(row: &Row<'_>) -> rusqlite::Result<SessionKey> {
    row.get("key").map(SessionKey::from_bytes)
}

fn wall(row: &Row<'_>, column: &str) -> rusqlite::Result<WallInstant> {
    row.get(column).map(WallInstant::from_unix_nanos)
}

fn wall_or_none(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<WallInstant>> {
    let nanos: Option<i64> = row.get(column)?;
    Ok(nanos.map(WallInstant::from_unix_nanos))
}

/// Ids use all 64 bits and SQLite's integers are signed: the bits are what is kept.
const fn row_id(id: SessionId) -> i64 {
    id.as_u64().cast_signed()
}

fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
}
