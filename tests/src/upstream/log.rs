//! What an upstream saw.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use enforcer::clock::{self, BootInstant};
use http::HeaderMap;

use crate::wait;

/// Everything that an upstream saw.
#[derive(Debug, Default)]
pub struct Log {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    connections: Vec<Connection>,
    requests: Vec<Request>,
    uploads: Vec<Upload>,
}

/// A TCP connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its other end.
    pub peer: SocketAddr,
    /// What came in, as it was read.
    pub arrivals: Vec<Arrival>,
    /// How the peer ended it, and when; an error is a reset.
    pub ended: Option<(BootInstant, Result<(), std::io::ErrorKind>)>,
    /// It is gone, whoever ended it.
    pub closed: bool,
}

/// Bytes that came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When they were read.
    pub at: BootInstant,
    /// How many.
    pub bytes: usize,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of its connection, in the order of their opening.
    pub connection: usize,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
}

/// A request body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// How much came.
    pub bytes: usize,
    /// `true` for a whole body, `false` for one that broke off, nothing while it is coming.
    pub complete: Option<bool>,
}

impl Connection {
    /// Bytes that came in after `instant`.
    pub fn bytes_after(&self, instant: BootInstant) -> usize {
        let late = self.arrivals.iter().filter(|arrival| arrival.at > instant);
        late.map(|arrival| arrival.bytes).sum()
    }
}

impl Log {
    /// All connections, once `matches` holds for them.
    pub fn wait_for_connections(
        &self,
        what: &str,
        matches: impl Fn(&[Connection]) -> bool,
    ) -> anyhow::Result<Vec<Connection>> {
        wait::until(what, || {
            let connections = self.connections();
            matches(&connections).then_some(connections)
        })
    }

    /// All connections so far.
    pub fn connections(&self) -> Vec<Connection> {
        self.entries().connections.clone()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.entries().requests.clone()
    }

    /// All uploads so far.
    pub fn uploads(&self) -> Vec<Upload> {
        self.entries().uploads.clone()
    }

    pub(super) fn opened(&self, peer: SocketAddr) -> usize {
        let mut entries = self.entries();
        entries.connections.push(Connection {
            peer,
            arrivals: Vec::new(),
            ended: None,
            closed: false,
        });
        entries.connections.len() - 1
    }

    pub(super) fn arrived(&self, connection: usize, bytes: usize) {
        let arrival = Arrival {
            at: clock::boot_now(),
            bytes,
        };
        self.entries().connections[connection]
            .arrivals
            .push(arrival);
    }

    pub(super) fn ended(&self, connection: usize, how: Result<(), std::io::ErrorKind>) {
        self.entries().connections[connection]
            .ended
            .get_or_insert_with(|| (clock::boot_now(), how));
    }

    pub(super) fn closed(&self, connection: usize) {
        self.entries().connections[connection].closed = true;
    }

    pub(super) fn requested(&self, request: Request) {
        self.entries().requests.push(request);
    }

    pub(super) fn upload_began(&self) -> usize {
        let mut entries = self.entries();
        entries.uploads.push(Upload::default());
        entries.uploads.len() - 1
    }

    pub(super) fn uploaded(&self, upload: usize, bytes: usize) {
        self.entries().uploads[upload].bytes += bytes;
    }

    pub(super) fn upload_ended(&self, upload: usize, complete: bool) {
        self.entries().uploads[upload].complete = Some(complete);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
