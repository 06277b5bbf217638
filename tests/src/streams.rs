//! The two that the promise is measured on: a continuous download and an echoing WebSocket, of one
//! session.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use enforcer::clock::{Now, WallInstant};
use jiff::SignedDuration;

use crate::{
    client::{Client, Download, End, Ending, Pattern, Talk, TalkEnd},
    wait,
    wire::{Lateness, Wire, difference, millis},
};

const DOWNLOAD: &str = "/download?rate=1000000";

/// What is sent every 10 ms has been sent this recently, however busy the machine is.
const LONGEST_GAP: SignedDuration = SignedDuration::from_millis(300);

/// A reset later than this is not on time, however busy the machine is.
const LATEST_RESET: SignedDuration = SignedDuration::from_millis(500);

/// Both, running.
#[derive(Debug)]
pub struct Streams {
    /// The download.
    pub download: Download,
    /// The WebSocket.
    pub talk: Talk,
}

/// Both, ended.
#[derive(Debug)]
pub struct Ended {
    download: (SocketAddr, Ending),
    talk: (SocketAddr, Ending),
    /// What the WebSocket's client remembers.
    pub talk_end: TalkEnd,
}

impl Streams {
    /// Starts both and waits until data flows on both.
    pub fn start(client: &Client, token: &str) -> Result<Self> {
        let streams = Self {
            download: client.download(DOWNLOAD, token)?,
            talk: client.websocket("/echo", token)?.talk(Pattern::default()),
        };
        streams.wait_for_data()?;
        Ok(streams)
    }

    /// Waits until more data has come on both.
    pub fn wait_for_data(&self) -> Result<()> {
        let (bytes, messages) = (self.download.received(), self.talk.received());
        wait::until("data flowed on both streams", || {
            let more = self.download.received() > bytes + 10_000;
            (more && self.talk.received() > messages + 2).then_some(())
        })
    }

    /// Whether nothing has ended either.
    pub fn are_running(&self) -> bool {
        self.download.is_running() && self.talk.is_running()
    }

    /// Waits for the end of both.
    pub fn end(self) -> Result<Ended> {
        let (download, talk) = (self.download.local(), self.talk.local());
        let talk_end = self.talk.end().context("the WebSocket")?;
        Ok(Ended {
            download: (download, self.download.end().context("the download")?),
            talk: (talk, talk_end.ending.clone()),
            talk_end,
        })
    }
}

impl Ended {
    /// Checks that both were cut at `deadline`, that the resets came on time and that the clients
    /// saw them.
    pub fn check_cut(&self, wire: &Wire, deadline: WallInstant) -> Result<[Lateness; 2]> {
        let lateness = self.check_eventual_cut(wire, deadline)?;
        for Lateness { reset, .. } in lateness {
            ensure!(reset < LATEST_RESET, "the reset was {} late", millis(reset));
        }
        Ok(lateness)
    }

    /// The same without a limit for the resets.
    pub fn check_eventual_cut(&self, wire: &Wire, deadline: WallInstant) -> Result<[Lateness; 2]> {
        let check = |(local, ending): &(SocketAddr, Ending)| {
            let seen_at = Now::read().wall_at(ending.at);
            ensure!(ending.how == End::Reset, "its client saw {:?}", ending.how);
            ensure!(
                seen_at >= deadline,
                "its client was reset before, at {seen_at}"
            );
            wire.conversation(*local).check_cut(deadline)
        };
        Ok([
            check(&self.download).context("the download")?,
            check(&self.talk).context("the WebSocket")?,
        ])
    }

    /// Checks that no payload passed from `deadline` on, whatever else happened.
    pub fn check_silence(&self, wire: &Wire, deadline: WallInstant) -> Result<()> {
        let check = |local| wire.conversation(local).check_silence(deadline);
        check(self.download.0).context("the download")?;
        check(self.talk.0).context("the WebSocket")
    }

    /// Checks that data flowed on both right up to `deadline`: a cut of what is silent anyway
    /// would show nothing.
    pub fn check_flow(&self, wire: &Wire, deadline: WallInstant) -> Result<()> {
        for (local, _) in [&self.download, &self.talk] {
            let last = wire.conversation(*local).last_payload_before(deadline)?;
            let gap = difference(deadline, last);
            ensure!(gap < LONGEST_GAP, "{local} was silent for {}", millis(gap));
        }
        Ok(())
    }
}

/// The instant in a field of an audit record.
pub fn instant(record: &serde_json::Value, field: &str) -> Result<WallInstant> {
    let text = record[field].as_str();
    let text = text.with_context(|| format!("no {field} in {record}"))?;
    let at: jiff::Timestamp = text.parse().with_context(|| format!("{field}: {text}"))?;
    let nanos = i64::try_from(at.as_nanosecond()).context("out of range")?;
    Ok(WallInstant::from_unix_nanos(nanos))
}

/// Checks that two instants are the same, as far as two clocks can be read at once.
pub fn check_same(a: WallInstant, b: WallInstant) -> Result<()> {
    const TOLERANCE: Duration = Duration::from_millis(2);
    let apart = a.max(b).saturating_duration_since(a.min(b));
    ensure!(apart < TOLERANCE, "{a} is not {b}");
    Ok(())
}
