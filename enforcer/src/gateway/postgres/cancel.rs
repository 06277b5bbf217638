//! CancelRequest: a connection that says nothing but a key.
//!
//! Clients get a key of the gateway's for each connection, in place of the upstream's: the process
//! is the upstream's, the secret is not. So a key leads to a query through here, or nowhere. Who
//! has it speaks for the connection that it was given to: the cancelling connection is bound to the
//! same session before anything is done, and so is the one that cancels at the upstream.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tracing::debug;

use super::packet::CancelKey;
use crate::{
    channel::Kinship,
    clock::boot_now,
    gateway::{
        Target,
        connection::ConnectionContext,
        http::route::RouteIndex,
        link::Link,
        rejection::Rejection,
        stages::{Authenticated, Bound},
    },
};

/// How long the upstream may take to cancel: it answers by closing.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest secret: of protocol 3.2, as long as PostgreSQL's.
const SECRET: usize = 32;
/// Of 3.0.
const SHORT_SECRET: usize = 4;

/// The keys of the connections that are open.
#[derive(Debug, Default)]
pub(crate) struct CancelKeys(Mutex<HashMap<CancelKey, Arc<Cancellable>>>);

/// A connection whose queries can be cancelled.
#[derive(Debug)]
pub(super) struct Cancellable {
    bound: Bound,
    route: RouteIndex,
    /// What the upstream knows it by.
    upstream: CancelKey,
}

/// A key, as long as its connection is open.
#[derive(Debug)]
pub(super) struct Registration<'a> {
    keys: &'a CancelKeys,
    key: CancelKey,
    cancellable: Arc<Cancellable>,
}

impl CancelKeys {
    /// Makes a key in place of the upstream's, for a client that speaks this version.
    pub(super) fn register(
        &self,
        bound: &Bound,
        route: RouteIndex,
        upstream: CancelKey,
        minor: u16,
    ) -> io::Result<Registration<'_>> {
        let length = if minor < 2 { SHORT_SECRET } else { SECRET };
        let process = upstream.process;
        let cancellable = Arc::new(Cancellable {
            bound: bound.clone(),
            route,
            upstream,
        });
        let mut keys = self.lock();
        let key = loop {
            let mut secret = vec![0; length];
            // Secrets of this length come at once and whole.
            getrandom(&mut secret, GetRandomFlags::empty())?;
            let key = CancelKey { process, secret };
            // Two upstreams may both have this process.
            if !keys.contains_key(&key) {
                break key;
            }
        };
        keys.insert(key.clone(), Arc::clone(&cancellable));
        Ok(Registration {
            keys: self,
            key,
            cancellable,
        })
    }

    /// The connection that was given this key through a listener with this route.
    fn find(&self, key: &CancelKey, route: RouteIndex) -> Option<Arc<Cancellable>> {
        let found = self.lock().get(key).cloned();
        found.filter(|found| found.route == route)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CancelKey, Arc<Cancellable>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration<'_> {
    /// The key for the client.
    pub(super) fn key(&self) -> &CancelKey {
        &self.key
    }

    pub(super) fn cancellable(&self) -> &Cancellable {
        &self.cancellable
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}

impl Cancellable {
    /// Cancels what runs, on a connection of the session's own.
    pub(super) async fn cancel(
        &self,
        link: &Link,
        target: &Target,
        bound: &Bound,
    ) -> Result<(), Rejection> {
        let cancelling = async {
            let (mut stream, _) = target.upstream.dial(link, bound).await?;
            let request = self.upstream.request();
            let sent = stream.write_all(&request).await;
            sent.map_err(Rejection::UpstreamUnreachable)?;
            let sent = stream.flush().await;
            sent.map_err(Rejection::UpstreamUnreachable)?;
            // It has been done when the upstream closes, however it does.
            while stream
                .read(&mut [0; 64])
                .await
                .is_ok_and(|length| length > 0)
            {}
            Ok(())
        };
        timeout(CANCEL_TIMEOUT, cancelling)
            .await
            .unwrap_or(Err(Rejection::UpstreamTimeout))
    }
}

/// Serves a connection that came with a key. It gets no answer, whatever comes of it; the caller
/// closes it.
pub(super) async fn serve(context: &ConnectionContext, route: RouteIndex, key: &CancelKey) {
    let gateway = &context.gateway;
    let Some(found) = gateway.cancel_keys.find(key, route) else {
        return context.report(&Rejection::UnknownCancelKey, None);
    };
    let principal = found.bound.principal().clone();
    let cancelling = async {
        let target = gateway.targets.get(route).ok_or(Rejection::NoRoute)?;
        let authenticated = Authenticated::by_cancel_key(&found.bound);
        let link = &gateway.link;
        let policies = &gateway.policies;
        let client = &context.client;
        let found_again = Bound::find(link, client, Some(policies), authenticated, Kinship::Own);
        let (bound, _) = found_again.await?;
        bound.session().activity().note(link, boot_now());
        tokio::select! {
            biased;
            proof = bound.session().ended() => {
                context.client.socket().reset(proof);
                Ok(())
            }
            result = found.cancel(link, target, &bound) => result,
        }
    };
    match cancelling.await {
        Ok(()) => debug!(client = %context.client.peer(), "cancelled a query"),
        Err(rejection) => context.report(&rejection, Some(principal)),
    }
}
