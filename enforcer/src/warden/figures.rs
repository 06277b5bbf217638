//! The daemon's figures, for who asks: a gateway that is being scraped, the admin API.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
};

use enforcer_abi::{self as abi, ABI_VERSION, map_name};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    admin::Reply,
    answers::Whereabouts,
    core::Core,
    gateways::{GatewayId, Outgoing},
};
use crate::{
    channel::{Request, ToGateway},
    kernel::{attach, maps::Endpoints},
    metrics::{self, MapFill, PolicyLoad, Snapshot, Tally},
};

/// All figures of an instant.
pub struct Figures {
    tally: Tally,
    snapshot: Snapshot,
}

impl Figures {
    /// As text. With thousands of routes that takes a while: nothing for the warden's loop.
    fn text(&self) -> String {
        metrics::text(&self.tally, &self.snapshot)
    }
}

impl Core {
    /// Answers who reads the figures on the admin socket.
    pub(super) fn figures_wanted(&self, reply: Reply<String>, place: &Whereabouts) {
        let figures = self.figures(place);
        // Who asked may have left.
        tokio::task::spawn_blocking(move || drop(reply.send(figures.text())));
    }

    /// A gateway is being scraped. What it reads is a file: there is no bound to its length.
    pub fn on_scrape(&self, from: GatewayId, request: Request, place: &Whereabouts) {
        let Some(outbox) = self.gateways.outbox(from) else {
            return;
        };
        let figures = self.figures(place);
        tokio::task::spawn_blocking(move || match memfd(&figures.text()) {
            Ok(file) => {
                let answer = Outgoing {
                    message: ToGateway::Figures { request },
                    fds: vec![file],
                };
                // One that is behind is no better off with figures.
                drop(outbox.try_send(answer));
            }
            Err(error) => tracing::error!(%error, "no figures can be handed over"),
        });
    }

    fn figures(&self, place: &Whereabouts) -> Figures {
        Figures {
            tally: self.audit.tally(),
            snapshot: self.snapshot(place),
        }
    }

    /// Whether a connection was made to read the figures.
    pub(super) fn is_scrape(&self, connection: &abi::Connection) -> bool {
        let local = Endpoints::of(connection).canonical().local;
        self.metrics_address
            .is_some_and(|address| is_at(local, address))
    }

    fn snapshot(&self, place: &Whereabouts) -> Snapshot {
        let programs = attach::inspect(&place.bpf_dir, &place.cgroup).programs;
        let maps = [
            map_name::SESSIONS,
            map_name::BINDINGS,
            map_name::CONNECTIONS,
            map_name::ACTIVITY,
        ];
        let mut gateways = BTreeMap::new();
        for (_, state, _) in self.gateways.iter() {
            *gateways.entry(state.as_str()).or_default() += 1;
        }
        Snapshot {
            abi_version: ABI_VERSION,
            started_at_seconds: place.started_at_wall.as_unix_nanos() as f64 / 1e9,
            sessions: self.book.iter().count(),
            connections: self.book.iter().map(|live| live.legs.len()).sum(),
            policies: self.policy_loads(),
            maps: maps
                .into_iter()
                .filter_map(|name| {
                    let fill = self.fill(name)?;
                    Some(MapFill {
                        name: name.to_owned(),
                        entries: fill.entries,
                        capacity: fill.capacity,
                    })
                })
                .collect(),
            programs: programs
                .into_iter()
                .map(|(name, state)| (name.to_owned(), state.is_ok()))
                .collect(),
            kernel: self.maps.stats(),
            gateways,
            stuck_sockets: self.stuck.len(),
            audit: self.audit.health(),
            store: self.store.health(),
            canaries: self.canary.runs(),
            canary: self.canary.last_result(),
            exporters: self.exports.health(),
            webhooks: self.alerts.states(),
        }
    }

    fn policy_loads(&self) -> BTreeMap<String, PolicyLoad> {
        let configured = self.policies.keys();
        let mut loads: BTreeMap<_, _> = configured
            .map(|name| (name.clone(), PolicyLoad::default()))
            .collect();
        for live in self.book.iter() {
            for name in &live.session.policies {
                if let Some(load) = loads.get_mut(name) {
                    load.sessions += 1;
                    load.connections += live.legs.len();
                }
            }
        }
        loads
    }
}

/// Whether a connection's local end is one of a listener at `address`.
fn is_at(local: SocketAddr, address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    local.port() == address.port() && (ip.is_unspecified() || local.ip() == ip)
}

fn memfd(text: &str) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("enforcer-figures", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_at_every_address_of_its_port() {
        let at =
            |local: &str, address: &str| is_at(local.parse().unwrap(), address.parse().unwrap());
        assert!(at("127.0.0.1:9464", "127.0.0.1:9464"));
        assert!(at("192.0.2.1:9464", "0.0.0.0:9464"));
        assert!(at("192.0.2.1:9464", "[::]:9464"));
        assert!(!at("192.0.2.1:9464", "127.0.0.1:9464"));
        assert!(!at("127.0.0.1:8443", "0.0.0.0:9464"));
    }
}
