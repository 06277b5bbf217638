//! Seeing that a file was written anew or replaced (inotify(7)).
//!
//! The folder is watched, not the file: a file that is replaced by renaming another over it, or by
//! turning a link, is another file.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, pin::Pin, time::Duration};

use rustix::fs::inotify;
use tokio::{
    io::unix::AsyncFd,
    time::{Sleep, sleep},
};

use super::readable;

/// Several writes in a row are one change.
const QUIET: Duration = Duration::from_millis(200);

/// A watched folder.
#[derive(Debug)]
pub struct FileWatch {
    events: AsyncFd<OwnedFd>,
    /// Something has changed; it is told when this is over.
    settling: Option<Pin<Box<Sleep>>>,
}

impl FileWatch {
    /// Watches the folder of the file at `path`. Needs a tokio runtime.
    ///
    /// # Errors
    /// If it can't be watched.
    pub fn start(path: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events = inotify::init(flags)?;
        let kinds = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::ONLYDIR;
        let folder = path.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&events, folder, kinds)?;
        Ok(Self {
            events: readable::watch(events)?,
            settling: None,
        })
    }

    /// Waits until something in the folder has changed, and nothing more for a moment. May be
    /// given up and waited for again.
    pub async fn changed(&mut self) {
        loop {
            match &mut self.settling {
                None => {
                    self.readable().await;
                    self.settling = Some(Box::pin(sleep(QUIET)));
                }
                Some(settling) => {
                    settling.as_mut().await;
                    self.settling = None;
                    if !self.drain() {
                        return;
                    }
                    self.settling = Some(Box::pin(sleep(QUIET)));
                }
            }
        }
    }

    async fn readable(&mut self) {
        loop {
            match self.events.readable().await {
                Ok(mut ready) => {
                    ready.clear_ready();
                    if self.drain() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!("a file is no longer watched: {error}");
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Takes what has been reported. True if there was anything.
    fn drain(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.events.get_ref(), &mut space);
        let mut any = false;
        while reader.next().is_ok() {
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn writing_and_replacing_are_seen_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::start(&path).unwrap();
        let quiet = tokio::time::timeout(QUIET * 2, watch.changed()).await;
        assert!(quiet.is_err(), "nothing has changed");

        fs::write(&path, "b").unwrap();
        fs::write(&path, "c").unwrap();
        watch.changed().await;
        let again = tokio::time::timeout(QUIET * 2, watch.changed()).await;
        assert!(again.is_err(), "it was told already");

        let other = folder.path().join("new");
        fs::write(&other, "d").unwrap();
        watch.changed().await;
        fs::rename(&other, &path).unwrap();
        watch.changed().await;
    }
}
