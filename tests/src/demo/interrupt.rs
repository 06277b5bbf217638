//! Ctrl-C ends the demonstration in good order, wherever it is.

use std::{process::ExitCode, sync::Arc, thread};

use anyhow::{Context as _, Result, bail};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::Scene;

/// As shells report a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Runs `play` on a thread of its own until it is done or somebody has seen enough; then
/// everything that the scene made is removed.
pub(super) fn until_interrupted(
    scene: &Arc<Scene>,
    play: fn(&Scene) -> Result<()>,
) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let played = runtime.block_on(async {
        let mut interrupts = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let [interrupt, terminate, hangup] = &mut interrupts;
        let (tell, played) = oneshot::channel();
        let on_stage = Arc::clone(scene);
        thread::spawn(move || tell.send(play(&on_stage)));
        tokio::select! {
            played = played => match played {
                Ok(result) => Ok(Some(result)),
                Err(_) => bail!("the demonstration broke off"),
            },
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
            _ = hangup.recv() => Ok(None),
        }
    });
    // Whatever the other thread is doing: its processes are gone after this, and no new one can
    // start in a cgroup that isn't there.
    scene.bed.clear()?;
    match played? {
        Some(result) => result.map(|()| ExitCode::SUCCESS),
        None => {
            println!("\nended; everything is cleaned up");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}
