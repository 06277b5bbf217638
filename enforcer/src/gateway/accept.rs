//! Accepting connections.

use std::{io, sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::{net::TcpListener, time::sleep};
use tracing::{debug, info, warn};

use crate::config::{RequestIdentity, TokenCookie};
use crate::gateway::{Gateway, Service, Work, connection, stages::Accepted, tls};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A listener that is served.
pub(crate) struct Served {
    pub(crate) socket: TcpListener,
    pub(crate) front: Front,
}

/// What a listener's connections have in common.
#[derive(Clone)]
pub(crate) struct Front {
    /// Name of the listener.
    pub(crate) name: Arc<str>,
    pub(crate) acceptor: tls::Acceptor,
    pub(crate) service: Service,
    /// How requests say whose they are.
    pub(crate) identity: RequestIdentity,
    /// The cookie that tokens may come in.
    pub(crate) cookie: Option<Arc<TokenCookie>>,
    /// Networks of the proxies that announce their clients.
    pub(crate) proxies: Arc<[IpNet]>,
}

/// Accepts for as long as the orders say so. While they don't, connections wait in the backlog.
pub(crate) async fn accept(gateway: Arc<Gateway>, served: Served, work: Work) {
    let mut orders = gateway.link.orders();
    let mut pause = Pause::default();
    loop {
        let now = *orders.borrow_and_update();
        if now.drain {
            return;
        }
        tokio::select! {
            accepted = served.socket.accept(), if now.accept => match accepted {
                Ok((stream, peer)) => {
                    if pause.end() {
                        info!(listener = %served.front.name, "accepting connections again");
                    }
                    match Accepted::new(stream, peer) {
                        Ok(accepted) => drop(tokio::spawn(connection::serve(
                            Arc::clone(&gateway),
                            served.front.clone(),
                            accepted,
                            work.clone(),
                        ))),
                        // It is gone already.
                        Err(error) => debug!(%peer, %error, "cannot take a connection"),
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if pause.is_over() {
                        warn!(listener = %served.front.name, %error, "cannot accept connections");
                    }
                    sleep(pause.lengthen()).await;
                }
            },
            changed = orders.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Errors of the connection that would have been accepted (accept(2)), not of the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// How long to leave a listener alone that cannot accept: descriptors or memory are used up.
#[derive(Debug, Default)]
struct Pause(Option<Duration>);

impl Pause {
    fn is_over(&self) -> bool {
        self.0.is_none()
    }

    fn lengthen(&mut self) -> Duration {
        let next = match self.0 {
            None => FIRST_PAUSE,
            Some(last) => (last * 2).min(LONGEST_PAUSE),
        };
        *self.0.insert(next)
    }

    /// True if there was one.
    fn end(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew() {
        let mut pause = Pause::default();
        assert!(pause.is_over());
        let pauses: Vec<_> = (0..10).map(|_| pause.lengthen().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(pause.end() && !pause.end());
        assert_eq!(pause.lengthen(), FIRST_PAUSE);
    }
}
