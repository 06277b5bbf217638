//! Bytes as they are, for input that no library would send.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Client, End, Ending, Tls};
use crate::{certificates::SERVER_NAME, wait::PATIENCE};

/// A connection to write anything to.
pub struct Raw<S> {
    client: Client,
    local: SocketAddr,
    stream: Arc<Mutex<S>>,
}

impl<S> fmt::Debug for Raw<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Raw<S> {
    pub(super) fn new(
        client: &Client,
        stream: S,
        local: impl Fn(&S) -> io::Result<SocketAddr>,
    ) -> Result<Self> {
        Ok(Self {
            client: client.clone(),
            local: local(&stream).context("the client's end")?,
            stream: Arc::new(Mutex::new(stream)),
        })
    }

    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends bytes.
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref().to_vec();
        let stream = Arc::clone(&self.stream);
        let written = self.client.run(async move {
            let mut stream = stream.lock().await;
            stream.write_all(&bytes).await?;
            stream.flush().await
        })?;
        written.context("write")
    }

    /// Ends the client's side: it will say nothing more, and goes on to hear.
    pub fn finish(&self) -> Result<()> {
        let stream = Arc::clone(&self.stream);
        let finished = self
            .client
            .run(async move { stream.lock().await.shutdown().await })?;
        finished.context("end the client's side")
    }

    /// Sends bytes one by one with a pause after each, until it can't; says when and why.
    pub fn trickle(&self, bytes: impl AsRef<[u8]>, pause: Duration) -> Result<Ending> {
        let bytes = bytes.as_ref().to_vec();
        let stream = Arc::clone(&self.stream);
        self.client.run(async move {
            let mut stream = stream.lock().await;
            let mut answer = Vec::new();
            for byte in bytes.iter().cycle() {
                if let Err(error) = stream.write_all(&[*byte]).await {
                    return Ending::of(&error);
                }
                match timeout(pause, stream.read_buf(&mut answer)).await {
                    Err(_) | Ok(Ok(1..)) => {}
                    Ok(Ok(0)) => return Ending::now(End::Complete),
                    Ok(Err(error)) => return Ending::of(&error),
                }
            }
            Ending::now(End::Other("nothing to send".to_owned()))
        })
    }

    /// Everything that comes until the end, and the end.
    pub fn read_to_end(&self) -> Result<(String, Ending)> {
        let stream = Arc::clone(&self.stream);
        self.client.run(async move {
            let mut bytes = Vec::new();
            let ending = match stream.lock().await.read_to_end(&mut bytes).await {
                Ok(_) => Ending::now(End::Complete),
                Err(error) => Ending::of(&error),
            };
            (String::from_utf8_lossy(&bytes).into_owned(), ending)
        })
    }

    /// The next bytes, exactly so many; or how the stream ended before.
    pub fn read_exact(&self, length: usize) -> Result<Result<Vec<u8>, Ending>> {
        let stream = Arc::clone(&self.stream);
        self.client.run(async move {
            let mut bytes = vec![0; length];
            match timeout(PATIENCE, stream.lock().await.read_exact(&mut bytes)).await {
                Ok(Ok(_)) => Ok(Ok(bytes)),
                Ok(Err(error)) => Ok(Err(Ending::of(&error))),
                Err(_) => anyhow::bail!("nothing came for {} s", PATIENCE.as_secs()),
            }
        })?
    }

    /// What comes, up to and with `marker`.
    pub fn read_until(&self, marker: &str) -> Result<String> {
        let (stream, marker) = (Arc::clone(&self.stream), marker.to_owned());
        self.client.run(async move {
            let mut stream = stream.lock().await;
            let mut bytes = Vec::new();
            while !String::from_utf8_lossy(&bytes).contains(&marker) {
                let read = stream.read_buf(&mut bytes).await.context("read")?;
                anyhow::ensure!(read > 0, "the stream ended before {marker:?}");
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })?
    }
}

impl Raw<TcpStream> {
    /// Goes on with TLS.
    pub fn into_tls(self) -> Result<Raw<Tls>> {
        let connector = TlsConnector::from(Arc::clone(&self.client.tls));
        let name = ServerName::try_from(SERVER_NAME).context("the server's name")?;
        let stream = Arc::into_inner(self.stream).context("the stream is in use")?;
        let handshake = connector.connect(name, stream.into_inner());
        let stream = self.client.run(handshake)?;
        Raw::new(&self.client, stream.context("TLS handshake")?, |tls| {
            tls.get_ref().0.local_addr()
        })
    }
}
