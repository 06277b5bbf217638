//! What the daemon tells its service manager (sd_notify).

use std::{fs, io::ErrorKind, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{bed::Bed, wait};

/// A service manager's ear. What is held must be listened to: a daemon whose messages nobody takes
/// waits for room once there are enough of them.
#[derive(Debug)]
pub struct Notifications {
    socket: UnixDatagram,
}

impl Notifications {
    /// Listens from now on, in place of whoever did before.
    pub fn listen(bed: &Bed) -> Result<Self> {
        let path = Self::path(bed);
        if path.exists() {
            fs::remove_file(&path).context("remove the old notification socket")?;
        }
        let socket = UnixDatagram::bind(&path).context("make a notification socket")?;
        Ok(Self { socket })
    }

    /// Where the daemon is to send them.
    pub fn path(bed: &Bed) -> PathBuf {
        bed.path("notify.sock")
    }

    /// The next one, if it comes in time: assignments, one a line.
    pub fn next(&self, within: Duration) -> Result<Option<String>> {
        self.socket
            .set_read_timeout(Some(within))
            .context("limit the wait")?;
        let mut message = [0; 4096];
        loop {
            return match self.socket.recv(&mut message) {
                Ok(length) => Ok(Some(String::from_utf8_lossy(&message[..length]).into())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error).context("hear a notification"),
            };
        }
    }

    /// Waits until one of them says this.
    pub fn wait_for(&self, assignment: &str) -> Result<()> {
        while let Some(message) = self.next(wait::PATIENCE)? {
            if message.lines().any(|line| line == assignment) {
                return Ok(());
            }
        }
        bail!("the daemon did not notify of {assignment}")
    }

    /// Forgets what has come so far.
    pub fn forget(&self) -> Result<()> {
        while self.next(Duration::from_millis(1))?.is_some() {}
        Ok(())
    }
}
