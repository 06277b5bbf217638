//! The ring buffer of [`Event`]s.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    path::Path,
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use enforcer_abi::{Event, map_name};
use tokio::io::unix::AsyncFd;

use super::readable::{self, OwnsDescriptor};

/// Reads the kernel's events.
pub struct Events {
    ring: AsyncFd<Ring>,
}

struct Ring(RingBuf<MapData>);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl OwnsDescriptor for Ring {}

impl Events {
    /// Opens the pinned ring buffer. Needs a tokio runtime.
    pub fn open(bpf_dir: &Path) -> Result<Self, MapError> {
        let map = Map::from_map_data(MapData::from_pin(bpf_dir.join(map_name::EVENTS))?)?;
        let ring = RingBuf::try_from(map)?;
        let watched = readable::watch(Ring(ring)).map_err(|error| {
            MapError::SyscallError(aya::sys::SyscallError {
                call: "epoll_ctl",
                io_error: error,
            })
        })?;
        Ok(Self { ring: watched })
    }

    /// Waits for events, then appends at most `limit` of them to `events`.
    pub async fn read(&mut self, events: &mut Vec<Event>, limit: usize) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        for _ in 0..limit {
            let record = guard.get_inner_mut().0.next().map(|item| decode(&item));
            match record {
                Some(event) => events.extend(event),
                None => {
                    guard.clear_ready();
                    break;
                }
            }
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    #[expect(unsafe_code, reason = "the record is plain data")]
    // SAFETY: long enough, and Event is `repr(C)` made of integers, valid for every bit pattern.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}
