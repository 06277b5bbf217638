//! One act: two sessions from their start to their end.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result};
use enforcer::clock::{self, Now, WallInstant};
use jiff::SignedDuration;

use super::Terminal;
use crate::{
    Scene, Streams,
    client::{Ending, Pattern},
    daemon::Daemon,
    process,
    streams::instant,
    wire::{Lateness, Wire, difference},
};

const SESSION: &str = "10s";
const STOP_BEFORE: Duration = Duration::from_secs(2);
const REFRESH: Duration = Duration::from_millis(100);

/// What happens in an act.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) title: &'static str,
    /// Who uses the WebSocket, and who downloads.
    pub(super) subjects: [&'static str; 2],
    pub(super) shows_maps: bool,
    pub(super) stops_gateway: bool,
}

/// The stage for all acts.
pub(super) fn scene() -> Result<Scene> {
    let mut scene = Scene::new("demo")?;
    scene.config.policy().max_session = SESSION.to_owned();
    Ok(scene)
}

/// A session as it ended.
struct End {
    what: &'static str,
    local: SocketAddr,
    ending: Ending,
    record: serde_json::Value,
}

impl Act {
    pub(super) fn play(
        &self,
        number: usize,
        scene: &Scene,
        daemon: &Daemon<'_>,
        terminal: &mut Terminal,
    ) -> Result<()> {
        terminal.title(&format!("{number}. {}", self.title));
        let capture = scene.capture()?;
        let streams = self.begin(scene)?;
        if self.shows_maps {
            terminal.say(&maps(scene, daemon)?);
        }
        let deadline = self.deadline(daemon)?;
        self.count_down(daemon, &streams, deadline, terminal)?;

        let Streams { download, talk } = streams;
        let locals = [talk.local(), download.local()];
        let endings = [talk.end()?.ending, download.end()?];
        let [websocket, bob] = self.subjects.map(|subject| {
            daemon.wait_for_audit("session_ended", |record| record["subject"] == subject)
        });
        let [talk_ending, download_ending] = endings;
        let ends = [
            End {
                what: "WebSocket",
                local: locals[0],
                ending: talk_ending,
                record: websocket?,
            },
            End {
                what: "download",
                local: locals[1],
                ending: download_ending,
                record: bob?,
            },
        ];
        terminal.say("");
        terminal.say(&measured(&capture.finish()?, &ends)?);
        if self.stops_gateway {
            process::resume(daemon.gateway_pid()?)?;
        }
        terminal.say("\nthe audit log of it (`enforcer audit`):");
        for subject in self.subjects {
            let event = [
                "audit",
                "--event",
                "session_ended",
                "--subject",
                subject,
                "--json",
            ];
            terminal.say(daemon.cli(&event)?.stdout.trim_end());
        }
        Ok(())
    }

    fn begin(&self, scene: &Scene) -> Result<Streams> {
        let client = scene.client()?;
        let [talker, downloader] = self.subjects.map(|subject| scene.token(subject));
        let streams = Streams {
            talk: client
                .websocket("/echo", &talker?)?
                .talk(Pattern::default()),
            download: client.download("/download?rate=1000000", &downloader?)?,
        };
        streams.wait_for_data()?;
        Ok(streams)
    }

    /// The earlier deadline of the two.
    fn deadline(&self, daemon: &Daemon<'_>) -> Result<WallInstant> {
        let sessions = daemon.cli(&["sessions", "--json"])?.json()?;
        let sessions = sessions.as_array().context("no list of sessions")?;
        let ours = sessions.iter().filter(|session| {
            self.subjects
                .iter()
                .any(|subject| session["subject"] == *subject)
        });
        let deadlines = ours.map(|session| instant(session, "deadline"));
        let deadlines = deadlines.collect::<Result<Vec<_>>>()?;
        deadlines.into_iter().min().context("no session")
    }

    fn count_down(
        &self,
        daemon: &Daemon<'_>,
        streams: &Streams,
        deadline: WallInstant,
        terminal: &Terminal,
    ) -> Result<()> {
        if !terminal.is_live() {
            terminal.say("waiting for the deadline");
        }
        let mut stopped = false;
        while streams.talk.is_running() || streams.download.is_running() {
            let left = deadline.saturating_duration_since(clock::wall_now());
            if self.stops_gateway && !stopped && left <= STOP_BEFORE {
                let gateway = daemon.gateway_pid()?;
                process::stop(gateway)?;
                terminal.say(&format!("SIGSTOP to the gateway, process {gateway}"));
                stopped = true;
            }
            terminal.live(&format!(
                "{:4.1} s left   WebSocket {:>5} echoes   download {:>5.1} MB",
                left.as_secs_f64(),
                streams.talk.received(),
                streams.download.received() as f64 / 1e6,
            ));
            thread::sleep(REFRESH);
        }
        Ok(())
    }
}

/// The maps while both sessions live.
fn maps(scene: &Scene, daemon: &Daemon<'_>) -> Result<String> {
    let pins = scene.bed.bpf_dir();
    let sessions = pins.join("SESSIONS").display().to_string();
    let mut text = format!(
        "the maps (`enforcer maps`):\n{}",
        daemon.cli(&["maps"])?.stdout
    );
    // A view of the same from outside, where there is one.
    if let Ok(dump) = process::run("bpftool", &["map", "dump", "pinned", &sessions]) {
        text += &format!("\n`bpftool map dump pinned {sessions}`:\n{dump}");
    }
    Ok(text)
}

/// How late each cut was.
fn measured(wire: &Wire, ends: &[End]) -> Result<String> {
    let mut text = format!(
        "{:<11}{:<20}{:<20}{:<20}{:<20}\n",
        "", "last payload", "reset on the wire", "reset seen by", "packets"
    );
    text += &format!(
        "{:<11}{:<20}{:<20}{:<20}{:<20}\n",
        "", "on the wire", "", "the client", "dropped"
    );
    for end in ends {
        let deadline = instant(&end.record, "deadline")?;
        let Lateness {
            last_payload,
            reset,
        } = wire
            .conversation(end.local)
            .check_cut(deadline)
            .context(end.what)?;
        let seen = difference(Now::read().wall_at(end.ending.at), deadline);
        text += &format!(
            "{:<11}{:<20}{:<20}{:<20}{:<20}\n",
            end.what,
            relative(last_payload),
            relative(reset),
            relative(seen),
            end.record["dropped_packets"],
        );
    }
    Ok(text)
}

/// "1.234 ms before" or "after" the deadline.
fn relative(lateness: SignedDuration) -> String {
    let side = if lateness.is_negative() {
        "before"
    } else {
        "after"
    };
    format!(
        "{:.3} ms {side}",
        lateness.unsigned_abs().as_secs_f64() * 1e3
    )
}
