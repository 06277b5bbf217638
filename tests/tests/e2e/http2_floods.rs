//! HTTP/2 clients that mean harm: told to calm down, recorded, and nobody else notices.

use anyhow::{Context as _, Result, ensure};
use enforcer_tests::{
    Scene,
    client::{
        Client,
        http2::{Code, Frame, Peer, block, flag, integer, kind, setting},
    },
    daemon::Daemon,
    streams::Streams,
    wait,
};

/// How often each flood comes.
const ROUNDS: u64 = 5;
/// In KiB: what the allocator keeps.
const MOST_GROWTH: u64 = 16 * 1024;
/// In KiB: what a stream holds that nobody takes, 64 KiB towards the client, and what was read ahead
/// of the upstream.
const MOST_HELD: u64 = 256;

struct Flood {
    what: &'static str,
    /// What the audit log says.
    reason: &'static str,
    play: fn(&mut Peer) -> Result<()>,
}

/// All of them are told to calm down.
const FLOODS: [Flood; 9] = [
    Flood {
        what: "requests that are reset at once",
        reason: "http2_violation",
        play: |peer| {
            // Without the token, so that many come at once.
            let request = block(&peer.request("GET", "/")[..4]);
            let pairs = (0..400).flat_map(|number| {
                let stream = 2 * number + 1;
                [
                    Frame::only_headers(stream, &*request),
                    Frame::reset(stream, Code::Cancel),
                ]
            });
            calmed_down(peer, pairs.collect())
        },
    },
    Flood {
        what: "requests that are reset when they are looked at",
        reason: "too_many_given_up",
        play: |peer| {
            for stream in (0..=100).map(|number| 2 * number + 1) {
                peer.send(&[peer.get(stream, "/slow")])?;
                // By then it has been taken up.
                peer.check_alive()?;
                peer.send(&[Frame::reset(stream, Code::Cancel)])?;
            }
            calmed_down(peer, Vec::new())
        },
    },
    Flood {
        what: "malformed requests",
        reason: "http2_violation",
        play: |peer| {
            let mut fields = peer.request("GET", "/slow");
            fields.push(("connection", "close"));
            let request = |number: u32| Frame::only_headers(2 * number + 1, block(&fields));
            let requests = (0..200).map(request).collect();
            calmed_down(peer, requests)
        },
    },
    Flood {
        what: "a header block that goes on and on",
        reason: "http2_violation",
        play: |peer| {
            let first = Frame::headers(1, []).with_flags(flag::END_STREAM);
            let more = Frame::continuation(1, block(&[("x", "y")]), false);
            calmed_down(peer, [vec![first], vec![more; 50]].concat())
        },
    },
    Flood {
        what: "fields that are small on the wire only",
        reason: "http2_violation",
        play: |peer| {
            let mut bomb = block(&peer.request("GET", "/slow"));
            // One field of 4,000 bytes, remembered, and said 12,000 times more: 48 MB.
            bomb.push(0x40);
            bomb.extend(block(&[("x", &"y".repeat(3_960))]).split_off(1));
            let mut again = Vec::new();
            integer(&mut again, 0x80, 7, 62);
            bomb.extend(again.repeat(12_000));
            let bomb = [Frame::only_headers(1, bomb)];
            calmed_down(peer, bomb.into())
        },
    },
    Flood {
        what: "settings",
        reason: "http2_flood",
        play: |peer| calmed_down(peer, vec![Frame::settings(&[]); 2_000]),
    },
    Flood {
        what: "pings",
        reason: "http2_flood",
        play: |peer| calmed_down(peer, vec![Frame::ping([0; 8]); 2_000]),
    },
    Flood {
        what: "priorities, and frames of no known kind",
        reason: "http2_flood",
        play: |peer| {
            let both = [Frame::priority(1, 0), Frame::new(0x16, 0, 0, [])];
            calmed_down(peer, vec![both; 1_000].concat())
        },
    },
    Flood {
        what: "data without data",
        reason: "http2_violation",
        play: |peer| {
            let request = peer.post(1, "/upload");
            calmed_down(
                peer,
                [vec![request], vec![Frame::data(1, []); 2_000]].concat(),
            )
        },
    },
];

fn calmed_down(peer: &mut Peer, frames: Vec<Frame>) -> Result<()> {
    // All of it may be too much to be written.
    let _ = peer.send(&frames);
    peer.check_connection_error(Code::EnhanceYourCalm)
}

fn check_growth(daemon: &Daemon<'_>, before: u64, most: u64, what: &str) -> Result<()> {
    let growth = daemon.gateway_memory()?.saturating_sub(before);
    ensure!(growth < most, "{what}: the gateway grew by {growth} KiB");
    Ok(())
}

fn play(flood: &Flood, client: &Client, token: &str, daemon: &Daemon<'_>) -> Result<()> {
    let before = daemon.refusals(flood.reason)?;
    for _ in 0..ROUNDS {
        (flood.play)(&mut Peer::new(client, token)?)?;
    }
    wait::until("the floods were recorded", || {
        (daemon.refusals(flood.reason).ok()? >= before + ROUNDS).then_some(())
    })
}

#[test]
fn floods_are_ended_and_recorded_and_harm_nobody() {
    let scene = Scene::new("h2-floods").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let bystander = Streams::start(&client, &scene.token("alice").unwrap()).unwrap();
    let token = format!("Bearer {}", scene.token("mallory").unwrap());
    let before = daemon.gateway_memory().unwrap();
    for flood in &FLOODS {
        let played = play(flood, &client, &token, &daemon).context(flood.what);
        let harmless = played.and_then(|()| bystander.wait_for_data().context(flood.what));
        harmless.unwrap();
        check_growth(&daemon, before, MOST_GROWTH, flood.what).unwrap();
    }
    assert!(bystander.are_running());
}

/// The upstream's data waits in the upstream, whatever keeps the client from taking it.
#[test]
fn who_takes_nothing_is_sent_nothing_and_costs_little() {
    const STREAMS: u32 = 100;
    const HTTP1: usize = 20;
    let scene = Scene::new("h2-unread").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let bystander = Streams::start(&client, &scene.token("alice").unwrap()).unwrap();
    let token = format!("Bearer {}", scene.token("mallory").unwrap());
    let before = daemon.gateway_memory().unwrap();
    // One gives no window, the other the largest, and does not read.
    let windows = [0, (1 << 31) - 1];
    let silent = windows.map(|window| {
        let settings = [(setting::INITIAL_WINDOW_SIZE, window)];
        let peer = Peer::with_settings(&client, &token, &settings).unwrap();
        let open = Frame::window_update(0, (1 << 31) - 1 - 65_535);
        let requests = (0..STREAMS).map(|number| peer.get(2 * number + 1, "/download"));
        let frames: Vec<_> = std::iter::once(open).chain(requests).collect();
        peer.send(&frames).unwrap();
        peer
    });
    // The same over HTTP/1.1.
    let unread_http1: Vec<_> = (0..HTTP1)
        .map(|_| {
            let raw = client.tls().unwrap();
            let request = format!(
                "GET /download HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: {token}\r\n\r\n"
            );
            raw.write(request).unwrap();
            raw
        })
        .collect();
    wait::until("all downloads had begun", || {
        let downloads = scene.upstream.log().requests();
        (downloads.len() > 2 * STREAMS as usize + HTTP1).then_some(())
    })
    .unwrap();
    // Long enough for whatever would fill up to do so: a bystander gets a megabyte a second.
    for _ in 0..10 {
        bystander.wait_for_data().unwrap();
    }
    let most = MOST_GROWTH + (2 * u64::from(STREAMS) + HTTP1 as u64) * MOST_HELD;
    check_growth(&daemon, before, most, "downloads that nobody takes").unwrap();
    let [mut without_window, mut unread] = silent;
    without_window.check_alive().unwrap();
    assert!(!without_window.has_waiting(kind::DATA));
    unread
        .wait_for("data", |frame| frame.kind == kind::DATA)
        .unwrap();
    for raw in &unread_http1 {
        raw.read_until("200 OK").unwrap();
    }
    assert!(bystander.are_running());
}
