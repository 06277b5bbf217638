//! Tunnels, one after another or many at once, on as few connections to the gateway as will do.

use std::sync::Arc;

use http::Method;
use tokio::sync::Mutex;

use super::{
    address::Address,
    failure::Failure,
    gateway::{Gateway, Line, Place, Tunnel},
    keeper,
    say::Voice,
    token::TokenSource,
};

/// Answered to everybody.
const LIVE: &str = "/.well-known/enforcer/health/live";

/// The client's half of tunnels to one target.
pub(super) struct Client {
    pub(super) gateway: Gateway,
    pub(super) tokens: TokenSource,
    pub(super) voice: Voice,
    target: Address,
    /// The connections that take new tunnels.
    lines: Mutex<Vec<Arc<Line>>>,
}

impl Client {
    pub(super) fn new(
        gateway: Gateway,
        tokens: TokenSource,
        target: Address,
        voice: Voice,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            tokens,
            voice,
            target,
            lines: Mutex::default(),
        })
    }

    /// Finds out whether there is a token, the gateway is who it should be, and it takes the
    /// client's certificate. The connection is not kept: without a session it would not be for long.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let token = self.tokens.read().await?;
        let line = self.gateway.connect(token.clone()).await?;
        line.ask(Method::GET, LIVE, &token).await.map(drop)
    }

    /// A new tunnel. If the connection, or the token that it was made with, will not do any more,
    /// there is a second try with new ones.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Tunnel, Failure> {
        let place = self.place().await?;
        let line = Arc::clone(&place.line);
        let tunnel = match place.tunnel(&self.target).await {
            Err(failure) if failure.is_the_connections() => {
                self.leave(&line).await;
                let place = self.place().await?;
                let line = Arc::clone(&place.line);
                let tunnel = place.tunnel(&self.target).await;
                if tunnel.is_err() {
                    self.leave(&line).await;
                }
                tunnel?
            }
            tunnel => tunnel?,
        };
        if tunnel.line.take_care() {
            tokio::spawn(keeper::keep(Arc::clone(self), Arc::clone(&tunnel.line)));
        }
        Ok(tunnel)
    }

    /// Room for a new tunnel, on a new connection if need be.
    async fn place(&self) -> Result<Place, Failure> {
        let mut lines = self.lines.lock().await;
        lines.retain(|line| !line.is_closed());
        loop {
            if let Some(place) = lines.iter().find_map(Line::place) {
                return Ok(place);
            }
            let token = self.tokens.read().await?;
            lines.push(self.gateway.connect(token).await?);
        }
    }

    /// New tunnels take another connection. Those on this one stay.
    pub(super) async fn leave(&self, line: &Arc<Line>) {
        let mut lines = self.lines.lock().await;
        lines.retain(|it| !Arc::ptr_eq(it, line));
    }
}
