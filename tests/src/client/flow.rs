//! A stream of bytes that flows by itself until something ends it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::interval,
};

use super::{Client, End, Ending, Tls};
use crate::{namespace::Task, wait};

const PAUSE: Duration = Duration::from_millis(10);

/// A stream on which the client says a line every 10 ms, and reads whatever comes.
#[derive(Debug)]
pub struct Flow {
    local: SocketAddr,
    shared: Arc<Shared>,
    task: Task<Ending>,
}

#[derive(Debug, Default)]
struct Shared {
    silent: AtomicBool,
    received: AtomicU64,
}

impl Flow {
    /// Starts with this line, and waits until something comes back.
    pub(super) fn start(client: &Client, command: &str) -> Result<Self> {
        let mut stream = client.run(client.dial())??;
        let local = stream
            .get_ref()
            .0
            .local_addr()
            .context("the client's end")?;
        let shared = Arc::new(Shared::default());
        let (flow, command) = (Arc::clone(&shared), format!("{command}\n"));
        let task = client.spawn(async move {
            if let Err(error) = stream.write_all(command.as_bytes()).await {
                return Ending::of(&error);
            }
            run(&mut stream, &flow).await
        });
        let flow = Self {
            local,
            shared,
            task,
        };
        flow.wait_for_data()?;
        Ok(flow)
    }

    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// From now on the client says nothing.
    pub fn be_silent(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
    }

    /// Waits until more has come.
    pub fn wait_for_data(&self) -> Result<()> {
        let received = || self.shared.received.load(Ordering::Relaxed);
        let before = received();
        let flowed = wait::until("data flowed", || {
            let over = !self.task.is_running();
            (over || received() > before + 16).then_some(!over)
        })?;
        ensure!(flowed, "the stream ended");
        Ok(())
    }

    /// Waits for its end.
    pub fn end(self) -> Result<Ending> {
        self.task.join()
    }
}

async fn run(stream: &mut Tls, shared: &Shared) -> Ending {
    let mut turns = interval(PAUSE);
    let mut incoming = [0; 4096];
    loop {
        tokio::select! {
            read = stream.read(&mut incoming) => match read {
                Ok(0) => return Ending::now(End::Complete),
                Ok(length) => {
                    shared.received.fetch_add(length as u64, Ordering::Relaxed);
                }
                Err(error) => return Ending::of(&error),
            },
            _ = turns.tick() => {
                if shared.silent.load(Ordering::Relaxed) {
                    continue;
                }
                let written = stream.write_all(b"a line that may come back\n").await;
                if let Err(error) = written {
                    return Ending::of(&error);
                }
            }
        }
    }
}
