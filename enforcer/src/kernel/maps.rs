//! Typed access to the maps.

use std::{
    borrow::Borrow,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray},
};
use enforcer_abi::{Activity, Binding, Connection, Control, Session, Stats, map_name};

/// The pinned maps. Writing is the warden's alone.
pub struct Maps {
    sessions: HashMap<MapData, u64, Session>,
    bindings: HashMap<MapData, u64, Binding>,
    connections: HashMap<MapData, u64, Connection>,
    activity: HashMap<MapData, u64, Activity>,
    stats: PerCpuArray<MapData, Stats>,
    control: Array<MapData, Control>,
    sessions_capacity: u64,
    connections_capacity: u64,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// Writing to a map failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no room for another entry.
    #[error("the map is full")]
    Full,
    /// There is an entry already.
    #[error("there is an entry already")]
    Exists,
    /// Anything else.
    #[error("the map cannot be written")]
    Map(#[source] MapError),
}

const BPF_NOEXIST: u64 = 1;

impl Maps {
    /// Opens the maps pinned in `bpf_dir`.
    pub fn open(bpf_dir: &Path) -> Result<Self, MapError> {
        let pinned =
            |name: &str| MapData::from_pin(bpf_dir.join(name)).and_then(Map::from_map_data);
        let capacity = |name: &str| {
            MapInfo::from_pin(bpf_dir.join(name)).map(|info| u64::from(info.max_entries()))
        };
        Ok(Self {
            sessions_capacity: capacity(map_name::SESSIONS)?,
            connections_capacity: capacity(map_name::CONNECTIONS)?,
            sessions: pinned(map_name::SESSIONS)?.try_into()?,
            bindings: pinned(map_name::BINDINGS)?.try_into()?,
            connections: pinned(map_name::CONNECTIONS)?.try_into()?,
            activity: pinned(map_name::ACTIVITY)?.try_into()?,
            stats: pinned(map_name::STATS)?.try_into()?,
            control: pinned(map_name::CONTROL)?.try_into()?,
        })
    }

    /// How many sessions fit.
    pub fn sessions_capacity(&self) -> u64 {
        self.sessions_capacity
    }

    /// How many connections fit.
    pub fn connections_capacity(&self) -> u64 {
        self.connections_capacity
    }

    /// All sessions.
    pub fn sessions(&self) -> Vec<(u64, Session)> {
        entries(&self.sessions)
    }

    /// All bindings.
    pub fn bindings(&self) -> Vec<(u64, Binding)> {
        entries(&self.bindings)
    }

    /// All connections.
    pub fn connections(&self) -> Vec<(u64, Connection)> {
        entries(&self.connections)
    }

    /// What the kernel has seen of each session.
    pub fn activities(&self) -> Vec<(u64, Activity)> {
        entries(&self.activity)
    }

    /// Counters, summed over CPUs.
    pub fn stats(&self) -> Stats {
        let per_cpu = self.stats.get(&0, 0);
        let mut total = Stats::default();
        for cpu in per_cpu.iter().flat_map(|values| values.iter()) {
            total.dropped_deadline += cpu.dropped_deadline;
            total.dropped_idle += cpu.dropped_idle;
            total.dropped_revoked += cpu.dropped_revoked;
            total.dropped_unknown_session += cpu.dropped_unknown_session;
            total.dropped_pre_authentication += cpu.dropped_pre_authentication;
            total.dropped_untracked += cpu.dropped_untracked;
            total.held_before_limit += cpu.held_before_limit;
            total.observed += cpu.observed;
            total.events_lost += cpu.events_lost;
            total.storage_failures += cpu.storage_failures;
            total.connections_full += cpu.connections_full;
            total.connections_opened += cpu.connections_opened;
            total.connections_closed += cpu.connections_closed;
        }
        total
    }

    /// The control block.
    pub fn control(&self) -> Control {
        self.control.get(&0, 0).unwrap_or_default()
    }

    /// Writes the control block.
    pub fn set_control(&mut self, control: Control) -> Result<(), WriteError> {
        self.control.set(0, control, 0).map_err(WriteError::Map)
    }

    /// The connection with this cookie.
    pub fn connection(&self, cookie: u64) -> Option<Connection> {
        self.connections.get(&cookie, 0).ok()
    }

    /// Forgets a connection whose end has been recorded.
    pub fn forget_connection(&mut self, cookie: u64) {
        let _ = self.connections.remove(&cookie);
    }

    /// The session with this id.
    pub fn session(&self, id: u64) -> Option<Session> {
        self.sessions.get(&id, 0).ok()
    }

    /// What the kernel has seen of a session.
    pub fn activity(&self, id: u64) -> Option<Activity> {
        self.activity.get(&id, 0).ok()
    }

    /// Adds a session, and its place for what the kernel sees of it.
    pub fn add_session(&mut self, id: u64, session: Session) -> Result<(), WriteError> {
        write(&mut self.activity, id, Activity::default(), BPF_NOEXIST)?;
        let added = write(&mut self.sessions, id, session, BPF_NOEXIST);
        if added.is_err() {
            let _ = self.activity.remove(&id);
        }
        added
    }

    /// Writes a session that was known before, whatever is left of it in the maps. What the kernel
    /// has seen of it stays.
    pub fn restore_session(&mut self, id: u64, session: Session) -> Result<(), WriteError> {
        match write(&mut self.activity, id, Activity::default(), BPF_NOEXIST) {
            Ok(()) | Err(WriteError::Exists) => self.set_session(id, session),
            Err(error) => Err(error),
        }
    }

    /// Replaces a session's limits.
    pub fn set_session(&mut self, id: u64, session: Session) -> Result<(), WriteError> {
        write(&mut self.sessions, id, session, 0)
    }

    /// Removes a session: sockets still latched to it are dropped from then on.
    pub fn remove_session(&mut self, id: u64) {
        let _ = self.sessions.remove(&id);
        let _ = self.activity.remove(&id);
    }

    /// Binds a socket that isn't bound yet.
    pub fn bind(&mut self, cookie: u64, binding: Binding) -> Result<(), WriteError> {
        write(&mut self.bindings, cookie, binding, BPF_NOEXIST)
    }

    /// Takes a binding back.
    pub fn unbind(&mut self, cookie: u64) {
        let _ = self.bindings.remove(&cookie);
    }

    /// Whether the socket is bound, and to what.
    pub fn binding(&self, cookie: u64) -> Option<Binding> {
        self.bindings.get(&cookie, 0).ok()
    }
}

fn entries<T: Borrow<MapData>, V: Pod>(map: &HashMap<T, u64, V>) -> Vec<(u64, V)> {
    map.iter().filter_map(Result::ok).collect()
}

fn write<V: Pod>(
    map: &mut HashMap<MapData, u64, V>,
    key: u64,
    value: V,
    flags: u64,
) -> Result<(), WriteError> {
    map.insert(key, value, flags).map_err(|error| match &error {
        MapError::SyscallError(syscall) => match syscall.io_error.raw_os_error() {
            Some(7 /* E2BIG */ | 12 /* ENOMEM */) => WriteError::Full,
            Some(17 /* EEXIST */) => WriteError::Exists,
            _ => WriteError::Map(error),
        },
        _ => WriteError::Map(error),
    })
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// This host's end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

impl Endpoints {
    /// Reads the ends from a map value; IPv4 addresses come out v4-mapped.
    pub fn of(connection: &Connection) -> Self {
        let end = |words: [u32; 4], port: u32| {
            let mut octets = [0_u8; 16];
            for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), port as u16)
        };
        Self {
            local: end(connection.local_address, connection.local_port),
            remote: end(connection.remote_address, connection.remote_port),
        }
    }

    /// The same with IPv4 addresses written as such.
    pub fn canonical(self) -> Self {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Self {
            local: canonical(self.local),
            remote: canonical(self.remote),
        }
    }
}
