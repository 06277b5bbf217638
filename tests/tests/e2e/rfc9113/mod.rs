//! What RFC 9113 asks of a server, a case each: a client that writes its frames by hand, against
//! the real gateway.
//!
//! Where the gateway's HTTP/2 library deviates, the case says how it answers instead
//! ([`Case::but`]), and why that will do: whoever changes the library sees it here.

mod connection;
mod flow;
mod frames;
mod header_blocks;
mod messages;
mod streams;
mod tls;
mod tunnels;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, ensure};
use enforcer_tests::{
    Scene,
    client::{
        Client,
        http2::{Code, Frame, Peer},
    },
    config::Route,
    wait,
};

const WORKERS: usize = 8;

const LESS_EXACT: &str = "the code is PROTOCOL_ERROR: the connection ends all the same";
const WHOLE_CONNECTION: &str = "not the stream but the connection ends, as 5.4.1 allows";

/// A rule, and how to find out whether it is kept.
struct Case {
    /// Of RFC 9113, unless it starts with another number.
    section: &'static str,
    rule: &'static str,
    play: fn(&Stage) -> Result<()>,
    /// How the library deviates, and why that will do.
    deviation: Option<&'static str>,
}

const fn case(section: &'static str, rule: &'static str, play: fn(&Stage) -> Result<()>) -> Case {
    Case {
        section,
        rule,
        play,
        deviation: None,
    }
}

impl Case {
    const fn but(self, deviation: &'static str) -> Self {
        Self {
            deviation: Some(deviation),
            ..self
        }
    }
}

/// What a case is played on.
struct Stage {
    scene: Scene,
    client: Client,
    token: String,
    /// Of another session.
    other_token: String,
    violations: AtomicU64,
}

impl Stage {
    /// A connection of the case's own, past the settings.
    fn peer(&self) -> Result<Peer> {
        Peer::new(&self.client, &self.token)
    }

    /// The frames end the connection with this code.
    fn ends(&self, code: Code, frames: impl FnOnce(&Peer) -> Vec<Frame>) -> Result<()> {
        let mut peer = self.peer()?;
        peer.send(&frames(&peer))?;
        peer.check_connection_error(code)?;
        self.violations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The frames end stream 1 with this code, and nothing else.
    fn resets(&self, code: Code, frames: impl FnOnce(&Peer) -> Vec<Frame>) -> Result<()> {
        let mut peer = self.peer()?;
        peer.send(&frames(&peer))?;
        peer.check_stream_error(1, code)?;
        peer.check_served(101)
    }

    /// The request on stream 1 is answered with this status.
    fn answers(&self, status: u16, frames: impl FnOnce(&Peer) -> Vec<Frame>) -> Result<()> {
        let mut peer = self.peer()?;
        peer.send(&frames(&peer))?;
        let found = peer.reply(1)?.status;
        ensure!(found == status, "the answer was {found}");
        Ok(())
    }

    /// The frames change nothing.
    fn ignores(&self, frames: impl FnOnce(&Peer) -> Vec<Frame>) -> Result<()> {
        let mut peer = self.peer()?;
        peer.send(&frames(&peer))?;
        peer.check_served(101)
    }
}

#[test]
fn every_rule_is_kept() {
    let mut scene = Scene::new("rfc9113").unwrap();
    scene.config.routes.push(Route::tunnel(&["127.0.0.1:*"]));
    let bearer = |subject| format!("Bearer {}", scene.token(subject).unwrap());
    let stage = Stage {
        client: scene.client().unwrap(),
        token: bearer("alice"),
        other_token: bearer("bob"),
        violations: AtomicU64::new(0),
        scene,
    };
    let daemon = stage.scene.start().unwrap();
    let tables = [
        connection::CASES,
        frames::CASES,
        streams::CASES,
        flow::CASES,
        header_blocks::CASES,
        messages::CASES,
        tunnels::CASES,
        tls::CASES,
    ];
    let cases: Vec<_> = tables.into_iter().flatten().collect();
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = (case.play)(&stage) {
                        let Case { section, rule, .. } = case;
                        let known = case.deviation.map_or_else(String::new, |deviation| {
                            format!(" (known to deviate: {deviation})")
                        });
                        let line = format!("{section}: {rule}{known}: {error:#}");
                        broken.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(
        broken.is_empty(),
        "{} of {} are broken:\n{}",
        broken.len(),
        cases.len(),
        broken.join("\n")
    );
    wait::until("all violations were recorded", || {
        let recorded = daemon.refusals("http2_violation").ok()?;
        (recorded >= stage.violations.load(Ordering::Relaxed)).then_some(())
    })
    .unwrap();
    // None of it harms another connection.
    let answer = stage
        .client
        .get("/headers", &stage.scene.token("bob").unwrap());
    assert_eq!(answer.unwrap().status, 200);
}

/// Section 6.8, when the gateway itself is replaced.
#[test]
fn a_gateway_that_is_replaced_takes_its_leave() {
    let scene = Scene::new("rfc9113-leave").unwrap();
    let daemon = scene.start().unwrap();
    let token = format!("Bearer {}", scene.token("alice").unwrap());
    let mut peer = Peer::new(&scene.client().unwrap(), &token).unwrap();
    peer.check_served(1).unwrap();
    peer.send(&[peer.get(3, "/download?rate=20000&length=30000")])
        .unwrap();
    wait::until("the download had begun", || {
        (scene.upstream.log().requests().len() == 2).then_some(())
    })
    .unwrap();
    let old_gateway = daemon.gateway_pid().unwrap();
    let mut config = scene.config.clone();
    config.policy().max_session = "1h".to_owned();
    let reloaded = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    connection::check_leaving(&mut peer, 3).unwrap();
    assert_eq!(peer.reply(3).unwrap().body.len(), 30_000);
    peer.check_end().unwrap();
    wait::until("the old gateway was gone", || {
        let pids = daemon.gateway_pids().ok()?;
        (!pids.contains(&old_gateway)).then_some(())
    })
    .unwrap();
}
