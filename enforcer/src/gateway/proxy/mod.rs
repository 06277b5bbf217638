//! The PROXY protocol: who the client is, where a proxy stands between.
//!
//! On the way in a header is read from trusted networks only, and must be there; everybody else
//! starts with TLS. On the way out it comes first on connections that serve one client.
//!
//! The kernel knows the proxy's address, and goes on to: what is announced goes to the audit log
//! and to upstreams.

mod header;
pub(crate) mod incoming;

use tokio::io::AsyncReadExt;

use self::incoming::HeaderReader;
pub(crate) use self::{
    header::header,
    incoming::{Announcement, HeaderFault},
};
use crate::gateway::{rejection::Rejection, socket::Socket};

/// Reads the header, and not a byte more. `None`: the proxy left without a word.
pub(crate) async fn read_announcement(socket: &Socket) -> Result<Option<Announcement>, Rejection> {
    let mut reader = HeaderReader::default();
    let mut buffer = [0; 512];
    loop {
        let available = socket.peek(&mut buffer).await.map_err(Rejection::Tls)?;
        if available == 0 {
            return reader.end().map_err(Rejection::from).map(|()| None);
        }
        let (taken, announcement) = reader.take(&buffer[..available])?;
        let mut socket = socket.clone();
        let read = socket.read_exact(&mut buffer[..taken]).await;
        read.map_err(Rejection::Tls)?;
        if announcement.is_some() {
            return Ok(announcement);
        }
    }
}
