//! The gateway processes as the core sees them: where to send what.

use std::{collections::BTreeMap, fmt, os::fd::OwnedFd};

use tokio::sync::mpsc;

use super::admin::GatewayState;
use crate::channel::ToGateway;

/// Messages that may wait for a gateway that does not read: far more than a healthy one is ever
/// behind.
const OUTBOX: usize = 65_536;

/// Which gateway: a number that grows with every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u64);

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway-{}", self.0)
    }
}

/// A message on its way, with the descriptors that go along.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: ToGateway,
    /// Descriptors.
    pub fds: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Gateway {
    outbox: mpsc::Sender<Outgoing>,
    state: GatewayState,
    pid: u32,
}

/// All gateways with a channel.
#[derive(Debug, Default)]
pub struct Gateways {
    gateways: BTreeMap<GatewayId, Gateway>,
    wedged: Vec<GatewayId>,
}

impl Gateways {
    /// Adds a gateway; what is sent to it comes out of the receiver.
    pub fn add(
        &mut self,
        id: GatewayId,
        state: GatewayState,
        pid: u32,
    ) -> mpsc::Receiver<Outgoing> {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        self.gateways.insert(id, Gateway { outbox, state, pid });
        inbox
    }

    /// Forgets a gateway.
    pub fn remove(&mut self, id: GatewayId) {
        self.gateways.remove(&id);
    }

    /// Notes what a gateway is doing now.
    pub fn set_state(&mut self, id: GatewayId, state: GatewayState) {
        if let Some(gateway) = self.gateways.get_mut(&id) {
            gateway.state = state;
        }
    }

    /// All of them: id, state, process.
    pub fn iter(&self) -> impl Iterator<Item = (GatewayId, GatewayState, u32)> {
        self.gateways
            .iter()
            .map(|(id, gateway)| (*id, gateway.state, gateway.pid))
    }

    /// Where messages to one go, for who has them ready later.
    pub fn outbox(&self, id: GatewayId) -> Option<mpsc::Sender<Outgoing>> {
        Some(self.gateways.get(&id)?.outbox.clone())
    }

    /// Sends to one.
    pub fn send(&mut self, id: GatewayId, message: ToGateway) {
        self.send_with_fds(id, message, Vec::new());
    }

    /// Sends to one, with descriptors.
    pub fn send_with_fds(&mut self, id: GatewayId, message: ToGateway, fds: Vec<OwnedFd>) {
        let Some(gateway) = self.gateways.get(&id) else {
            return;
        };
        if gateway.outbox.try_send(Outgoing { message, fds }).is_err() && !self.wedged.contains(&id)
        {
            self.wedged.push(id);
        }
    }

    /// Sends to all.
    pub fn broadcast(&mut self, message: ToGateway) {
        for id in self.gateways.keys().copied().collect::<Vec<_>>() {
            self.send(id, message.clone());
        }
    }

    /// Gateways that have not read for so long that messages were lost: they can't be trusted to
    /// know what they serve, and are to be killed.
    pub fn take_wedged(&mut self) -> Vec<GatewayId> {
        std::mem::take(&mut self.wedged)
    }
}
