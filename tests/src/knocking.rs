//! A client that connects again and again.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};

use crate::{Scene, client::Client, namespace::Task};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// It knocks until it is stopped.
#[derive(Debug)]
pub struct Knocking {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<(usize, usize)>>,
}

impl Knocking {
    /// Connects to where `client` does.
    pub fn start(scene: &Scene, client: &Client) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, server) = (Arc::clone(&stop), client.server());
        let runtime = scene.bed.client().runtime(1)?;
        let thread = thread::spawn(move || {
            let (mut knocks, mut refused) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                let connect = async move { TcpStream::connect(server).is_ok() };
                knocks += 1;
                refused += usize::from(!Task::spawn(&runtime, connect).join()?);
                thread::sleep(PAUSE);
            }
            Ok((knocks, refused))
        });
        Ok(Self { stop, thread })
    }

    /// How many attempts there were, and how many were refused.
    pub fn stop(self) -> Result<(usize, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        let knocked = self.thread.join();
        knocked.map_err(|_| anyhow!("the knocking thread panicked"))?
    }
}
