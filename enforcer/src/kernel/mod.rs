//! The only door to the kernel. All `unsafe` code of the daemon lives here.
//!
//! - [`probe`](self::probe): what the machine offers, before anything starts;
//! - [`cgroup`](self::cgroup): the daemon's cgroup and the processes in it;
//! - [`attach`](self::attach): programs and maps loaded, attached, pinned, inspected and removed;
//! - [`maps`](self::maps): typed access to the maps;
//! - [`events`](self::events): the ring buffer; [`log`](self::log): the programs' own log lines;
//! - [`reset`](self::reset): `SOCK_DESTROY`;
//! - [`tcp`](self::tcp): the state of a connection;
//! - [`file_watch`](self::file_watch): a file that is written anew or replaced;
//! - [`timer`](self::timer): the alarm on `CLOCK_BOOTTIME` and the watch for steps of the wall clock.

pub mod attach;
pub mod cgroup;
pub mod events;
pub mod file_watch;
pub mod log;
pub mod maps;
pub mod probe;
mod readable;
pub mod reset;
pub mod tcp;
pub mod timer;
