//! Idle connections to one upstream.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Connection;
use crate::{clock::BootInstant, session::SessionId};

const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most idle connections of one owner.
const MAX_IDLE: usize = 64;

/// What a connection that is not shared belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) session: SessionId,
    /// The client that it was announced for.
    pub(super) announced: Option<SocketAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<Option<Owner>, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: BootInstant,
}

impl Idle {
    fn is_usable(&self, now: BootInstant) -> bool {
        self.connection.sender.is_ready()
            && now.saturating_duration_since(self.since) < IDLE_TIMEOUT
    }
}

impl Pool {
    /// The connection that was used last.
    pub(super) fn take(&self, owner: Option<Owner>, now: BootInstant) -> Option<Connection> {
        let mut pool = self.lock();
        let idle = pool.get_mut(&owner)?;
        loop {
            let last = idle.pop()?;
            if last.is_usable(now) {
                return Some(last.connection);
            }
        }
    }

    pub(super) fn put(&self, owner: Option<Owner>, connection: Connection, now: BootInstant) {
        let mut pool = self.lock();
        let idle = pool.entry(owner).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                since: now,
            });
        }
    }

    pub(super) fn sweep(&self, now: BootInstant) {
        self.lock().retain(|_, idle| {
            idle.retain(|idle| idle.is_usable(now));
            !idle.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Owner>, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
