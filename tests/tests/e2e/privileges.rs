//! What the gateway can't do, whoever has captured it.

use std::{collections::BTreeMap, fs, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result};
use enforcer::{
    channel::{BoundRole, ToWarden, Transport},
    clock::{self, Now},
    session::{Credential, Principal, SessionId, SessionKey},
};
use enforcer_tests::{
    Scene,
    client::Pattern,
    daemon::Daemon,
    issuer::{Claims, ISSUER},
    process,
    streams::{check_same, instant},
    wait,
};
use rustix::{
    net::{SocketType, sockopt},
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use serde_json::Value;

/// The numeric id of a user.
fn user_id(name: &str) -> String {
    process::run("id", &["-u", name])
        .expect("a user")
        .trim()
        .to_owned()
}

/// How each attempt of the intruder ended, within the cgroup of the gateway; `None` is success.
fn intrude(
    scene: &Scene,
    daemon: &Daemon<'_>,
    rights: &[&str],
) -> BTreeMap<String, Option<String>> {
    // Where anybody may run it.
    let intruder = scene.bed.path("intruder");
    fs::copy(env!("CARGO_BIN_EXE_intruder"), &intruder).expect("a copy");
    let gateway = daemon.gateway_pid().expect("a gateway");
    let cgroup = fs::read_to_string(format!("/proc/{gateway}/cgroup")).expect("a cgroup");
    let name = cgroup.trim_end().rsplit('/').next().expect("a name");
    let cgroup = scene.config.daemon.cgroup.join(name);
    let config = &scene.config.daemon;
    let output = process::command(scene.bed.daemon(), &cgroup, "setpriv")
        .args(rights)
        .arg(&intruder)
        .args(["--warden", &daemon.pid().to_string()])
        .args(["--gateway", &gateway.to_string()])
        .arg("--bpf-dir")
        .arg(&config.bpf_dir)
        .arg("--state-dir")
        .arg(&config.state_dir)
        .arg("--runtime-dir")
        .arg(&config.runtime_dir)
        .arg("--cgroup")
        .arg(&config.cgroup)
        .output()
        .expect("the intruder ran");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    serde_json::from_slice(&output.stdout).expect("a list of attempts")
}

#[test]
fn nothing_that_an_intruder_with_the_gateways_rights_tries_succeeds() {
    let scene = Scene::new("intruder").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let _bound = client.websocket("/echo", &token).unwrap();

    let as_root = intrude(&scene, &daemon, &["--no-new-privs"]);
    for (attempt, refused) in &as_root {
        assert_eq!(
            *refused, None,
            "even root can't {attempt}: no test of the gateway's rights"
        );
    }
    let as_gateway = intrude(
        &scene,
        &daemon,
        &[
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ],
    );
    assert_eq!(as_gateway.len(), as_root.len());
    for (attempt, refused) in as_gateway {
        assert!(refused.is_some(), "an intruder could {attempt}");
    }
}

/// What a captured gateway says on its channel: the warden gives it nothing that the policy does
/// not, and moves no socket from one session to another.
#[test]
fn a_captured_gateway_gets_no_second_binding_and_no_deadline_past_the_policy() {
    let mut scene = Scene::new("captured").unwrap();
    scene.config.policy().max_session = "1h".to_owned();
    scene.config.policy().idle_timeout = Some("30m".to_owned());
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let soon = wait::whole_second_after(Duration::from_secs(600));
    let session_of = |subject: &str| {
        let claims = Claims::new(subject, soon).with("jti", subject);
        let token = scene.issuer.sign(&claims).unwrap();
        let socket = client.websocket("/echo", &token).unwrap();
        let matches = |record: &Value| record["subject"] == subject && record["role"] == "client";
        let opened = daemon.wait_for_audit("connection_opened", matches).unwrap();
        (socket, opened)
    };
    let (_alices, alice) = session_of("alice");
    let (_bobs, bob) = session_of("bob");
    let session = |record: &Value| {
        record["session"]
            .as_str()
            .unwrap()
            .parse::<SessionId>()
            .unwrap()
    };
    let now = Now::read();
    let principal = Principal {
        issuer: ISSUER.to_owned(),
        subject: "alice".to_owned(),
    };
    let forged = Credential {
        key: SessionKey::from_token_id(&principal, "alice"),
        principal,
        names_session: false,
        authorized_party: None,
        authenticated_at: None,
        expires_at: now
            .wall
            .saturating_add(Duration::from_secs(10 * 365 * 86_400)),
        assumed_expiry: false,
        signing_key: None,
        certificate: None,
    };
    captured(
        daemon.gateway_pid().unwrap(),
        &[
            ToWarden::Bind {
                request: u32::MAX,
                cookie: alice["cookie"].as_u64().unwrap(),
                session: session(&bob),
                role: BoundRole::Client,
                target: None,
            },
            ToWarden::Touch {
                session: session(&alice),
                at: now.boot.saturating_add(Duration::from_secs(3_000)),
            },
            ToWarden::Renew {
                request: u32::MAX,
                session: session(&alice),
                credential: forged,
            },
        ],
    )
    .unwrap();

    // The last of them was heard: it gets what a token may, and no more.
    let renewed = daemon.wait_for_audit("session_renewed", |_| true).unwrap();
    let opened = daemon.wait_for_audit("session_opened", |record| record["subject"] == "alice");
    let start = instant(&opened.unwrap(), "time").unwrap();
    let latest = start.saturating_add(Duration::from_secs(3_600));
    check_same(instant(&renewed, "deadline").unwrap(), latest).unwrap();
    // And the socket is whose it was, as the kernel and the operator see it.
    let bindings = dump(&scene, "BINDINGS");
    let bound = |binding: &&Value| binding["key"] == alice["cookie"];
    let binding = bindings.as_array().unwrap().iter().find(bound).unwrap();
    assert_eq!(binding["value"]["session_id"], session(&alice).as_u64());
    let sessions = dump(&scene, "SESSIONS");
    for entry in sessions.as_array().unwrap() {
        let base = entry["value"]["idle_base_ns"].as_u64().unwrap();
        assert!(
            base <= clock::boot_now().as_nanos(),
            "activity of the future: {entry}"
        );
    }
}

fn dump(scene: &Scene, map: &str) -> Value {
    let pin = scene.bed.bpf_dir().join(map);
    let dump = process::run(
        "bpftool",
        &["map", "dump", "pinned", &pin.to_string_lossy()],
    );
    serde_json::from_str(&dump.expect("a dump")).expect("JSON")
}

/// Says these things on the channel of a gateway, as if it were the gateway.
fn captured(gateway: u32, messages: &[ToWarden]) -> Result<()> {
    let process = i32::try_from(gateway)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let process = pidfd_open(process.context("a process id")?, PidfdFlags::empty())?;
    // The one connected socket that keeps packets apart.
    let is_channel = |socket: &OwnedFd| {
        sockopt::socket_type(socket) == Ok(SocketType::SEQPACKET)
            && sockopt::socket_acceptconn(socket) == Ok(false)
    };
    let channel = (0..100)
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .find(is_channel)
        .context("a channel")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let channel = Transport::new(channel)?;
        for message in messages {
            channel.send(message).await?;
        }
        Ok(())
    })
}

#[test]
fn every_thread_of_the_gateway_is_sealed() {
    let scene = Scene::new("sealed").unwrap();
    let daemon = scene.start().unwrap();
    let gateway = daemon.gateway_pid().unwrap();
    let user = user_id("nobody");
    for thread in fs::read_dir(format!("/proc/{gateway}/task")).unwrap() {
        let thread = thread
            .unwrap()
            .file_name()
            .to_string_lossy()
            .parse()
            .unwrap();
        let field = |name| process::status_field(thread, name).unwrap();
        assert_eq!(
            field("Uid").split_whitespace().collect::<Vec<_>>(),
            [user.as_str(); 4]
        );
        assert_eq!(field("Groups"), "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs"), "1");
        assert_eq!(field("Seccomp"), "2", "a filter is on");
    }
}

#[test]
fn the_gateway_holds_no_map_program_or_link() {
    let scene = Scene::new("descriptors-held").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let socket = client
        .websocket("/echo", &scene.token("alice").unwrap())
        .unwrap();
    let _talk = socket.talk(Pattern::default());
    let held = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let targets = targets.map(|target| target.to_string_lossy().into_owned());
        targets
            .filter(|target| target.contains("bpf"))
            .collect::<Vec<_>>()
    };
    assert_eq!(held(daemon.gateway_pid().unwrap()), [""; 0]);
    assert!(!held(daemon.pid()).is_empty(), "the warden holds the maps");
}

/// The gateway itself is made to call; its own filter answers.
#[cfg(target_arch = "x86_64")]
#[test]
fn system_calls_that_the_gateway_never_needs_are_refused_to_it() {
    use enforcer_tests::captive::Captive;
    use nix::errno::Errno;

    const GETPID: u64 = 39;
    let scene = Scene::new("captive").unwrap();
    let daemon = scene.start().unwrap();
    let warden = u64::from(daemon.pid());
    let gateway = daemon.gateway_pid().unwrap();
    let captive = Captive::new(gateway).unwrap();
    let itself = captive.call(GETPID, [0; 6]).unwrap();
    assert_eq!(itself, Ok(u64::from(gateway)));
    for (name, number, arguments) in [
        ("bpf", 321, [7, 0, 0, 0, 0, 0]),
        ("ptrace", 101, [0x4206, warden, 0, 0, 0, 0]),
        ("process_vm_readv", 310, [warden, 0, 0, 0, 0, 0]),
        ("execve", 59, [0; 6]),
        ("execveat", 322, [0; 6]),
        ("mount", 165, [0; 6]),
        ("unshare", 272, [0x1000_0000, 0, 0, 0, 0, 0]),
        ("setns", 308, [0; 6]),
        ("setuid", 105, [0; 6]),
        ("init_module", 175, [0; 6]),
    ] {
        let refused = captive.call(number, arguments).unwrap();
        assert_eq!(refused, Err(Errno::EPERM), "{name}");
    }
}
