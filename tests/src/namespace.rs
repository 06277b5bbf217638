//! Where processes and tasks run: a network namespace of the bed's, or the host's own.

use std::{
    fs::File,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

/// A network namespace.
#[derive(Clone, Debug)]
pub enum Namespace {
    /// The one that the bed was made in.
    Host,
    /// One with a name, as `ip netns` shows it.
    Named(String),
}

impl Namespace {
    /// The file that stands for it; `None` for the host's.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Host => None,
            Self::Named(name) => Some(PathBuf::from("/run/netns").join(name)),
        }
    }

    /// A runtime all of whose threads, and so all of whose sockets, are in this namespace.
    ///
    /// Work must be spawned on it: what `block_on` runs stays in the caller's namespace.
    pub fn runtime(&self, workers: usize) -> Result<Arc<Runtime>> {
        let file = self.file();
        let make = move || -> Result<Runtime> {
            if let Some(file) = file {
                let namespace = File::open(&file).with_context(|| format!("open {file:?}"))?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("move into {file:?}"))?;
            }
            Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_all()
                .build()
                .context("start a runtime")
        };
        match thread::spawn(make).join() {
            Ok(runtime) => runtime.map(Arc::new),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Longest time that anything spawned by a test may take.
const LONGEST_TASK: Duration = Duration::from_secs(60);

/// Something running on a runtime, seen from a thread that isn't.
#[derive(Debug)]
pub struct Task<T> {
    /// Kept up: a runtime that is dropped ends its tasks.
    _runtime: Arc<Runtime>,
    result: mpsc::Receiver<T>,
    abort: tokio::task::AbortHandle,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `future` on `runtime`.
    pub fn spawn(runtime: &Arc<Runtime>, future: impl Future<Output = T> + Send + 'static) -> Self {
        let (send, result) = mpsc::sync_channel(1);
        let abort = runtime
            .spawn(async move {
                let value = future.await;
                // Nobody asks for the result of a task that was let go.
                let _ = send.send(value);
            })
            .abort_handle();
        Self {
            _runtime: Arc::clone(runtime),
            result,
            abort,
        }
    }

    /// Waits for its end.
    pub fn join(self) -> Result<T> {
        match self.result.recv_timeout(LONGEST_TASK) {
            Ok(value) => Ok(value),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("a task of the test did not end"),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("a task of the test panicked"),
        }
    }

    /// Whether it is still running.
    pub fn is_running(&self) -> bool {
        !self.abort.is_finished()
    }

    /// Drops what it holds, sockets included.
    pub fn abort(self) {
        self.abort.abort();
    }
}
