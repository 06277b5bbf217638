//! `enforcer connect`: the client's half of tunnels, with ssh and as a listener.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use enforcer::clock::{self, Now, WallInstant};
use enforcer_tests::{
    Scene,
    client::End,
    config::Route,
    connect::{Connect, Credential, command},
    issuer::Claims,
    process::{self, Process},
    upstream::stream::StreamUpstream,
    wait,
};
use rustix::process::Signal;

fn scene(label: &str) -> (Scene, StreamUpstream) {
    let mut scene = Scene::new(label).expect("a scene");
    scene.config.routes = vec![Route::tunnel(&["127.0.0.1:*", "no-such-host.invalid:80"])];
    scene.config.policy().warn_before = Some("1s".to_owned());
    scene.config.policy().farewell = Some("250ms".to_owned());
    let upstream = StreamUpstream::start(scene.bed.daemon()).expect("an upstream");
    (scene, upstream)
}

/// Puts a token into the file that is read, and replaces the file as a whole.
fn write_token(scene: &Scene, token: &str) -> PathBuf {
    let file = scene.bed.path("token");
    let next = scene.bed.write("token.next", token).expect("a file");
    fs::rename(next, &file).expect("a new name");
    file
}

/// Tokens of one session.
fn token_of_session(scene: &Scene, expires_at: WallInstant) -> String {
    let claims = Claims::new("alice", expires_at).with("sid", "one");
    scene.issuer.sign(&claims).expect("a token")
}

#[test]
fn renewal_keeps_a_tunnel_and_the_cut_is_told() {
    let (scene, upstream) = scene("connect-renew");
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let first = wait::whole_second_after(Duration::from_secs(3));
    let last = first.saturating_add(Duration::from_secs(3));
    let file = write_token(&scene, &token_of_session(&scene, first));
    let mut connect = Connect::listen(
        &scene,
        Credential::TokenFile(&file),
        &upstream.address().to_string(),
    )
    .unwrap();
    let client = scene.client().unwrap().of(connect.local());

    let stream = client.tcp().unwrap();
    stream.write("echo\nfirst\n").unwrap();
    stream.read_until("first\n").unwrap();
    write_token(&scene, &token_of_session(&scene, last));
    connect.wait_for("renewed, for ").unwrap();
    wait::until_wall(first.saturating_add(Duration::from_millis(300)));
    stream.write("still here\n").unwrap();
    stream.read_until("still here\n").unwrap();
    // A second one joins it on the same connection.
    let other = client.tcp().unwrap();
    other.write("echo\nme too\n").unwrap();
    other.read_until("me too\n").unwrap();

    let (_, ending) = stream.read_to_end().unwrap();
    assert_eq!(ending.how, End::Reset);
    assert!(Now::read().wall_at(ending.at) >= last);
    connect.wait_for("the session ends in").unwrap();
    connect.wait_for("the session is over: ").unwrap();
    assert!(connect.process().ended().unwrap().is_none());
    let opened = daemon.audit().unwrap();
    let mut clients = opened
        .iter()
        .filter(|it| it["event"] == "connection_opened" && it["role"] == "client");
    let local = clients.next().unwrap()["client"].as_str().unwrap().parse();
    assert!(clients.next().is_none());
    let wire = capture.finish().unwrap();
    let conversation = wire.conversation(local.unwrap());
    conversation.check_cut(last).unwrap();

    // With a newer token the next connection opens the next session.
    let later = scene.token("alice").unwrap();
    write_token(&scene, &later);
    let next = client.tcp().unwrap();
    next.write("echo\nagain\n").unwrap();
    next.read_until("again\n").unwrap();
    connect.process().signal(Signal::TERM).unwrap();
    assert!(connect.process().wait().unwrap().success());
    assert_eq!(next.read_to_end().unwrap().1.how, End::Reset);
}

#[test]
fn more_tunnels_than_a_connection_takes_are_served_and_renewed() {
    const TUNNELS: usize = 140;
    let (scene, upstream) = scene("connect-many");
    let daemon = scene.start().unwrap();
    let first = wait::whole_second_after(Duration::from_secs(8));
    let hour = first.saturating_add(Duration::from_secs(3600));
    let file = write_token(&scene, &token_of_session(&scene, first));
    let credential = Credential::TokenFile(&file);
    let target = upstream.address().to_string();
    let connect = Connect::listen(&scene, credential, &target).unwrap();
    let client = scene.client().unwrap().of(connect.local());
    let streams = std::iter::repeat_with(|| {
        let stream = client.tcp().unwrap();
        stream.write("echo\nhere\n").unwrap();
        stream.read_until("here\n").unwrap();
        stream
    });
    let streams: Vec<_> = streams.take(TUNNELS).collect();
    assert!(clock::wall_now() < first, "too slow to outlive the token");

    write_token(&scene, &token_of_session(&scene, hour));
    connect.wait_for("renewed, for ").unwrap();
    wait::until_wall(first.saturating_add(Duration::from_millis(300)));
    for stream in &streams {
        stream.write("still here\n").unwrap();
        stream.read_until("still here\n").unwrap();
    }
    let records = daemon.audit().unwrap();
    let clients = records
        .iter()
        .filter(|it| it["event"] == "connection_opened" && it["role"] == "client");
    assert_eq!(clients.count(), 2);
}

#[test]
fn a_tunnel_that_only_listens_is_idle() {
    let (mut scene, upstream) = scene("connect-idle");
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    scene.config.policy().warn_before = None;
    let daemon = scene.start().unwrap();
    let file = write_token(&scene, &scene.token("alice").unwrap());
    let connect = Connect::listen(
        &scene,
        Credential::TokenFile(&file),
        &upstream.address().to_string(),
    )
    .unwrap();
    let stream = scene.client().unwrap().of(connect.local()).tcp().unwrap();
    let began = clock::boot_now();
    stream.write("ticks\n").unwrap();
    let (ticks, ending) = stream.read_to_end().unwrap();
    assert_eq!(ending.how, End::Reset);
    assert!(ticks.len() > 500, "{} bytes", ticks.len());
    let lasted = ending.at.saturating_duration_since(began);
    assert!(
        lasted >= Duration::from_secs(2) && lasted < Duration::from_secs(4),
        "{lasted:?}"
    );
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "idle");
    connect.wait_for("(idle)").unwrap();
    connect.wait_for("the session is over: ").unwrap();
}

fn run(scene: &Scene, token: &Path, target: &str, more: &[&str]) -> Output {
    let mut command = command(scene, Credential::TokenFile(token)).expect("a command");
    command.args(["--stdio", target]).args(more);
    command.output().expect("enforcer connect")
}

#[test]
fn what_goes_wrong_is_told_in_the_exit_code_and_words() {
    let (scene, upstream) = scene("connect-refused");
    let _daemon = scene.start().unwrap();
    let target = upstream.address().to_string();
    let good = write_token(&scene, &scene.token("alice").unwrap());
    let bad = scene.bed.write("bad-token", "no.such.token").unwrap();
    let empty = scene.bed.write("empty-token", "\n").unwrap();
    let other = scene.authority.server().unwrap();
    let (other_ca, _) = other.write(&scene.bed, "other").unwrap();
    let other_ca = other_ca.to_string_lossy();
    let bogus = ["--server-name", "other.test"];
    for (token, target, more, code, said) in [
        (&good, "192.0.2.1:22", &[][..], 77, "target_not_allowed"),
        (
            &good,
            "no-such-host.invalid:80",
            &[],
            1,
            "target_unresolved",
        ),
        (&good, "127.0.0.1:1", &[], 1, "target_unreachable"),
        (&bad, &target, &[], 77, "token_malformed"),
        (&empty, &target, &[], 1, "is no token"),
        (&good, &target, &["--quiet"], 0, ""),
    ] {
        let output = run(&scene, token, target, more);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{target}: {complaint}");
        assert!(complaint.contains(said), "{target}: {complaint}");
        assert!(!complaint.contains("no.such.token"), "{complaint}");
    }
    for (option, value) in [("--ca", &*other_ca), (bogus[0], bogus[1])] {
        let mut command = scene
            .bed
            .command(scene.bed.client(), &binary())
            .expect("a command");
        let gateway = scene.client().unwrap().server().to_string();
        command.args(["connect", "--gateway", &gateway, "--stdio", "--token-file"]);
        command.arg(&good).args([option, value, &target]);
        if option != "--ca" {
            command.arg("--ca").arg(scene.ca_file());
        }
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("certificate"), "{complaint}");
    }
}

/// What it asks the gateway beside its tunnels leaves no connection behind.
#[test]
fn it_keeps_no_connection_that_nobody_authenticates_on() {
    let (mut scene, upstream) = scene("connect-waits");
    scene.config.daemon.pre_authentication_timeout = Some("1s".to_owned());
    scene.config.policy().farewell = Some("0s".to_owned());
    let daemon = scene.start().unwrap();
    let unbound = |count| {
        wait::until("connections closed", || {
            let records = daemon.audit().ok()?;
            let closed = records
                .iter()
                .filter(|it| it["reason"] == "unauthenticated");
            (closed.count() == count).then_some(())
        })
        .unwrap();
    };
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let file = write_token(&scene, &token_of_session(&scene, deadline));
    let target = upstream.address().to_string();
    let connect = Connect::listen(&scene, Credential::TokenFile(&file), &target).unwrap();
    // It has looked whether there is a gateway.
    unbound(1);
    let stream = scene.client().unwrap().of(connect.local()).tcp().unwrap();
    stream.write("ticks\n").unwrap();
    assert_eq!(stream.read_to_end().unwrap().1.how, End::Reset);
    // It has asked why.
    connect.wait_for("the session is over: ").unwrap();
    unbound(2);
    let records = daemon.audit().unwrap();
    assert!(
        records.iter().all(|it| it["event"] != "violation"),
        "{records:#?}"
    );
}

fn binary() -> String {
    let binary = enforcer_tests::daemon::binary().expect("a binary");
    binary.to_string_lossy().into_owned()
}

/// A real sshd in the daemon's namespace.
struct Sshd {
    key: PathBuf,
    _process: Process,
}

impl Sshd {
    const PORT: &str = "2222";

    fn start(scene: &Scene) -> Self {
        let bed = &scene.bed;
        let key = |name: &str| {
            let path = bed.path(name);
            let file = path.to_string_lossy();
            let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", &file];
            process::run("ssh-keygen", &arguments).expect("a key");
            path
        };
        let (host, user) = (key("ssh-host"), key("ssh-user"));
        // It insists on this folder, which packages leave to the service manager.
        fs::create_dir_all("/run/sshd").expect("a folder");
        let mut command = bed
            .command(bed.daemon(), "/usr/sbin/sshd")
            .expect("a command");
        command
            .args(["-D", "-e", "-f", "/dev/null", "-p", Self::PORT, "-h"])
            .arg(host)
            .arg("-o")
            .arg(format!(
                "AuthorizedKeysFile={}",
                user.with_extension("pub").display()
            ));
        for option in [
            "ListenAddress=127.0.0.1",
            "StrictModes=no",
            "UsePAM=no",
            "PidFile=none",
        ] {
            command.args(["-o", option]);
        }
        let process = Process::spawn(&mut command, "sshd").expect("sshd");
        Self {
            key: user,
            _process: process,
        }
    }

    /// Runs a command there, by way of `enforcer connect`.
    fn ssh(&self, scene: &Scene, token: &Path, line: &str) -> Output {
        let gateway = scene.client().expect("a client").server();
        let proxy = format!(
            "ProxyCommand={} connect --gateway {gateway} --server-name enforcer.test --ca {} \
             --token-command 'cat {}' --stdio %h:%p",
            binary(),
            scene.ca_file().display(),
            token.display()
        );
        let mut ssh = scene
            .bed
            .command(scene.bed.client(), "ssh")
            .expect("a command");
        ssh.args(["-F", "/dev/null", "-p", Self::PORT, "-o", &proxy, "-i"])
            .arg(&self.key);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        let ssh = ssh.args(["root@127.0.0.1", line]).stdin(Stdio::null());
        ssh.output().expect("ssh")
    }
}

#[test]
fn ssh_works_through_it_until_it_is_cut() {
    let (mut scene, _upstream) = scene("connect-ssh");
    scene.config.policy().max_session = "4s".to_owned();
    let daemon = scene.start().unwrap();
    let token = write_token(&scene, &scene.token("alice").unwrap());
    let sshd = Sshd::start(&scene);
    let said = wait::until("sshd served", || {
        let output = sshd.ssh(&scene, &token, "echo over there; head -c 3000000 /dev/zero");
        output.status.success().then_some(output.stdout)
    })
    .unwrap();
    assert!(said.starts_with(b"over there\n"));
    assert_eq!(said.len(), 11 + 3_000_000);
    let output = sshd.ssh(&scene, &token, "while sleep 0.1; do echo on; done");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{complaint}");
    assert!(
        complaint.contains("the session is over: deadline"),
        "{complaint}"
    );
    assert!(output.stdout.len() > 6);
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "deadline");
}
