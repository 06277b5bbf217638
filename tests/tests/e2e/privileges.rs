//! What the gateway can't do, whoever has captured it.

use std::{collections::BTreeMap, fs};

use enforcer_tests::{Scene, client::Pattern, daemon::Daemon, process};

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
    client
        .get("/headers", &scene.token("alice").unwrap())
        .unwrap();

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
