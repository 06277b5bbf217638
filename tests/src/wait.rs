//! Waiting for conditions, never for a while.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use enforcer::clock::{self, BootInstant, WallInstant};

/// How long the bed waits for what should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// What `probe` finds, as soon as it finds something.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let end = clock::boot_now().saturating_add(PATIENCE);
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if clock::boot_now() >= end {
            bail!("waited {} s in vain until {what}", PATIENCE.as_secs());
        }
        thread::sleep(PROBE_INTERVAL);
    }
}

/// Returns at `instant`.
pub fn until_instant(instant: BootInstant) {
    thread::sleep(instant.saturating_duration_since(clock::boot_now()));
}

/// Returns when the wall clock shows `instant`.
pub fn until_wall(instant: WallInstant) {
    thread::sleep(instant.saturating_duration_since(clock::wall_now()));
}

/// The first whole second of the wall clock that is at least `delay` away: what a token can
/// express.
pub fn whole_second_after(delay: Duration) -> WallInstant {
    let at = clock::wall_now().saturating_add(delay);
    WallInstant::from_unix_seconds(at.as_unix_seconds() + 1)
}
