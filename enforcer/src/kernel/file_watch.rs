//! Seeing that files were written anew or replaced (inotify(7)).
//!
//! Folders are watched, not files: a file that is replaced by renaming another over it, or by
//! turning a link, is another file. A path that leads over links is watched at each of them, as
//! Kubernetes turns a link to a folder and certbot one to a file.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use rustix::fs::inotify;
use tokio::{
    io::unix::AsyncFd,
    time::{Sleep, sleep},
};

use super::readable;

/// Several writes in a row are one change.
const QUIET: Duration = Duration::from_millis(200);
/// Most links that a path leads over, as in the kernel.
const MOST_LINKS: usize = 40;

/// Watched files.
#[derive(Debug)]
pub struct FileWatch {
    events: AsyncFd<OwnedFd>,
    /// Of each watched folder, the names that matter.
    names: HashMap<i32, HashSet<OsString>>,
    /// Something has changed; it is told when this is over.
    settling: Option<Pin<Box<Sleep>>>,
}

impl FileWatch {
    /// Watches the files at absolute `paths`. What is not there is seen when it comes, if its
    /// folder is there. Needs a tokio runtime.
    ///
    /// # Errors
    /// If no folder can be watched.
    pub fn start<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events = inotify::init(flags)?;
        let kinds = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::ONLYDIR;
        let mut names: HashMap<i32, HashSet<OsString>> = HashMap::new();
        let mut fault = None;
        for (folder, name) in paths.into_iter().flat_map(steps) {
            match inotify::add_watch(&events, &folder, kinds) {
                Ok(watch) => drop(names.entry(watch).or_default().insert(name)),
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            Some(error) if names.is_empty() => Err(error.into()),
            _ => Ok(Self {
                events: readable::watch(events)?,
                names,
                settling: None,
            }),
        }
    }

    /// Waits until one of the files has changed, and nothing more for a moment. May be given up
    /// and waited for again.
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
                    tracing::error!("files are no longer watched: {error}");
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Takes what has been reported. True if any of it matters.
    fn drain(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.events.get_ref(), &mut space);
        let mut any = false;
        while let Ok(event) = reader.next() {
            let lost = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            let names = self.names.get(&event.wd());
            let ours = event.file_name().is_some_and(|name| {
                let name = OsStr::from_bytes(name.to_bytes());
                names.is_some_and(|names| names.contains(name))
            });
            any |= ours || lost;
        }
        any
    }
}

/// The folders that a path leads through, where another name would lead elsewhere: the file's own,
/// and that of each link on the way.
fn steps(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut steps = Vec::new();
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<_> = names(path);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        let link = std::fs::read_link(&here).ok();
        if link.is_some() || ahead.is_empty() {
            steps.push((at.clone(), name));
        }
        match link {
            Some(target) if links < MOST_LINKS => {
                links += 1;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut rest = names(&target);
                rest.append(&mut ahead);
                ahead = rest;
            }
            _ => at = here,
        }
    }
    steps
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    async fn is_quiet(watch: &mut FileWatch) -> bool {
        let changed = tokio::time::timeout(QUIET * 2, watch.changed());
        changed.await.is_err()
    }

    #[tokio::test]
    async fn writing_and_replacing_are_seen_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::start([path.as_path()]).unwrap();
        assert!(is_quiet(&mut watch).await, "nothing has changed");

        fs::write(&path, "b").unwrap();
        fs::write(&path, "c").unwrap();
        watch.changed().await;
        assert!(is_quiet(&mut watch).await, "it was told already");

        let other = folder.path().join("new");
        fs::write(&other, "d").unwrap();
        assert!(is_quiet(&mut watch).await, "it is nobody's file");
        fs::rename(&other, &path).unwrap();
        watch.changed().await;
    }

    #[tokio::test]
    async fn a_link_that_is_turned_is_seen_wherever_it_is_on_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        // As Kubernetes mounts a secret.
        for version in ["1", "2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("tls.crt"), version).unwrap();
        }
        symlink("1", root.join("..data")).unwrap();
        symlink("..data/tls.crt", root.join("tls.crt")).unwrap();
        let path = root.join("tls.crt");
        let mut watch = FileWatch::start([path.as_path()]).unwrap();
        assert!(is_quiet(&mut watch).await, "nothing has changed");
        symlink("2", root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        watch.changed().await;
        // As certbot renews a certificate.
        fs::remove_file(&path).unwrap();
        symlink("2/tls.crt", &path).unwrap();
        watch.changed().await;
    }
}
