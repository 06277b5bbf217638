//! An upstream that says what the test tells it to, when the test tells it to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{
    namespace::{Namespace, Task},
    wait,
};

/// A server that listens and speaks on the connection that came last. Earlier ones stay open.
#[derive(Debug)]
pub struct ManualUpstream {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    words: UnboundedSender<Vec<u8>>,
    _runtime: Arc<Runtime>,
}

impl ManualUpstream {
    /// Serves on loopback in `namespace`.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let runtime = namespace.runtime(1)?;
        let listen = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0));
        let listener = Task::spawn(&runtime, listen).join()?;
        let listener = listener.context("listen as an upstream")?;
        let address = listener.local_addr().context("the upstream's address")?;
        let heard = Arc::default();
        let (words, to_say) = unbounded_channel();
        runtime.spawn(serve(listener, Arc::clone(&heard), to_say));
        Ok(Self {
            address,
            heard,
            words,
            _runtime: runtime,
        })
    }

    /// The upstream, as a route names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says this on the open connection.
    pub fn say(&self, words: impl Into<Vec<u8>>) -> Result<()> {
        let said = self.words.send(words.into());
        said.context("the upstream has ended")
    }

    /// Waits for `marker`, and returns what has been heard since it was last asked.
    pub fn wait_for(&self, marker: &str) -> Result<String> {
        wait::until(&format!("the upstream heard {marker:?}"), || {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let text = String::from_utf8_lossy(&heard).into_owned();
            text.contains(marker).then(|| {
                heard.clear();
                text
            })
        })
    }
}

async fn serve(
    listener: TcpListener,
    heard: Arc<Mutex<Vec<u8>>>,
    mut words: UnboundedReceiver<Vec<u8>>,
) {
    let Ok((mut stream, _)) = listener.accept().await else {
        return;
    };
    let (mut open, mut earlier) = (true, Vec::new());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            Ok((newer, _)) = listener.accept() => {
                earlier.push(std::mem::replace(&mut stream, newer));
                open = true;
            }
            read = stream.read(&mut buffer), if open => match read {
                Ok(length @ 1..) => {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.extend_from_slice(&buffer[..length]);
                }
                _ => open = false,
            },
            Some(words) = words.recv(), if open => {
                open = stream.write_all(&words).await.is_ok();
            }
        }
    }
}
