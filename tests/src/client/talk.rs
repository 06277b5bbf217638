//! A WebSocket that talks by itself until something ends it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use enforcer::clock::{self, BootInstant};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::interval;
use tokio_tungstenite::tungstenite::Message;

use super::{
    Ending,
    websocket::{Socket, Stream, ending},
};
use crate::namespace::Task;

/// What it says.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// How often.
    pub every: Duration,
    /// What, each time.
    pub message: String,
}

impl Default for Pattern {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(10),
            message: "a message that comes back".to_owned(),
        }
    }
}

/// A WebSocket that talks by itself.
#[derive(Debug)]
pub struct Talk {
    local: SocketAddr,
    shared: Arc<Shared>,
    task: Task<Ending>,
}

#[derive(Debug, Default)]
struct Shared {
    only_pings: AtomicBool,
    received: AtomicU64,
    last_sent_at_ns: AtomicU64,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct TalkEnd {
    /// How and when it ended.
    pub ending: Ending,
    /// Data messages that came.
    pub received: u64,
    /// When the last data message was sent.
    pub last_sent_at: BootInstant,
}

impl Talk {
    pub(super) fn start(socket: Socket, pattern: Pattern) -> Self {
        let shared = Arc::new(Shared::default());
        let Socket {
            client,
            local,
            stream,
        } = socket;
        let talk = Arc::clone(&shared);
        let task = client.spawn(async move {
            let mut stream = stream.lock().await;
            run(&mut stream, &pattern, &talk).await
        });
        Self {
            local,
            shared,
            task,
        }
    }

    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// From now on it sends pings instead of messages.
    pub fn only_pings(&self) {
        self.shared.only_pings.store(true, Ordering::Relaxed);
    }

    /// Data messages that came so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Whether nothing has ended it yet.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }

    /// Waits for its end.
    pub fn end(self) -> Result<TalkEnd> {
        let ending = self.task.join()?;
        let last_sent_at = self.shared.last_sent_at_ns.load(Ordering::Relaxed);
        Ok(TalkEnd {
            ending,
            received: self.shared.received.load(Ordering::Relaxed),
            last_sent_at: BootInstant::from_nanos(last_sent_at),
        })
    }
}

async fn run(stream: &mut Stream, pattern: &Pattern, shared: &Shared) -> Ending {
    let mut turns = interval(pattern.every);
    loop {
        tokio::select! {
            event = stream.next() => {
                if matches!(event, Some(Ok(Message::Text(_) | Message::Binary(_)))) {
                    shared.received.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(ending) = ending(event) {
                    return ending;
                }
            }
            _ = turns.tick() => {
                let message = if shared.only_pings.load(Ordering::Relaxed) {
                    Message::Ping(pattern.message.clone().into())
                } else {
                    let now = clock::boot_now().as_nanos();
                    shared.last_sent_at_ns.store(now, Ordering::Relaxed);
                    Message::text(pattern.message.clone())
                };
                if let Err(error) = stream.send(message).await {
                    return Ending::of(&error);
                }
            }
        }
    }
}
