//! Registers owned descriptors with tokio.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that its wrapper owns and never gives away while it lives.
pub(super) trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for std::os::fd::OwnedFd {}

/// Watches `owner`'s descriptor for reading. Needs a tokio runtime.
pub(super) fn watch<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        unsafe_code,
        reason = "tokio asks for the promise that the descriptor stays open"
    )]
    // SAFETY: `T` owns the descriptor, always returns the same one, and is owned by the `AsyncFd`,
    // which deregisters it before dropping it.
    Ok(unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }?)
}
