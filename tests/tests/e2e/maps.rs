//! What operators see: the maps by field name, and what is missing when something is.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use enforcer_tests::{Scene, client::Pattern, daemon, process, wait};
use serde_json::Value;

/// A pinned map, as bpftool prints it.
fn dump(map: &Path) -> String {
    let map = map.to_string_lossy();
    process::run("bpftool", &["map", "dump", "pinned", &map]).expect("a dump")
}

/// Everything that is pinned in `folder`, at any depth.
fn pins(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the pins");
    let paths = entries.map(|entry| entry.expect("a pin").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                pins(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn bpftool_prints_sessions_and_connections_by_field_name() {
    let scene = Scene::new("bpftool").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let talk = client
        .websocket("/echo", &scene.token("alice").unwrap())
        .unwrap();
    let _talk = talk.talk(Pattern::default());

    let pins = scene.bed.bpf_dir();
    let sessions = dump(&pins.join("SESSIONS"));
    for field in [
        "deadline_ns",
        "idle_timeout_ns",
        "idle_base_ns",
        "policy_id",
        "mode",
        "state",
    ] {
        assert!(
            sessions.contains(&format!("\"{field}\"")),
            "no {field} in {sessions}"
        );
    }
    let connections = dump(&pins.join("CONNECTIONS"));
    for field in [
        "session_id",
        "opened_at_ns",
        "local_address",
        "remote_port",
        "role",
    ] {
        assert!(
            connections.contains(&format!("\"{field}\"")),
            "no {field} in {connections}"
        );
    }
    let connections: Value = serde_json::from_str(&connections).unwrap();
    let sessions: Value = serde_json::from_str(&sessions).unwrap();
    let id = &sessions[0]["key"];
    let legs = connections.as_array().unwrap().iter();
    let bound = legs.filter(|leg| leg["value"]["session_id"] == *id);
    assert_eq!(bound.count(), 2, "{connections}");
}

#[test]
fn enforcer_maps_shows_them_also_when_the_daemon_is_dead() {
    let scene = Scene::new("maps").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    client
        .get("/headers", &scene.token("alice").unwrap())
        .unwrap();
    daemon.kill_warden().unwrap();

    let maps = daemon::run_cli(&scene.bed, &["maps", "--json"]).unwrap();
    assert_eq!(maps.code, 0, "{maps:?}");
    assert!(maps.stdout.contains("deadline_ns"), "{maps:?}");
    let table = daemon::run_cli(&scene.bed, &["maps"]).unwrap();
    assert!(table.stdout.contains("SESSIONS"), "{table:?}");
}

#[test]
fn status_names_every_pin_that_is_missing() {
    let scene = Scene::new("unpinned").unwrap();
    let daemon = scene.start().unwrap();
    let healthy = daemon.cli(&["status"]).unwrap();
    assert_eq!(healthy.code, 0, "{healthy:?}");

    let pins = pins(&scene.bed.bpf_dir());
    assert!(pins.len() > 8, "{pins:?}");
    for pin in pins {
        fs::remove_file(&pin).unwrap();
        let status = daemon.cli(&["status"]).unwrap();
        assert_eq!(status.code, 1, "without {pin:?}: {status:?}");
        let name = pin.file_name().unwrap().to_string_lossy();
        let report = daemon.cli(&["status", "--json"]).unwrap().json().unwrap();
        assert_eq!(report["enforcing"], false, "{report}");
        assert!(
            report["problems"].to_string().contains(&*name),
            "no {name} in {report}"
        );
    }
}

#[test]
fn status_names_a_link_that_is_detached() {
    let scene = Scene::new("detached").unwrap();
    let daemon = scene.start().unwrap();
    let cgroup = scene.bed.daemon_cgroup().unwrap();
    let attached = process::run(
        "bpftool",
        &["--json", "cgroup", "show", &cgroup.to_string_lossy()],
    );
    let attached: Value = serde_json::from_str(&attached.unwrap()).unwrap();
    let programs = attached.as_array().unwrap().len();
    assert!(programs >= 3, "{attached}");
    let mut detached = 0;
    for pin in pins(&scene.bed.bpf_dir()) {
        let path = pin.to_string_lossy();
        // Fails for what is no link.
        if process::run("bpftool", &["link", "detach", "pinned", &path]).is_err() {
            continue;
        }
        detached += 1;
        let report = daemon.cli(&["status", "--json"]).unwrap();
        assert_eq!(report.code, 1, "without {path}: {report:?}");
        let report = report.json().unwrap();
        let name = pin.file_name().unwrap().to_string_lossy();
        assert!(
            report["problems"].to_string().contains(&*name),
            "no {name} in {report}"
        );
    }
    assert_eq!(detached, programs);
}

#[test]
fn entries_leave_the_maps_when_connections_and_sessions_end() {
    let scene = Scene::new("entries").unwrap();
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(1));
    let token = scene.token_until("alice", deadline).unwrap();
    let talk = client
        .websocket("/echo", &token)
        .unwrap()
        .talk(Pattern::default());
    let pins = scene.bed.bpf_dir();
    assert_ne!(dump(&pins.join("BINDINGS")).trim(), "[]");
    talk.end().unwrap();
    daemon.wait_for_end().unwrap();
    for map in ["SESSIONS", "BINDINGS", "CONNECTIONS", "ACTIVITY"] {
        let what = format!("{map} was empty");
        wait::until(&what, || {
            (dump(&pins.join(map)).trim() == "[]").then_some(())
        })
        .unwrap();
    }
}
