//! The alarm for the next deadline, and the watch for steps of the wall clock (timerfd_create(2)).

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::io::unix::AsyncFd;

use super::readable;
use crate::clock::BootInstant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const ZERO: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// An alarm at an instant of `CLOCK_BOOTTIME`, precise to the kernel's timers.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set_for: Option<BootInstant>,
}

impl Alarm {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            timer: open(TimerfdClockId::Boottime)?,
            set_for: None,
        })
    }

    /// Sets it for `at`, or stops it.
    pub fn set(&mut self, at: Option<BootInstant>) -> io::Result<()> {
        if at == self.set_for {
            return Ok(());
        }
        // All zero would disarm it: an instant in the past is one nanosecond after boot.
        let nanos = at.map_or(0, |at| at.as_nanos().max(1));
        let value = Timespec {
            tv_sec: (nanos / NANOS_PER_SECOND) as i64,
            tv_nsec: (nanos % NANOS_PER_SECOND) as i64,
        };
        let spec = Itimerspec {
            it_interval: ZERO,
            it_value: value,
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        self.set_for = at;
        Ok(())
    }

    /// Waits until it rings. Safe to cancel.
    pub async fn rang(&mut self) -> io::Result<()> {
        expiry(&self.timer).await?;
        self.set_for = None;
        Ok(())
    }
}

/// Tells when the wall clock was set.
#[derive(Debug)]
pub struct WallClockWatch {
    timer: AsyncFd<OwnedFd>,
}

impl WallClockWatch {
    /// Starts watching.
    pub fn new() -> io::Result<Self> {
        let watch = Self {
            timer: open(TimerfdClockId::Realtime)?,
        };
        watch.arm()?;
        Ok(watch)
    }

    /// Waits for the next step. Safe to cancel.
    pub async fn stepped(&mut self) -> io::Result<()> {
        loop {
            let expired = expiry(&self.timer).await;
            self.arm()?;
            match expired {
                Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {
                    return Ok(());
                }
                other => other?,
            }
        }
    }

    fn arm(&self) -> io::Result<()> {
        const FAR: Timespec = Timespec {
            tv_sec: 1 << 40,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: ZERO,
            it_value: FAR,
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(self.timer.get_ref(), flags, &spec)?;
        Ok(())
    }
}

fn open(clock: TimerfdClockId) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    readable::watch(timerfd_create(clock, flags)?)
}

/// Waits until the timer expires, or fails with ECANCELED when its clock was set.
async fn expiry(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut guard = timer.readable().await?;
        let mut expirations = [0_u8; 8];
        let read = guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
        // Otherwise it was readable no more.
        if let Ok(result) = read {
            return result.map(drop);
        }
    }
}
