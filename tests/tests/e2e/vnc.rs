//! VNC, of which the gateway understands nothing: a real screen, seen through a tunnel and through
//! a TCP listener, until it is cut.

use std::{net::SocketAddr, path::Path, process::Command};

use enforcer_tests::{
    Scene,
    bed::DAEMON_IPV4,
    certificates::SERVER_NAME,
    config::{self, Route},
    connect::{Connect, Credential},
    process::Process,
    wait,
};

const DISPLAY: &str = ":93";
const VNC_PORT: u16 = 5993;
const TCP_LISTENER: u16 = 8444;
/// Where socat takes VNC clients to the TCP listener. To them it is display 94.
const BRIDGE_PORT: u16 = 5994;
/// Where `enforcer connect` does: display 95.
const TUNNEL_PORT: u16 = 5995;
/// Colour of the screen.
const COLOUR: [u8; 3] = [0xc0, 0x20, 0x40];

/// A screen that is one colour, and its VNC server, in the daemon's namespace.
fn screen(scene: &Scene) -> [Process; 2] {
    let command = |program: &str| {
        let bed = &scene.bed;
        bed.command(bed.daemon(), program).expect("a command")
    };
    let mut xvfb = command("Xvfb");
    xvfb.args([DISPLAY, "-noreset", "-screen", "0", "320x200x24"]);
    let xvfb = Process::spawn(&mut xvfb, "Xvfb").expect("Xvfb");
    wait::until("the screen was painted", || {
        let colour = format!("#{:02x}{:02x}{:02x}", COLOUR[0], COLOUR[1], COLOUR[2]);
        let mut paint = command("xsetroot");
        let paint = paint.args(["-display", DISPLAY, "-solid", &colour]);
        let painted = paint.output().expect("xsetroot");
        painted.status.success().then_some(())
    })
    .expect("a screen");
    let mut x11vnc = command("x11vnc");
    x11vnc
        .args(["-display", DISPLAY, "-rfbport", &VNC_PORT.to_string()])
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
    [xvfb, x11vnc]
}

/// A VNC client that takes pictures, a second apart.
fn snapshots(scene: &Scene, port: u16, count: u32, file: &Path) -> Command {
    let bed = &scene.bed;
    let mut command = bed.command(bed.client(), "vncsnapshot").expect("a command");
    command
        .args(["-quiet", "-allowblank", "-nocursor", "-fps", "1", "-count"])
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
    let _screen = screen(&scene);
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
    let connect =
        Connect::listen_on(&scene, Credential::TokenFile(&token), TUNNEL_PORT, &target).unwrap();
    let picture = scene.bed.path("tunnel.jpg");
    let status = snapshots(&scene, TUNNEL_PORT, 60, &picture)
        .status()
        .unwrap();
    let record = daemon.wait_for_audit("session_ended", |it| it["subject"] == "bob");
    assert_eq!(record.unwrap()["reason"], "deadline");
    assert!(!status.success());
    let taken = |number: u32| scene.bed.path(&format!("tunnel{number:05}.jpg"));
    assert!(shows_the_screen(&taken(0)) && shows_the_screen(&taken(1)));
    assert!(!taken(59).exists());
    connect.wait_for("the session is over").unwrap();
}
