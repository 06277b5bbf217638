//! Syslog messages (RFC 5424) to a datagram socket of this machine, `/dev/log` for one.

use std::{io, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use super::{
    super::StoredRecord,
    message::{host_name, message},
};
use crate::channel::ExportOutcome;

/// Longest wait for a receiver whose queue is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket that is connected when it is needed.
#[derive(Debug)]
pub(super) struct SyslogSocket {
    path: PathBuf,
    host: String,
    socket: Option<UnixDatagram>,
}

impl SyslogSocket {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            host: host_name(),
            socket: None,
        }
    }

    pub(super) fn send(&mut self, records: &[StoredRecord]) -> ExportOutcome {
        let mut too_long = 0;
        for record in records {
            let message = message(&record.line(), &self.host, None);
            match self.send_one(message.as_bytes()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => too_long += 1,
                Err(error) => {
                    self.socket = None;
                    let path = self.path.display();
                    return ExportOutcome::Failed(format!("cannot send to {path}: {error}"));
                }
            }
        }
        if too_long > 0 {
            tracing::error!(
                too_long,
                "audit records were too long for the syslog socket"
            );
        }
        ExportOutcome::Delivered
    }

    fn send_one(&mut self, message: &[u8]) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                none.insert(socket)
            }
        };
        socket.send(message).map(drop)
    }
}
