//! Audit records as syslog messages over a network: TLS (RFC 5425), TCP (RFC 6587, octets counted)
//! and UDP (RFC 5426).
//!
//! Syslog has no acknowledgement: what a receiver's kernel has taken is lost if the receiver ends
//! before it reads it. So over TCP and TLS each batch has a connection of its own, and is delivered
//! when the receiver has read it to its end and closed too:
//!
//! ```text
//!   connect --> messages --> end of ours --> end of theirs --> nothing was reset: delivered
//!                   |              |                |
//!                   +--------------+----------------+--> interrupted: the batch is sent again
//! ```
//!
//! A receiver that is ending may still read, and throw away what it read: after an interruption the
//! warden also hands over again what was delivered in the last seconds.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    audit::{host_name, syslog_message},
    config::{SyslogReceiver, SyslogTransport},
    gateway::{
        outbound::{ConnectError, Dialer, secured},
        upstream::tls::{NativeRoots, UpstreamTlsError, client_config},
    },
    kernel::tcp,
};

/// Longest message in a datagram: with its headers it fits every link that IPv6 may use, and needs
/// no fragments. Receivers should take 2,048 bytes (RFC 5426, 3.2).
const LONGEST_DATAGRAM: usize = 1_180;
/// What a receiver says is read and not looked at; it has nothing to say.
const MOST_SAID: u64 = 64 * 1024;
/// How often it is looked whether a connection is closed on both ends.
const CLOSING: Duration = Duration::from_millis(2);

/// Why a batch is not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no connection to the syslog receiver in time")]
    ConnectTimeout,
    #[error("the syslog receiver did not read to the end and close in time")]
    Timeout,
    #[error("the syslog receiver ended before it had read all")]
    Ended,
    #[error("the connection to the syslog receiver: {0}")]
    Broken(#[from] io::Error),
}

/// Sends to one receiver.
pub(super) struct SyslogSender {
    way: Way,
    name: String,
    port: u16,
    dialer: Dialer,
    connect_timeout: Duration,
    timeout: Duration,
    /// Of this machine.
    host: String,
}

enum Way {
    Tls(TlsConnector),
    Tcp,
    Udp,
}

impl std::fmt::Debug for SyslogSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyslogSender")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl SyslogSender {
    /// Reads roots, certificate and key: to be called before the process is sealed.
    pub(super) fn load(
        receiver: &SyslogReceiver,
        roots: &mut NativeRoots,
    ) -> Result<Self, UpstreamTlsError> {
        let settings = &receiver.outbound;
        let way = match receiver.transport {
            SyslogTransport::Tls => {
                let certificate = settings.client_certificate.as_ref();
                let tls = client_config(settings.ca.as_deref(), certificate, roots)?;
                Way::Tls(TlsConnector::from(Arc::new(tls)))
            }
            SyslogTransport::Tcp => Way::Tcp,
            SyslogTransport::Udp => Way::Udp,
        };
        Ok(Self {
            way,
            name: receiver.host.clone(),
            port: receiver.port,
            dialer: Dialer::new(&settings.allow_networks),
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeout,
            host: host_name(),
        })
    }

    pub(super) async fn send(&self, records: &[String]) -> Result<(), SendError> {
        timeout(self.timeout, self.send_all(records))
            .await
            .unwrap_or(Err(SendError::Timeout))
    }

    async fn send_all(&self, records: &[String]) -> Result<(), SendError> {
        match &self.way {
            Way::Udp => self.send_datagrams(records).await,
            Way::Tcp => {
                let mut tcp = self.connect().await?;
                self.pass_on(&mut tcp, records).await?;
                closed(&tcp).await
            }
            Way::Tls(tls) => {
                let connecting = async { secured(tls, &self.name, self.connect().await?).await };
                let connecting = timeout(self.connect_timeout, async {
                    connecting.await.map_err(SendError::from)
                });
                let mut stream = connecting.await.unwrap_or(Err(SendError::ConnectTimeout))?;
                self.pass_on(&mut stream, records).await?;
                closed(stream.get_ref().0).await
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let connecting = self.dialer.tcp(&self.name, self.port);
        let (tcp, _) = timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| ConnectError::Timeout(self.name.clone()))??;
        Ok(tcp)
    }

    /// Sends all, ends, and waits until the other end does.
    async fn pass_on(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        records: &[String],
    ) -> Result<(), SendError> {
        let mut frames = Vec::new();
        for record in records {
            let message = syslog_message(record, &self.host, None);
            frames.extend_from_slice(format!("{} ", message.len()).as_bytes());
            frames.extend_from_slice(message.as_bytes());
        }
        stream.write_all(&frames).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut said = stream.take(MOST_SAID);
        match tokio::io::copy(&mut said, &mut tokio::io::sink()).await {
            // Some close without a close_notify, although they must not (RFC 5425, 4.4).
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            said => Ok(said.map(drop)?),
        }
    }

    async fn send_datagrams(&self, records: &[String]) -> Result<(), SendError> {
        let socket = self.dialer.udp(&self.name, self.port).await?;
        for record in records {
            let message = syslog_message(record, &self.host, Some(LONGEST_DATAGRAM));
            socket.send(message.as_bytes()).await?;
        }
        Ok(())
    }
}

/// Whether everything was read: a receiver that had closed before our end came resets what it did
/// not read, and until then its end looks like any other.
async fn closed(tcp: &TcpStream) -> Result<(), SendError> {
    while !tcp::is_closed(tcp.as_fd())? {
        sleep(CLOSING).await;
    }
    match tcp.take_error()? {
        Some(_) => Err(SendError::Ended),
        None => Ok(()),
    }
}
