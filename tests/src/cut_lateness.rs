//! How late the cut is when many sessions end at the same instant.
//!
//! Every session has a download under way. Lateness is measured on the cable, from the deadline to
//! the last payload and to the reset; and at the clients, to the instant at which they knew.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use enforcer::clock::{self, Now};
use jiff::SignedDuration;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    Scene,
    client::{Download, End},
    wait,
    wire::{Lateness, difference, millis},
};

/// Chunks a second over all downloads: as many as two cores forward at leisure.
const CHUNKS_A_SECOND: u64 = 5_000;
const SESSIONS: [u64; 3] = [1, 100, 1000];
/// Time to open the sessions in: a base, and so much for each.
const HEAD_START: Duration = Duration::from_secs(3);
const HEAD_START_EACH: Duration = Duration::from_millis(10);

/// Prints the lateness for each number of sessions.
pub fn measure() -> Result<()> {
    raise_descriptor_limit()?;
    println!(
        "{:>8}  {:<24}{:>14}{:>14}{:>14}",
        "sessions", "lateness of", "p50", "p99", "max"
    );
    for sessions in SESSIONS {
        measure_with(sessions).with_context(|| format!("with {sessions} sessions"))?;
    }
    Ok(())
}

/// Each session takes one descriptor here for its client and one for its upstream.
fn raise_descriptor_limit() -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, limit).context("raise the descriptor limit")
}

fn measure_with(sessions: u64) -> Result<()> {
    let scene = Scene::new("bench")?;
    let daemon = scene.start()?;
    let capture = scene.capture()?;
    let client = scene.client()?;
    let head_start = HEAD_START + HEAD_START_EACH * u32::try_from(sessions)?;
    let deadline = wait::whole_second_after(head_start);
    let every = (1000 * sessions / CHUNKS_A_SECOND).max(1);
    let path = format!("/download?rate=100000&every={every}");
    let downloads = (0..sessions).map(|number| {
        let token = scene.token_until(&format!("user {number}"), deadline)?;
        client.download(&path, &token)
    });
    let downloads = downloads.collect::<Result<Vec<_>>>()?;
    ensure!(clock::wall_now() < deadline, "this machine is too slow");

    let locals = downloads.iter().map(Download::local).collect::<Vec<_>>();
    let endings = downloads
        .into_iter()
        .map(Download::end)
        .collect::<Result<Vec<_>>>()?;
    let wire = capture.finish()?;
    drop(daemon);

    let now = Now::read();
    let (mut payloads, mut resets, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for (local, ending) in locals.into_iter().zip(endings) {
        ensure!(ending.how == End::Reset, "a client saw {:?}", ending.how);
        let Lateness {
            last_payload,
            reset,
        } = wire.conversation(local).check_cut(deadline)?;
        payloads.push(last_payload);
        resets.push(reset);
        seen.push(difference(now.wall_at(ending.at), deadline));
    }
    report(&sessions.to_string(), "the last payload", payloads);
    report("", "the reset, on the wire", resets);
    report("", "the reset, at the client", seen);
    Ok(())
}

fn report(sessions: &str, what: &str, mut lateness: Vec<SignedDuration>) {
    lateness.sort();
    let percentile = |hundredths: usize| {
        let rank = (lateness.len() * hundredths).div_ceil(100).max(1);
        millis(lateness[rank - 1])
    };
    println!(
        "{sessions:>8}  {what:<24}{:>14}{:>14}{:>14}",
        percentile(50),
        percentile(99),
        percentile(100),
    );
}
