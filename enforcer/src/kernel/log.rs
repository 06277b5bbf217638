//! The programs' log lines, about rare events only, in the daemon's log.

use std::os::fd::{AsRawFd, RawFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::readable::{self, OwnsDescriptor};

/// Forwards the log of loaded programs.
pub struct ProgramLog;

struct Logger(EbpfLogger<&'static dyn log::Log>);

impl AsRawFd for Logger {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl OwnsDescriptor for Logger {}

impl ProgramLog {
    /// Starts a task on the current `LocalSet` that forwards what the programs log. Programs go on
    /// unheard if that is impossible.
    pub fn forward(mut programs: Ebpf) {
        let logger = match EbpfLogger::init(&mut programs) {
            Ok(logger) => Logger(logger),
            Err(error) => return tracing::warn!("the programs' log cannot be read: {error}"),
        };
        let mut logger = match readable::watch(logger) {
            Ok(logger) => logger,
            Err(error) => return tracing::warn!("the programs' log cannot be watched: {error}"),
        };
        tokio::task::spawn_local(async move {
            while let Ok(mut guard) = logger.readable_mut().await {
                guard.get_inner_mut().0.flush();
                guard.clear_ready();
            }
        });
    }
}
