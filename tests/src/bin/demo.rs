//! `cargo xtask demo`: see [`enforcer_tests::demo`].

use std::process::ExitCode;

use clap::Parser as _;
use enforcer_tests::demo::{self, Arguments};

fn main() -> anyhow::Result<ExitCode> {
    demo::run(&Arguments::parse())
}
