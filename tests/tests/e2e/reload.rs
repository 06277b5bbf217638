//! Another configuration for the running daemon: all or nothing, and without a connection lost that
//! it allows.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, io::Write as _, time::Duration};

use enforcer::clock;
use enforcer_tests::{
    Scene, Streams,
    certificates::Authority,
    client::Client,
    config::MAIN,
    daemon::Daemon,
    knocking::Knocking,
    process::{self, send},
    streams, wait,
};
use rustix::process::Signal;
use serde_json::Value;

fn sessions(daemon: &Daemon<'_>) -> Vec<Value> {
    let listing = daemon.cli_by_socket(&["sessions", "--json"]).unwrap();
    listing.json().unwrap().as_array().unwrap().clone()
}

fn status(daemon: &Daemon<'_>) -> Value {
    let status = daemon.cli_by_socket(&["status", "--json"]).unwrap();
    status.json().unwrap()
}

fn is_served(client: &Client, token: &str) -> bool {
    let answer = client.get("/headers", token);
    answer.is_ok_and(|answer| answer.status == 200)
}

#[test]
fn longer_limits_and_another_certificate_are_taken_without_a_connection_lost_or_refused() {
    let mut scene = Scene::new("reload-longer").unwrap();
    scene.config.policy().max_session = "4s".to_owned();
    let daemon = scene.start().unwrap();
    let mut config = scene.config.clone();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let started = clock::boot_now();
    let streams = Streams::start(&client, &token).unwrap();
    let old_gateway = daemon.gateway_pid().unwrap();
    let knocking = Knocking::start(&scene, &client).unwrap();

    let other = Authority::new().unwrap();
    other.server().unwrap().write(&scene.bed, "server").unwrap();
    config.policy().max_session = "1h".to_owned();
    // Where nothing listens yet.
    let mut more = config.listeners[MAIN].clone();
    more.address.set_port(9443);
    config.listeners.insert("more".to_owned(), more.clone());
    let mut route = config.routes[0].clone();
    route.listener = "more".to_owned();
    config.routes.push(route);
    let outcome = daemon.reload(&config.text().unwrap(), &["--json"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = outcome.json().unwrap();
    assert_eq!(outcome["impact"]["lengthened"], 1, "{outcome}");
    assert_eq!(outcome["impact"]["cut"], 0, "{outcome}");
    assert_eq!(outcome["version"], 2, "{outcome}");

    // New connections get the new certificate, on both listeners.
    let roots = other.roots().unwrap();
    for address in [config.listeners[MAIN].address, more.address] {
        let trusting = Client::new(scene.bed.client(), address, roots.clone()).unwrap();
        wait::until("the new gateway served", || {
            is_served(&trusting, &token).then_some(())
        })
        .unwrap();
    }
    assert!(!is_served(&client, &token), "the old certificate is gone");

    wait::until("the old limit had passed", || {
        let passed = clock::boot_now().saturating_duration_since(started);
        (passed > Duration::from_millis(4_500)).then_some(())
    })
    .unwrap();
    assert!(streams.are_running());
    streams.wait_for_data().unwrap();
    assert!(daemon.gateway_pids().unwrap().contains(&old_gateway));
    let (knocks, refused) = knocking.stop().unwrap();
    assert_eq!(refused, 0, "of {knocks} connections");
    assert!(knocks > 10);

    // A listener that is left out is closed, though an old gateway still serves.
    config.listeners.remove("more");
    config.routes.pop();
    let outcome = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let gone = Client::new(scene.bed.client(), more.address, roots).unwrap();
    wait::until("nobody listened there", || {
        let refused = gone
            .connection()
            .is_err_and(|error| format!("{error:#}").contains("Connection refused"));
        refused.then_some(())
    })
    .unwrap();
    streams.wait_for_data().unwrap();
}

#[test]
fn shorter_limits_cut_live_streams_when_they_are_met() {
    let scene = Scene::new("reload-shorter").unwrap();
    let daemon = scene.start().unwrap();
    let mut config = scene.config.clone();
    let capture = scene.capture().unwrap();
    let client = scene.client().unwrap();
    let streams = Streams::start(&client, &scene.token("alice").unwrap()).unwrap();

    config.policy().max_session = "4s".to_owned();
    let outcome = daemon
        .reload(&config.text().unwrap(), &["--max-cut", "0"])
        .unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("1 shortened"), "{outcome:?}");
    assert!(streams.are_running(), "there is time left");

    let ended = streams.end().unwrap();
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "deadline", "{record}");
    let deadline = streams::instant(&record, "deadline").unwrap();
    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
    ended.check_flow(&wire, deadline).unwrap();
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing_and_says_why() {
    let scene = Scene::new("reload-bad").unwrap();
    let daemon = scene.start().unwrap();
    let config = scene.config.clone();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let streams = Streams::start(&client, &token).unwrap();
    let (gateway, before) = (daemon.gateway_pid().unwrap(), sessions(&daemon));

    let taken = std::net::SocketAddr::from(([10, 77, 0, 2], 9444));
    let _squatter = {
        let mut squatter = scene.bed.command(scene.bed.daemon(), "python3").unwrap();
        squatter.args(["-m", "http.server", "-b", "10.77.0.2", "9444"]);
        let squatter = process::Process::spawn(&mut squatter, "the squatter").unwrap();
        let probe = Client::new(scene.bed.client(), taken, scene.authority.roots().unwrap());
        let probe = probe.unwrap();
        wait::until("the port was taken", || {
            let error = format!("{:#}", probe.connection().err()?);
            (!error.contains("refused")).then_some(())
        })
        .unwrap();
        squatter
    };

    let mut bad = config.clone();
    bad.policy().max_session = "8".to_owned();
    let mut restart = config.clone();
    restart.daemon.max_sessions = Some(77);
    let mut listener = config.clone();
    listener.listener().unwrap().address = taken;
    let mut late = config.clone();
    late.daemon.user = "nobody-of-this-name".to_owned();
    let mut key = config.clone();
    key.listener().unwrap().tls.private_key = scene.bed.path("no.key");
    for (config, code, exit, words) in [
        (&bad, "invalid", 64, "`max_session` has no unit: `8`"),
        (&key, "invalid", 64, "no.key"),
        (
            &restart,
            "needs_restart",
            1,
            "set it to the present value, 65536",
        ),
        (&listener, "listener", 1, "Address already in use"),
        (&late, "gateway", 1, "nobody-of-this-name"),
    ] {
        let yes: &[&str] = if code == "listener" { &["--yes"] } else { &[] };
        let outcome = daemon.reload(&config.text().unwrap(), yes).unwrap();
        assert_eq!(outcome.code, exit, "{code}: {outcome:?}");
        assert!(outcome.stderr.contains(words), "{code}: {outcome:?}");
        if exit == 64 {
            let place = format!("{}:", scene.bed.path("enforcer.toml").display());
            assert!(outcome.stderr.starts_with(&place), "{outcome:?}");
            assert!(outcome.stderr.contains("help: "), "{outcome:?}");
        }
        daemon
            .wait_for_audit("config_refused", |record| {
                let detail = record["detail"].as_str().unwrap_or_default();
                record["reason"] == code && detail.contains(words)
            })
            .unwrap();
        let status = status(&daemon);
        assert_eq!(status["configuration"]["refused"]["code"], code, "{status}");
        assert!(
            status["problems"].to_string().contains("refused"),
            "{status}"
        );
        assert!(is_served(&client, &token));
    }
    wait::until("only the old gateway was left", || {
        (daemon.gateway_pids().ok()? == [gateway]).then_some(())
    })
    .unwrap();
    assert_eq!(sessions(&daemon)[0]["deadline"], before[0]["deadline"]);
    streams.wait_for_data().unwrap();

    let outcome = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(daemon.cli(&["status"]).unwrap().code, 0);
    streams.wait_for_data().unwrap();
}

#[test]
fn what_would_cut_too_much_is_told_and_refused_and_what_was_applied_can_be_taken_back() {
    let scene = Scene::new("reload-cut").unwrap();
    let daemon = scene.start().unwrap();
    let mut config = scene.config.clone();
    let client = scene.client().unwrap();
    let tokens = ["alice", "bob"].map(|subject| scene.token(subject).unwrap());
    assert!(tokens.iter().all(|token| is_served(&client, token)));
    let first = config.text().unwrap();

    config.policy().warn_before = Some("30s".to_owned());
    let outcome = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(
        outcome.stdout.contains("2 changed otherwise"),
        "{outcome:?}"
    );

    // Older than this by now.
    config.policy().max_session = "1ms".to_owned();
    config.policy().warn_before = None;
    let short = config.text().unwrap();
    let candidate = scene.bed.write("candidate.toml", &short).unwrap();
    let candidate = candidate.to_str().unwrap();
    let simulated = daemon
        .cli_by_socket(&["policy", "simulate", "--json", "--config", candidate])
        .unwrap();
    assert_eq!(simulated.code, 0, "{simulated:?}");
    let simulated = simulated.json().unwrap();
    assert_eq!(simulated["impact"]["cut"], 2, "{simulated}");
    assert_eq!(simulated["sessions"][0]["effect"], "cut", "{simulated}");
    assert_eq!(simulated["refusals"][0]["code"], "locks_out", "{simulated}");
    assert_eq!(sessions(&daemon).len(), 2);

    let refused = daemon.reload(&short, &["--max-cut", "1"]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("would cut 2 of 2"), "{refused:?}");
    let refused = daemon.reload(&short, &[]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    send(daemon.pid(), Signal::HUP).unwrap();
    daemon
        .wait_for_audit("config_refused", |record| {
            record["reason"] == "locks_out" && record["detail"].to_string().contains("signal")
        })
        .unwrap();
    assert_eq!(sessions(&daemon).len(), 2);

    let history = daemon.cli(&["policy", "history", "--json"]).unwrap();
    let versions = history.json().unwrap();
    assert_eq!(versions.as_array().unwrap().len(), 2, "{versions}");
    assert_eq!(versions[1]["uid"], 0, "{versions}");
    assert!(versions[1]["changes"].to_string().contains("warn_before"));
    let shown = daemon.cli(&["policy", "history", "--show", "1"]).unwrap();
    assert_eq!(shown.stdout, first);
    let back = daemon.cli(&["policy", "rollback", "1"]).unwrap();
    assert_eq!(back.code, 0, "{back:?}");
    assert!(back.stdout.contains("version 3"), "{back:?}");
    let missing = daemon.cli(&["policy", "rollback", "99"]).unwrap();
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(
        missing.stderr.contains("there is no version 99"),
        "{missing:?}"
    );

    let outcome = daemon.reload(&short, &["--yes"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("2 cut"), "{outcome:?}");
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "policy", "{record}");
    assert!(sessions(&daemon).is_empty());
    assert!(!is_served(&client, &tokens[0]), "its session has ended");
}

#[test]
fn a_signal_and_a_watched_file_are_enough() {
    let mut scene = Scene::new("reload-watch").unwrap();
    scene.config.daemon.watch = true;
    let daemon = scene.start().unwrap();
    let mut config = scene.config.clone();
    let applied = |reason: &'static str| {
        daemon
            .wait_for_audit("config_applied", move |record| record["reason"] == reason)
            .unwrap()
    };
    send(daemon.pid(), Signal::HUP).unwrap();
    let record = applied("signal");
    assert!(record["detail"].to_string().contains("files read again"));

    config.policy().max_session = "2h".to_owned();
    daemon.configure(&config.text().unwrap()).unwrap();
    let record = applied("watch");
    assert!(
        record["detail"].to_string().contains("1h to 2h"),
        "{record}"
    );

    daemon.configure("[daemon]\nwatch = 1\n").unwrap();
    let record = daemon
        .wait_for_audit("config_refused", |record| record["reason"] == "invalid")
        .unwrap();
    assert!(record["detail"].to_string().contains(":2:"), "{record}");
}

#[test]
fn files_that_a_watched_one_names_are_watched_and_undo_no_rollback() {
    let mut scene = Scene::new("reload-named").unwrap();
    scene.config.daemon.watch = true;
    let daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    assert!(is_served(&client, &token));
    let mut config = scene.config.clone();
    config.policy().max_session = "2h".to_owned();
    let changed = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(changed.code, 0, "{changed:?}");
    let back = daemon.cli(&["policy", "rollback", "1"]).unwrap();
    assert_eq!(back.code, 0, "{back:?}");

    // As whoever renews certificates writes them. In between they don't belong together.
    let tls = &config.listeners[MAIN].tls;
    let (certificate, private_key) = (tls.certificate.clone(), tls.private_key.clone());
    let others = Authority::named("another").unwrap();
    let renewed = others.server().unwrap();
    fs::write(&private_key, &renewed.private_key).unwrap();
    daemon
        .wait_for_audit("config_refused", |record| record["reason"] == "invalid")
        .unwrap();
    assert!(is_served(&client, &token), "the old one serves on");
    fs::write(&certificate, &renewed.certificate).unwrap();
    let record = daemon
        .wait_for_audit("config_applied", |record| record["reason"] == "watch")
        .unwrap();
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("files read again"), "{detail}");
    wait::until("the new certificate is shown", || {
        client.connection().is_err().then_some(())
    })
    .unwrap();

    // Once the file itself says something else, that counts.
    config.policy().max_session = "3h".to_owned();
    daemon.configure(&config.text().unwrap()).unwrap();
    daemon
        .wait_for_audit("config_applied", |record| {
            record["detail"].to_string().contains("1h to 3h")
        })
        .unwrap();
}

#[test]
fn what_is_only_observed_passes_its_limit_and_is_ended_when_that_is_enforced() {
    let mut scene = Scene::new("reload-observe").unwrap();
    scene.config.policy().max_session = "1s".to_owned();
    let observe = toml::Value::String("observe".to_owned());
    scene
        .config
        .policy()
        .more
        .insert("mode".to_owned(), observe);
    let daemon = scene.start().unwrap();
    let mut config = scene.config.clone();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let streams = Streams::start(&client, &token).unwrap();
    daemon.wait_for_audit("session_observed", |_| true).unwrap();
    streams.wait_for_data().unwrap();

    // Enforced with a limit that is not past: what was observed does not count.
    config.policy().more.clear();
    config.policy().max_session = "1h".to_owned();
    let outcome = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    streams.wait_for_data().unwrap();

    config.policy().max_session = "1s".to_owned();
    let outcome = daemon.reload(&config.text().unwrap(), &["--yes"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    streams.end().unwrap();
    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "policy", "{record}");
    assert_eq!(record["sockets_reset"], 3, "{record}");
}

#[test]
fn a_state_folder_that_cannot_be_written_keeps_no_history_and_holds_nothing_up() {
    let scene = Scene::new("reload-full").unwrap();
    let state = scene.bed.mount_tmpfs("state", 1 << 20, "mode=700").unwrap();
    let daemon = scene.start().unwrap();
    let mut config = scene.config.clone();
    let mut filler = fs::File::create(state.join("filler")).unwrap();
    for size in [4096, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
    config.policy().max_session = "2h".to_owned();
    let outcome = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("not in the history"), "{outcome:?}");
    let status = status(&daemon);
    let problems = status["problems"].to_string();
    assert!(problems.contains("No space left on device"), "{status}");
    drop(filler);
    fs::remove_file(state.join("filler")).unwrap();
    let outcome = daemon.reload(&config.text().unwrap(), &[]).unwrap();
    assert!(outcome.stdout.contains("version 2"), "{outcome:?}");
    assert_eq!(
        fs::read_dir(state.join("configurations")).unwrap().count(),
        2
    );
}

#[test]
fn recorded_pauses_tell_what_other_limits_would_have_meant() {
    let scene = Scene::new("replay").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    assert!(is_served(&client, &token));
    let paused_at = clock::boot_now();
    wait::until("there was a pause", || {
        let paused = clock::boot_now().saturating_duration_since(paused_at);
        (paused > Duration::from_millis(1_700)).then_some(())
    })
    .unwrap();
    assert!(is_served(&client, &token));
    // Recorded at the stop, for a session that lives on; read without a daemon.
    daemon.terminate().unwrap();
    daemon
        .wait_for_audit("session_activity", |record| {
            record["idle_gaps"]["longest"][0]["lasted_ms"].as_u64() > Some(1_500)
        })
        .unwrap();

    let mut config = scene.config.clone();
    for (idle_timeout, cut) in [("1s", 1), ("30s", 0)] {
        config.policy().idle_timeout = Some(idle_timeout.to_owned());
        let candidate = config.text().unwrap();
        let candidate = scene.bed.write("candidate.toml", candidate).unwrap();
        let candidate = candidate.to_str().unwrap();
        let replay = ["policy", "replay", "--json", "--config", candidate];
        let replayed = daemon.cli_by_socket(&replay).unwrap();
        assert_eq!(replayed.code, 0, "{replayed:?}");
        let replayed = replayed.json().unwrap();
        assert_eq!(replayed["total"]["sessions"], 1, "{replayed}");
        assert_eq!(replayed["total"]["cut_idle"], cut, "{replayed}");
        assert_eq!(replayed["total"]["logins_again"], cut, "{replayed}");
    }
}
