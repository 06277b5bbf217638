//! HTTP/2 towards upstreams: one connection for all requests of an owner, made when it is needed,
//! and made anew when the upstream has closed it.
//!
//! On a shared connection the gateway keeps the cut's promise for each request: nothing of a
//! request leaves once its session is halted, except for what the upstream's flow control has
//! held back by then. With `upstream_pool = "session"` the kernel keeps it to the byte.

mod connection;
mod keep_alive;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Uri, Version, header, uri::Scheme};
use tokio::time::timeout;

pub(super) use self::connection::{Connection, Failure};
use super::pool::Owner;
use crate::gateway::rejection::Rejection;

/// The connections to one upstream.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Mutex<HashMap<Option<Owner>, Slot>>,
}

/// Held while a connection is made: who comes meanwhile waits for it.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

impl Connections {
    /// The owner's connection; `connect` makes one if there is none.
    pub(super) async fn get(
        &self,
        owner: Option<Owner>,
        patience: Duration,
        connect: impl AsyncFnOnce() -> Result<Connection, Rejection>,
    ) -> Result<Connection, Rejection> {
        let slot = Arc::clone(self.lock().entry(owner).or_default());
        let mut open = timeout(patience, slot.lock())
            .await
            .map_err(|_| Rejection::UpstreamConnectTimeout)?;
        if let Some(connection) = open.as_ref().filter(|open| !open.is_closed()) {
            return Ok(connection.clone());
        }
        Ok(open.insert(connect().await?).clone())
    }

    /// Forgets connections that are closed.
    pub(super) fn sweep(&self) {
        self.lock().retain(|_, slot| match slot.try_lock() {
            Ok(open) => open.as_ref().is_some_and(|open| !open.is_closed()),
            // It is being made.
            Err(_) => true,
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Owner>, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says in HTTP/2 what a request says in HTTP/1.1: the host is part of the target, and there is
/// nothing to say about the connection.
pub(super) fn translate<B>(request: &mut Request<B>, tls: bool) -> Result<(), Rejection> {
    let host = request.headers_mut().remove(header::HOST);
    let host = host.ok_or(Rejection::Host)?;
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    target.authority = Some(host.as_bytes().try_into().map_err(|_| Rejection::Host)?);
    *request.uri_mut() = Uri::from_parts(target)
        .map_err(|_| Rejection::Internal("the target has no absolute form"))?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::CONNECTION);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_becomes_part_of_the_target() {
        let mut request = Request::get("/x?y=1")
            .header(header::HOST, "a.example:1")
            .header(header::CONNECTION, "te")
            .header(header::TE, "trailers")
            .body(())
            .unwrap();
        translate(&mut request, true).unwrap();
        assert_eq!(request.uri(), "https://a.example:1/x?y=1");
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()[header::TE], "trailers");
    }
}
