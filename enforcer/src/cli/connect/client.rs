//! Tunnels, one after another or many at once, on as few connections to the gateway as will do.

use std::sync::Arc;

use http::Method;
use tokio::sync::Mutex;

use super::{
    address::Address,
    failure::Failure,
    gateway::{Gateway, Line, Tunnel},
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
    /// The connection that takes new tunnels.
    line: Mutex<Option<Arc<Line>>>,
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
            line: Mutex::default(),
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
        let line = self.line().await?;
        let (line, tunnel) = match line.tunnel(&self.target).await {
            Err(failure) if failure.is_the_connections() => {
                self.leave(&line).await;
                let line = self.line().await?;
                let tunnel = line.tunnel(&self.target).await;
                if tunnel.is_err() {
                    self.leave(&line).await;
                }
                (line, tunnel?)
            }
            tunnel => (line, tunnel?),
        };
        if line.take_care() {
            tokio::spawn(keeper::keep(Arc::clone(self), line));
        }
        Ok(tunnel)
    }

    /// The connection for new tunnels, made anew if need be.
    async fn line(&self) -> Result<Arc<Line>, Failure> {
        let mut current = self.line.lock().await;
        if let Some(line) = current.as_ref().filter(|line| !line.is_closed()) {
            return Ok(Arc::clone(line));
        }
        let token = self.tokens.read().await?;
        let line = self.gateway.connect(token).await?;
        *current = Some(Arc::clone(&line));
        Ok(line)
    }

    /// New tunnels take another connection. Those on this one stay.
    pub(super) async fn leave(&self, line: &Arc<Line>) {
        let mut current = self.line.lock().await;
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, line)) {
            *current = None;
        }
    }
}
