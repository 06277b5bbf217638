//! Bytes between a local stream and a tunnel.
//!
//! Each direction reads only after it has written. The end of one direction is passed on as the end
//! of that direction alone; what is no end is a reset on the other side, too.

use std::io;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{failure::Failure, gateway::Tunnel};

const BUFFER: usize = 64 * 1024;

/// What ends a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Both directions have ended.
    Both,
    /// The target has: standard output can't say so without being closed.
    Target,
}

/// Relays to the end. An error: one side broke off, or the connection to the gateway did.
pub(super) async fn relay(
    local_read: impl AsyncRead + Unpin,
    local_write: impl AsyncWrite + Unpin,
    tunnel: &mut Tunnel,
    until: Until,
) -> Result<(), Failure> {
    let result = {
        let Tunnel {
            receiving, sending, ..
        } = tunnel;
        let mut up = std::pin::pin!(send(local_read, sending));
        let mut down = std::pin::pin!(receive(receiving, local_write));
        let mut sent = false;
        loop {
            tokio::select! {
                result = &mut up, if !sent => match result {
                    Ok(()) => sent = true,
                    result => break result,
                },
                result = &mut down => break match result {
                    Ok(()) if until == Until::Both && !sent => up.await,
                    result => result,
                },
            }
        }
    };
    if result.is_err() {
        // Not CANCEL, which reads like an end at some servers (RFC 9113, section 8.5).
        tunnel.sending.send_reset(Reason::CONNECT_ERROR);
    }
    result
}

async fn send(
    mut local: impl AsyncRead + Unpin,
    sending: &mut SendStream<Bytes>,
) -> Result<(), Failure> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER);
        tokio::select! {
            length = local.read_buf(&mut buffer) => if length? == 0 {
                return sending.send_data(Bytes::new(), true).map_err(Failure::Broken);
            },
            reset = std::future::poll_fn(|cx| sending.poll_reset(cx)) => {
                let error = reset.map_or_else(|error| error, h2::Error::from);
                return Err(Failure::Broken(error));
            }
        }
        while !buffer.is_empty() {
            sending.reserve_capacity(buffer.len());
            let capacity = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await;
            let capacity = capacity
                .ok_or(io::ErrorKind::BrokenPipe)
                .map_err(io::Error::from)?
                .map_err(Failure::Broken)?;
            let part = buffer.split_to(capacity.min(buffer.len())).freeze();
            sending.send_data(part, false).map_err(Failure::Broken)?;
        }
    }
}

async fn receive(
    receiving: &mut RecvStream,
    mut local: impl AsyncWrite + Unpin,
) -> Result<(), Failure> {
    while let Some(data) = receiving.data().await {
        let data = data.map_err(Failure::Broken)?;
        local.write_all(&data).await?;
        local.flush().await?;
        receiving
            .flow_control()
            .release_capacity(data.len())
            .map_err(Failure::Broken)?;
    }
    local.shutdown().await?;
    Ok(())
}
