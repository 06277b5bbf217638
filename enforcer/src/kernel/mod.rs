//! The only door to the kernel. All `unsafe` code of the daemon lives here.
//!
//! - [`probe`]: what the machine offers, before anything starts;
//! - [`cgroup`]: the daemon's cgroup and the processes in it;
//! - [`attach`]: programs and maps loaded, attached, pinned, inspected and removed;
//! - [`maps`]: typed access to the maps;
//! - [`events`]: the ring buffer; [`log`]: the programs' own log lines;
//! - [`reset`]: `SOCK_DESTROY`;
//! - [`timer`]: the alarm on `CLOCK_BOOTTIME` and the watch for steps of the wall clock.

pub mod attach;
pub mod cgroup;
pub mod events;
pub mod log;
pub mod maps;
pub mod probe;
mod readable;
pub mod reset;
pub mod timer;
