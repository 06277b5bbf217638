//! VNC, of which the gateway understands nothing: a real screen, seen through a tunnel and through
//! a TCP listener, until it is cut.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use enforcer::clock::{self, WallInstant};
use enforcer_tests::{
    Scene,
    bed::DAEMON_IPV4,
    capture::Capture,
    certificates::SERVER_NAME,
    config::{self, Route},
    connect::{Connect, Credential},
    daemon::Daemon,
    issuer::Claims,
    process::Process,
    streams::{check_same, instant},
    wait,
};
use jiff::SignedDuration;

const VNC_PORT: u16 = 5993;
const TCP_LISTENER: u16 = 8444;
/// Where socat takes VNC clients to the TCP listener. To them it is display 94.
const BRIDGE_PORT: u16 = 5994;
/// Where `enforcer connect` does: display 95.
const TUNNEL_PORT: u16 = 5995;
/// More pictures than there is time for.
const MANY: u32 = 99_999;
/// The screen changes all the time: this recently, however busy the machine is.
const LONGEST_GAP: SignedDuration = SignedDuration::from_millis(1000);
/// Colour of the screen.
const COLOUR: [u8; 3] = [0xc0, 0x20, 0x40];

/// Paints display `$0` in the colours `$@` in turn.
const FLICKER: &str = r#"
while :; do
    for colour in "$@"; do
        xsetroot -display "$0" -solid "$colour"
        sleep 0.05
    done
done
"#;

fn hexadecimal([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A screen that flickers in one colour, so that there is always something to send, and its VNC server,
/// in the daemon's namespace. Displays have files that all namespaces share.
fn screen(scene: &Scene, display: &str) -> [Process; 3] {
    let command = |program: &str| {
        let bed = &scene.bed;
        bed.command(bed.daemon(), program).expect("a command")
    };
    let mut xvfb = command("Xvfb");
    xvfb.args([display, "-noreset", "-screen", "0", "320x200x24"]);
    let xvfb = Process::spawn(&mut xvfb, "Xvfb").expect("Xvfb");
    wait::until("the screen was painted", || {
        let mut paint = command("xsetroot");
        let paint = paint.args(["-display", display, "-solid", &hexadecimal(COLOUR)]);
        let painted = paint.output().expect("xsetroot");
        painted.status.success().then_some(())
    })
    .expect("a screen");
    let mut flicker = command("sh");
    let other = COLOUR.map(|part| part + 2);
    flicker.args([
        "-euc",
        FLICKER,
        display,
        &hexadecimal(COLOUR),
        &hexadecimal(other),
    ]);
    let flicker = Process::spawn(&mut flicker, "xsetroot").expect("a painter");
    let mut x11vnc = command("x11vnc");
    x11vnc
        .args(["-display", display, "-rfbport", &VNC_PORT.to_string()])
        .args([
            "-localhost",
            "-forever",
            "-shared",
            "-noxdamage",
            "-nopw",
            "-quiet",
        ])
        .arg("-o")
        .arg(scene.bed.path("x11vnc.log"));
    let x11vnc = Process::spawn(&mut x11vnc, "x11vnc").expect("x11vnc");
    [flicker, x11vnc, xvfb]
}

/// A VNC client that takes pictures, one after the other.
fn snapshots(scene: &Scene, port: u16, count: u32, file: &Path) -> Command {
    let bed = &scene.bed;
    let mut command = bed.command(bed.client(), "vncsnapshot").expect("a command");
    command
        .args(["-quiet", "-allowblank", "-nocursor", "-fps", "0", "-count"])
        .args([&count.to_string(), &format!("127.0.0.1:{}", port - 5900)])
        .arg(file);
    command
}

/// Whether a picture that the client has taken shows the screen.
fn shows_the_screen(picture: &Path) -> bool {
    let pixels = Command::new("djpeg").arg("-pnm").arg(picture).output();
    let pixels = pixels.expect("djpeg").stdout;
    let middle = pixels.len() / 2 / 3 * 3;
    // The header has 15 bytes.
    let pixel = pixels.get(middle..middle + 3).expect("a picture");
    pixel.iter().zip(COLOUR).all(|(a, b)| a.abs_diff(b) < 8)
}

/// Checks that the one connection of this subject's with the gateway was cut while pictures came.
fn check_cut(daemon: &Daemon<'_>, capture: Capture, subject: &str, deadline: WallInstant) {
    let opened = clients_of(daemon, subject);
    let [client] = opened[..] else {
        panic!("not one connection: {opened:?}");
    };
    let conversation = capture.finish().unwrap().conversation(client);
    let lateness = conversation.check_cut(deadline).unwrap();
    assert!(-lateness.last_payload < LONGEST_GAP, "{lateness:?}");
}

/// Where the connections of this subject's with the gateway came from.
fn clients_of(daemon: &Daemon<'_>, subject: &str) -> Vec<SocketAddr> {
    let records = daemon.audit().unwrap();
    let opened = records.iter().filter(|it| {
        it["event"] == "connection_opened" && it["role"] == "client" && it["subject"] == subject
    });
    opened
        .map(|it| it["client"].as_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_screen_is_seen_through_a_tunnel_and_a_tcp_listener_until_it_is_cut() {
    let mut scene = Scene::new("vnc").unwrap();
    let target = format!("127.0.0.1:{VNC_PORT}");
    scene.config.routes = vec![
        Route::tunnel(&["127.0.0.0/8:5900-5999"]),
        Route {
            listener: "vnc".to_owned(),
            ..Route::to(format!("tcp://{target}"))
        },
    ];
    let mut listener = scene.config.listener().unwrap().clone();
    listener.protocol = "tcp".to_owned();
    listener.address = SocketAddr::new(DAEMON_IPV4, TCP_LISTENER);
    listener.tls.client_ca = Some(scene.ca_file());
    scene.config.listeners.insert("vnc".to_owned(), listener);
    scene.config.policies.insert(
        "short".to_owned(),
        config::Policy {
            max_session: "3s".to_owned(),
            ..config::Policy::default()
        },
    );
    scene.config.routes[0].policy = "short".to_owned();
    let _screen = screen(&scene, ":93");
    let daemon = scene.start().unwrap();

    let alice = scene.authority.client("alice").unwrap();
    let (certificate, key) = alice.write(&scene.bed, "alice").unwrap();
    let mut socat = scene.bed.command(scene.bed.client(), "socat").unwrap();
    socat
        .arg(format!("TCP-LISTEN:{BRIDGE_PORT},bind=127.0.0.1,fork,reuseaddr"))
        .arg(format!(
            "OPENSSL:{DAEMON_IPV4}:{TCP_LISTENER},commonname={SERVER_NAME},cafile={},cert={},key={}",
            scene.ca_file().display(),
            certificate.display(),
            key.display()
        ));
    let _socat = Process::spawn(&mut socat, "socat").unwrap();
    let picture = scene.bed.path("bridge.jpg");
    wait::until("a picture came through the TCP listener", || {
        let taken = snapshots(&scene, BRIDGE_PORT, 1, &picture).output().ok()?;
        taken.status.success().then_some(())
    })
    .unwrap();
    assert!(shows_the_screen(&picture));

    let token = scene
        .bed
        .write("token", scene.token("bob").unwrap())
        .unwrap();
    let capture = scene.capture().unwrap();
    let connect =
        Connect::listen_on(&scene, Credential::TokenFile(&token), TUNNEL_PORT, &target).unwrap();
    let picture = scene.bed.path("tunnel.jpg");
    let status = snapshots(&scene, TUNNEL_PORT, MANY, &picture)
        .status()
        .unwrap();
    let record = daemon.wait_for_audit("session_ended", |it| it["subject"] == "bob");
    let record = record.unwrap();
    assert_eq!(record["reason"], "deadline");
    assert!(!status.success());
    check_cut(
        &daemon,
        capture,
        "bob",
        instant(&record, "deadline").unwrap(),
    );
    let taken = |number: u32| scene.bed.path(&format!("tunnel{number:05}.jpg"));
    assert!(shows_the_screen(&taken(0)) && shows_the_screen(&taken(1)));
    assert!(!taken(MANY - 1).exists());
    connect.wait_for("the session is over").unwrap();
}

#[test]
fn a_renewal_keeps_the_connection_to_a_screen_until_the_last_token_expires() {
    let mut scene = Scene::new("vnc-renew").unwrap();
    let target = format!("127.0.0.1:{VNC_PORT}");
    scene.config.routes = vec![Route::tunnel(&[&target])];
    scene.config.policy().warn_before = Some("1s".to_owned());
    let _screen = screen(&scene, ":94");
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let first = wait::whole_second_after(Duration::from_secs(4));
    let last = first.saturating_add(Duration::from_secs(3));
    let file = scene.bed.path("token");
    let give = |expires_at: WallInstant| {
        let claims = Claims::new("carol", expires_at).with("sid", "one");
        let token = scene.issuer.sign(&claims).unwrap();
        let next = scene.bed.write("token.next", token).unwrap();
        fs::rename(next, &file).unwrap();
    };
    give(first);
    let connect =
        Connect::listen_on(&scene, Credential::TokenFile(&file), TUNNEL_PORT, &target).unwrap();
    let picture = scene.bed.path("renewed.jpg");
    let mut viewer = snapshots(&scene, TUNNEL_PORT, MANY, &picture);
    let mut viewer = Process::spawn(&mut viewer, "vncsnapshot").unwrap();
    let taken = |number: u32| scene.bed.path(&format!("renewed{number:05}.jpg"));
    let newest = || {
        (0..MANY)
            .take_while(|number| taken(*number).exists())
            .last()
    };
    wait::until("a picture was taken", newest).unwrap();
    assert!(clock::wall_now() < first, "the screen was too slow");
    give(last);
    connect.wait_for("renewed, for ").unwrap();

    wait::until_wall(first.saturating_add(Duration::from_millis(300)));
    let before = newest().unwrap();
    wait::until("pictures went on", || {
        newest().filter(|number| *number > before + 2)
    })
    .unwrap();
    // The newest one may not be finished.
    assert!(shows_the_screen(&taken(before + 1)));
    assert!(viewer.ended().unwrap().is_none());
    assert!(!viewer.wait().unwrap().success());
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token");
    check_same(instant(&record, "deadline").unwrap(), last).unwrap();
    // One connection to the gateway, and one from there to the screen.
    assert_eq!(record["sockets"], 2, "{record}");
    check_cut(&daemon, capture, "carol", last);
}
