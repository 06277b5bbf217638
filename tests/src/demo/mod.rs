//! The demonstration: two sessions die and their sockets die with them, once while the gateway
//! runs and once while it is stopped.

mod act;
mod interrupt;
mod stay;
mod terminal;

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use clap::Parser;

use self::{act::Act, interrupt::until_interrupted, terminal::Terminal};
use crate::Scene;

/// Shows two sessions of 10 s and their end; cleans up after itself.
#[derive(Debug, Parser)]
#[command(name = "demo")]
pub struct Arguments {
    /// Keep daemon, issuer and upstream up on 127.0.0.1 until Ctrl-C, and print what to try.
    #[arg(long)]
    stay: bool,
    /// Where the daemon listens, with --stay.
    #[arg(long, default_value_t = crate::scene::PORT)]
    port: u16,
}

const ACTS: [Act; 2] = [
    Act {
        title: "Two sessions of 10 s, a WebSocket and a download. The kernel cuts both.",
        subjects: ["alice", "bob"],
        shows_maps: true,
        stops_gateway: false,
    },
    Act {
        title: "The same once more, and the gateway is stopped 2 s before the deadline.",
        subjects: ["carol", "dave"],
        shows_maps: false,
        stops_gateway: true,
    },
];

/// Runs what the arguments ask for, to its end or to Ctrl-C.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.stay {
        let scene = Arc::new(stay::scene(arguments.port)?);
        return until_interrupted(&scene, stay::run);
    }
    let scene = Arc::new(act::scene()?);
    until_interrupted(&scene, play)
}

fn play(scene: &Scene) -> Result<()> {
    let mut terminal = Terminal::new();
    let daemon = scene.start()?;
    for (act, number) in ACTS.iter().zip(1..) {
        act.play(number, scene, &daemon, &mut terminal)?;
    }
    Ok(())
}
