//! An upstream that speaks no HTTP.
//!
//! The first line that a client sends says what it does:
//!
//! | line | behaviour |
//! | --- | --- |
//! | `echo` | everything that follows comes back, until the client ends its side |
//! | `ticks` | a line every 10 ms, whatever the client does |
//! | `count` | takes everything to the client's end, answers with its length and closes |
//! | `reset` | breaks off |
//! | `bye` | answers `bye`, ends its side and takes everything to the client's end |

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    runtime::Runtime,
    time::interval,
};

use super::{Log, tap::Tap};
use crate::namespace::{Namespace, Task};

/// A server of bytes.
#[derive(Debug)]
pub struct StreamUpstream {
    address: SocketAddr,
    log: Arc<Log>,
    _runtime: Arc<Runtime>,
}

impl StreamUpstream {
    /// Serves on loopback in `namespace`.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let runtime = namespace.runtime(1)?;
        let listen = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0));
        let listener = Task::spawn(&runtime, listen).join()?;
        let listener = listener.context("listen as an upstream")?;
        let address = listener.local_addr().context("the upstream's address")?;
        let log = Arc::new(Log::default());
        runtime.spawn(serve(listener, Arc::clone(&log)));
        Ok(Self {
            address,
            log,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The upstream, as a route names it.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// What it saw.
    pub fn log(&self) -> &Log {
        &self.log
    }
}

async fn serve(listener: TcpListener, log: Arc<Log>) {
    loop {
        // A connection that is gone before it is accepted is nobody's concern.
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        let connection = log.opened(peer);
        let tap = Tap::new(stream, Arc::clone(&log), connection);
        // Errors of a connection are its peer's doing, and the tap has recorded them.
        tokio::spawn(async move { drop(converse(tap).await) });
    }
}

async fn converse(tap: Tap) -> std::io::Result<()> {
    let (reader, mut writer) = tokio::io::split(tap);
    let mut reader = BufReader::new(reader);
    let mut command = String::new();
    reader.read_line(&mut command).await?;
    match command.trim_end() {
        "echo" => {
            tokio::io::copy_buf(&mut reader, &mut writer).await?;
        }
        "ticks" => {
            let mut turns = interval(Duration::from_millis(10));
            let mut incoming = [0; 1024];
            loop {
                tokio::select! {
                    read = reader.read(&mut incoming) => if read? == 0 {
                        break;
                    },
                    _ = turns.tick() => writer.write_all(b"tick\n").await?,
                }
            }
        }
        "count" => {
            let taken = tokio::io::copy_buf(&mut reader, &mut tokio::io::sink()).await?;
            writer.write_all(taken.to_string().as_bytes()).await?;
        }
        "reset" => return reader.into_inner().unsplit(writer).reset(),
        "bye" => {
            writer.write_all(b"bye").await?;
            writer.shutdown().await?;
            tokio::io::copy_buf(&mut reader, &mut tokio::io::sink()).await?;
        }
        _ => {}
    }
    writer.shutdown().await
}
