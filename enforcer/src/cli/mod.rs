//! The command line.

pub mod audit;
pub mod maps;
pub mod sessions;
pub mod status;
pub mod unload;

mod client;
mod output;
mod text;
