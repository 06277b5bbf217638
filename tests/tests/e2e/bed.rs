//! The bed itself: its peers, its capture and its checks work before the daemon is judged by them.
//! nginx stands where the daemon will.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use enforcer::clock;
use enforcer_tests::{
    Scene,
    bed::{CLIENT_IPV4, DAEMON_IPV4},
    client::{Client, End, Pattern},
    nginx::Nginx,
    process::{self, Process},
    scene::PORT,
    wait,
};
use rustix::process::Signal;

/// nginx in the daemon's place.
fn stand_in(scene: &Scene) -> (Nginx, Client) {
    let certificate = scene.bed.path("server.pem");
    let private_key = scene.bed.path("server.key");
    let servers = format!(
        "server {{
        listen {DAEMON_IPV4}:{PORT} ssl;
        ssl_certificate {};
        ssl_certificate_key {};
        location / {{
            proxy_pass {};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}",
        certificate.display(),
        private_key.display(),
        scene.upstream.url()
    );
    let nginx = Nginx::start(&scene.bed, &servers).unwrap();
    (nginx, scene.client().unwrap())
}

/// Resets every connection of the stand-in's with its clients.
fn reset_all(scene: &Scene) {
    let mut ss = scene.bed.command(scene.bed.daemon(), "ss").unwrap();
    let output = ss
        .args(["--kill", "--tcp", "dst", &CLIENT_IPV4.to_string()])
        .output();
    assert!(output.unwrap().status.success());
}

/// Until then it is still on its way into the bed.
fn wait_for_sleep(pid: u32) {
    wait::until("it slept", || {
        let name = process::status_field(pid, "Name").ok()?;
        (name == "sleep").then_some(())
    })
    .unwrap();
}

#[test]
fn clients_reach_every_page_of_the_upstream() {
    let scene = Scene::new("pages").unwrap();
    let (_nginx, client) = stand_in(&scene);

    let headers = client.get("/headers", "a-token").unwrap();
    assert_eq!(headers.status, 200);
    let headers = headers.json().unwrap();
    assert!(
        headers
            .to_string()
            .contains(r#"["authorization","Bearer a-token"]"#),
        "{headers}"
    );

    let connection = client.connection().unwrap();
    let uploaded = connection.post("/upload", "", vec![b'u'; 100_000]).unwrap();
    assert_eq!(uploaded.body, "100000");
    assert_eq!(scene.upstream.log().uploads()[0].complete, Some(true));

    let whole = client.download("/download?length=50000", "").unwrap();
    assert_eq!(whole.end().unwrap().how, End::Complete);
    let broken = client.download("/break-off", "").unwrap();
    assert_eq!(broken.end().unwrap().how, End::Truncated);
    assert_eq!(client.get("/hang-up", "").unwrap().status, 502);

    client
        .websocket("/echo", "")
        .unwrap()
        .echo("hello")
        .unwrap();
    assert_eq!(
        client.websocket("/ticks", "").unwrap().receive().unwrap(),
        "tick"
    );
}

#[test]
fn curl_reaches_the_upstream() {
    let scene = Scene::new("curl").unwrap();
    let (_nginx, client) = stand_in(&scene);
    let url = format!("https://enforcer.test:{PORT}/download?length=12345");
    let tools = scene.bed.tools_cgroup().unwrap();
    let output = client.curl(&tools, &scene.ca_file(), &[&url]).unwrap();
    assert_eq!(output.stdout.len(), 12_345, "{output:?}");
}

#[test]
fn a_reset_shows_in_the_capture_and_at_the_client() {
    let scene = Scene::new("reset").unwrap();
    let (_nginx, client) = stand_in(&scene);
    let capture = scene.capture().unwrap();
    let download = client.download("/download?rate=100000", "").unwrap();
    let talk = client
        .websocket("/echo", "")
        .unwrap()
        .talk(Pattern::default());
    wait::until("data flowed", || {
        (download.received() > 20_000 && talk.received() > 10).then_some(())
    })
    .unwrap();
    let ends = [download.local(), talk.local()];

    let now = clock::Now::read();
    reset_all(&scene);
    let seen = [download.end().unwrap(), talk.end().unwrap().ending];

    let wire = capture.finish().unwrap();
    for (local, seen) in ends.into_iter().zip(seen) {
        assert_eq!(seen.how, End::Reset);
        assert!(seen.at > now.boot);
        let conversation = wire.conversation(local);
        let reset = conversation.reset().unwrap();
        assert!(reset > now.wall && reset < now.wall_at(seen.at));
        conversation.check_cut(reset).unwrap();
        let too_early = reset.saturating_sub(Duration::from_millis(100));
        conversation.check_cut(too_early).unwrap_err();
    }
}

#[test]
fn nothing_is_left_after_a_panic() {
    let name = std::thread::spawn(|| {
        let scene = Scene::new("panic").unwrap();
        let mut sleeper = scene.bed.command(scene.bed.daemon(), "sleep").unwrap();
        let sleeper = sleeper.arg("60").spawn().unwrap();
        wait_for_sleep(sleeper.id());
        std::panic::panic_any((scene.bed.path(""), sleeper));
    });
    let panic = name.join().unwrap_err();
    let mut payload = panic.downcast::<(PathBuf, Child)>().unwrap();
    let (folder, sleeper) = &mut *payload;
    let name = folder.file_name().unwrap().to_str().unwrap();
    assert!(!folder.exists());
    assert!(!Path::new("/sys/fs/bpf").join(name).exists());
    assert!(
        !Path::new("/run/netns")
            .join(format!("{name}-daemon"))
            .exists()
    );
    assert!(process::ended_by(sleeper.wait().unwrap(), Signal::KILL));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_captive_makes_the_system_calls_it_is_told_to() {
    use enforcer_tests::captive::Captive;
    use nix::errno::Errno;

    const CLOSE: u64 = 3;
    const GETPID: u64 = 39;
    let scene = Scene::new("captive").unwrap();
    let mut sleep = scene.bed.command(scene.bed.daemon(), "sleep").unwrap();
    let sleep = Process::spawn(sleep.arg("60"), "sleep").unwrap();
    wait_for_sleep(sleep.pid());
    let captive = Captive::new(sleep.pid()).unwrap();
    for _ in 0..2 {
        let itself = captive.call(GETPID, [0; 6]).unwrap();
        assert_eq!(itself, Ok(u64::from(sleep.pid())));
        let no_file = captive.call(CLOSE, [9999, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(no_file, Err(Errno::EBADF));
    }
}
