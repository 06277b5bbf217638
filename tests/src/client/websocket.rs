//! WebSockets, message by message.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, header};
use tokio::sync::Mutex;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, handshake::client::generate_key},
};

use super::{Client, End, Ending, Pattern, Talk, Tls};
use crate::certificates::SERVER_NAME;

pub(super) type Stream = WebSocketStream<Tls>;

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    pub(super) client: Client,
    pub(super) local: SocketAddr,
    pub(super) stream: Arc<Mutex<Stream>>,
}

impl Socket {
    pub(super) fn open(client: &Client, path: &str, token: &str) -> Result<Self> {
        let request = Request::builder()
            .uri(format!("wss://{SERVER_NAME}{path}"))
            .header(header::HOST, SERVER_NAME)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .body(())
            .context("make a request")?;
        let dial = client.dial();
        let (stream, local) = client.run(async move {
            let stream = dial.await?;
            let local = stream
                .get_ref()
                .0
                .local_addr()
                .context("the client's end")?;
            let (stream, _) = client_async(request, stream).await.context("upgrade")?;
            anyhow::Ok((stream, local))
        })??;
        Ok(Self {
            client: client.clone(),
            local,
            stream: Arc::new(Mutex::new(stream)),
        })
    }

    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a text.
    pub fn send(&self, text: &str) -> Result<()> {
        let (stream, message) = (Arc::clone(&self.stream), Message::text(text));
        let sent = self
            .client
            .run(async move { stream.lock().await.send(message).await })?;
        sent.context("send a message")
    }

    /// The next text.
    pub fn receive(&self) -> Result<String> {
        let stream = Arc::clone(&self.stream);
        self.client.run(async move {
            let mut stream = stream.lock().await;
            loop {
                match stream.next().await.context("the socket is closed")?? {
                    Message::Text(text) => return Ok(text.as_str().to_owned()),
                    Message::Close(frame) => anyhow::bail!("the socket is closing: {frame:?}"),
                    _ => {}
                }
            }
        })?
    }

    /// Sends a text and checks that it comes back.
    pub fn echo(&self, text: &str) -> Result<()> {
        self.send(text)?;
        let echo = self.receive()?;
        ensure!(echo == text, "sent {text:?}, {echo:?} came back");
        Ok(())
    }

    /// Waits until it ends; what comes before that is dropped.
    pub fn end(&self) -> Result<Ending> {
        let stream = Arc::clone(&self.stream);
        self.client.run(async move {
            let mut stream = stream.lock().await;
            loop {
                if let Some(ending) = ending(stream.next().await) {
                    return ending;
                }
            }
        })
    }

    /// Goes on by itself from now on.
    pub fn talk(self, pattern: Pattern) -> Talk {
        Talk::start(self, pattern)
    }
}

/// The end that an event stands for, if it is one.
pub(super) fn ending(event: Option<Result<Message, Error>>) -> Option<Ending> {
    match event {
        Some(Ok(Message::Close(frame))) => Some(Ending::now(match frame {
            Some(frame) => End::Close(frame.code.into(), frame.reason.as_str().to_owned()),
            None => End::Close(1005, String::new()),
        })),
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(Ending::of(&error)),
        None => Some(Ending::now(End::Complete)),
    }
}
