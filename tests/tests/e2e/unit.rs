//! The systemd unit: the rights that it leaves the daemon suffice and none is idle, and the watchdog
//! hears from a warden that works, and only from that one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use enforcer::clock;
use enforcer_tests::{Scene, Streams, daemon::Daemon, process, wait};
use nix::unistd::Group;

const UNIT: &str = include_str!("../../../packaging/enforcer.service");
const GROUP: &str = "adm";
const WATCHDOG: &str = "WATCHDOG=1";

/// What the unit says, once.
fn setting(name: &str) -> &'static str {
    let values: Vec<_> = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .collect();
    let [value] = values[..] else {
        panic!("{name} is there {} times", values.len());
    };
    value
}

fn capabilities() -> Vec<&'static str> {
    setting("CapabilityBoundingSet").split(' ').collect()
}

/// A scene that needs all that the unit gives: a port below 1024, a group for the admin socket.
fn scene(label: &str) -> (Scene, String) {
    let mut scene = Scene::new(label).unwrap();
    scene.config.listener().unwrap().address.set_port(443);
    let text = scene.config.text().unwrap();
    // The daemon's is the unit's, which it finds itself in.
    let without_cgroup = text.lines().filter(|line| !line.starts_with("cgroup = "));
    let text = without_cgroup.collect::<Vec<_>>().join("\n");
    let group = format!("[daemon]\nadmin_group = \"{GROUP}\"\n");
    (scene, text.replace("[daemon]\n", &group))
}

/// The cgroup as `Delegate=` leaves it: made, and the main process in it.
fn cgroup(scene: &Scene) -> PathBuf {
    let tools = scene.bed.tools_cgroup().unwrap();
    tools.with_file_name("enforcer.service")
}

fn start<'a>(scene: &'a Scene, text: &str, held: &[&str]) -> anyhow::Result<Daemon<'a>> {
    let cgroup = cgroup(scene);
    fs::create_dir_all(&cgroup)?;
    let members = cgroup.join("cgroup.procs").display().to_string();
    let held = held.iter().map(|name| {
        let name = name.strip_prefix("CAP_").unwrap();
        format!(",+{}", name.to_lowercase())
    });
    let bounding = format!("--bounding-set=-all{}", held.collect::<String>());
    let enter = r#"echo $$ >"$0" && exec "$@""#;
    let rights = ["setpriv", "--no-new-privs", "--inh-caps=-all", &bounding];
    let wrapper = [&["sh", "-c", enter, &members][..], &rights].concat();
    Daemon::start_within(&scene.bed, text, &wrapper)
}

#[test]
fn the_rights_that_the_unit_gives_suffice_to_serve_and_to_cut() {
    assert_eq!(setting("NoNewPrivileges"), "yes");
    assert_eq!(setting("Delegate"), "yes");
    let (scene, text) = scene("unit");
    let daemon = start(&scene, &text, &capabilities()).unwrap();
    let held = process::status_field(daemon.pid(), "CapEff").unwrap();
    let held = u64::from_str_radix(&held, 16).unwrap();
    assert_eq!(held.count_ones() as usize, capabilities().len());
    let socket = fs::metadata(scene.bed.path("run/admin.sock")).unwrap();
    let group = Group::from_name(GROUP).unwrap().unwrap();
    assert_eq!(socket.gid(), group.gid.as_raw());
    let warden = fs::read_to_string(cgroup(&scene).join("warden/cgroup.procs")).unwrap();
    assert_eq!(warden.trim(), daemon.pid().to_string());
    let status = daemon.cli(&["status"]).unwrap();
    assert_eq!(status.code, 0, "{status:?}");

    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();
    let client = scene.client().unwrap();
    assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    let ended = Streams::start(&client, &token).unwrap().end().unwrap();
    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "token");
}

#[test]
fn none_of_the_rights_that_the_unit_gives_can_be_left_out() {
    let (scene, text) = scene("unit-rights");
    for missing in capabilities() {
        let mut held = capabilities();
        held.retain(|name| *name != missing);
        let refused = start(&scene, &text, &held).unwrap_err();
        let refused = format!("{refused:#}");
        let reason = match missing {
            "CAP_CHOWN" => "admin.sock",
            "CAP_NET_BIND_SERVICE" => ":443",
            _ => missing,
        };
        assert!(refused.contains(reason), "without {missing}: {refused}");
        fs::remove_file(scene.bed.path("daemon.log")).unwrap();
    }
}

/// It has every capability, of which none is good for bpf(2).
#[test]
fn root_of_a_user_namespace_is_told_that_bpf_is_refused() {
    let scene = Scene::new("user-namespace").unwrap();
    let text = scene.config.text().unwrap();
    let wrapper = ["unshare", "--map-root-user"];
    let refused = Daemon::start_within(&scene.bed, &text, &wrapper).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("bpf(2) is refused although"), "{refused}");
    assert!(!refused.contains("CONFIG_"), "{refused}");
}

#[test]
fn the_watchdog_hears_from_a_warden_that_works_and_from_no_other() {
    let patience = setting("WatchdogSec").parse().map(Duration::from_secs);
    let scene = Scene::new("watchdog").unwrap();
    let daemon = scene.start().unwrap();
    let heard = daemon.notifications().unwrap();
    heard.wait_for(WATCHDOG).unwrap();
    let first = clock::boot_now();
    heard.wait_for(WATCHDOG).unwrap();
    // sd_watchdog_enabled(3): at least twice as often as somebody waits for it.
    let gap = clock::boot_now().saturating_duration_since(first);
    assert!(gap < patience.unwrap() / 2, "{gap:?}");

    process::stop(daemon.pid()).unwrap();
    heard.forget().unwrap();
    let said = heard.next(gap * 2 + Duration::from_secs(1)).unwrap();
    assert_eq!(said, None, "from a warden that is stopped");
    process::resume(daemon.pid()).unwrap();
    heard.wait_for(WATCHDOG).unwrap();
}
