//! The listening sockets. The warden makes them, so that what is accepted on them belongs to its
//! cgroup, and keeps a copy: no connection attempt is refused while a gateway is replaced.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{channel::METRICS_LISTENER, config::Config};

const BACKLOG: i32 = 4096;

/// The sockets by the names of their listeners.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<String, OwnedFd>);

/// A listening socket can't be made.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}")]
pub struct ListenError {
    name: String,
    address: SocketAddr,
    source: io::Error,
}

impl Listeners {
    /// Takes over sockets of an earlier gateway that listen where the configuration says, and
    /// opens the others.
    pub fn provide(config: &Config, inherited: Vec<OwnedFd>) -> Result<Self, ListenError> {
        let listeners = config.listeners.iter();
        let configured = listeners
            .map(|(name, listener)| (name.as_str(), listener.address))
            .chain(
                config
                    .monitoring
                    .metrics_address
                    .map(|address| (METRICS_LISTENER, address)),
            );
        let mut inherited: Vec<_> = inherited
            .into_iter()
            .filter_map(|fd| Some((local_address(&fd)?, fd)))
            .collect();
        let mut sockets = BTreeMap::new();
        for (name, address) in configured {
            let kept = inherited.iter().position(|(other, _)| *other == address);
            let socket = match kept {
                Some(place) => inherited.swap_remove(place).1,
                None => open(address).map_err(|source| ListenError {
                    name: name.to_owned(),
                    address,
                    source,
                })?,
            };
            sockets.insert(name.to_owned(), socket);
        }
        Ok(Self(sockets))
    }

    /// Names and copies of the sockets, for a gateway.
    pub fn duplicate(&self) -> io::Result<(Vec<String>, Vec<OwnedFd>)> {
        let names = self.0.keys().cloned().collect();
        let copies = self
            .0
            .values()
            .map(|socket| socket.try_clone())
            .collect::<Result<_, _>>()?;
        Ok((names, copies))
    }
}

/// A listener that only this host reaches, and where it is.
pub(super) fn loopback() -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = open(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = local_address(&socket).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

fn local_address(socket: &impl AsFd) -> Option<SocketAddr> {
    net::getsockname(socket).ok()?.try_into().ok()
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    // Plain TCP by number: an MPTCP socket's packets run on sockets that no binding reaches.
    let socket = net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(net::ipproto::TCP),
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 clients too, as v4-mapped addresses.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
