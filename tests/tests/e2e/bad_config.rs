//! `enforcer check` says what is wrong, where, and what to write instead.

use enforcer_tests::{Scene, config::MAIN, daemon};

/// Checks the scene's configuration after `change` to its text: exit 64, and an error that names
/// the file, the line where `mark` stands, and each of `words`, and says what to write instead.
#[track_caller]
fn wrong(scene: &Scene, change: impl Fn(&str) -> String, mark: &str, words: &[&str]) {
    let text = change(&scene.config.text().expect("a configuration"));
    let line = text
        .lines()
        .position(|line| line.contains(mark))
        .expect("the mark")
        + 1;
    let file = scene.bed.write("enforcer.toml", &text).expect("written");
    let complaint = complaint(scene);
    let place = format!("{}:{line}:", file.display());
    for word in [place.as_str()].iter().chain(words) {
        assert!(complaint.contains(word), "no {word:?} in: {complaint}");
    }
}

/// What `enforcer check` says of the scene's file, which is to be wrong, and how to mend it.
#[track_caller]
fn complaint(scene: &Scene) -> String {
    let checked = daemon::run_cli(&scene.bed, &["check"]).expect("an answer");
    assert_eq!(checked.code, 64, "{checked:?}");
    assert_eq!(checked.stdout, "");
    let mend = checked.stderr.lines().find_map(|line| {
        let (_, mend) = line.split_once("help: ")?;
        Some(mend.trim())
    });
    assert!(
        mend.is_some_and(|mend| !mend.is_empty()),
        "no mend in: {}",
        checked.stderr
    );
    checked.stderr
}

fn unchanged(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_good_configuration_passes() {
    let scene = Scene::new("good").unwrap();
    scene
        .bed
        .write("enforcer.toml", scene.config.text().unwrap())
        .unwrap();
    let checked = daemon::run_cli(&scene.bed, &["check"]).unwrap();
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
fn a_key_with_a_typo() {
    let scene = Scene::new("typo").unwrap();
    let typo = |text: &str| text.replace("max_session =", "idle_timout = \"5m\"\nmax_session =");
    wrong(
        &scene,
        typo,
        "idle_timout",
        &["idle_timout", "idle_timeout"],
    );
}

#[test]
fn text_that_is_no_toml() {
    let scene = Scene::new("toml").unwrap();
    wrong(
        &scene,
        |text| format!("{text}\n[[broken\n"),
        "[[broken",
        &[],
    );
}

#[test]
fn a_missing_configuration() {
    let scene = Scene::new("missing").unwrap();
    let file = scene.bed.path("enforcer.toml").display().to_string();
    let complaint = complaint(&scene);
    assert!(complaint.contains(&file), "{complaint}");
}

#[test]
fn a_file_that_is_missing() {
    let mut scene = Scene::new("no-file").unwrap();
    let gone = scene.bed.path("gone.pem");
    scene
        .config
        .listeners
        .get_mut(MAIN)
        .unwrap()
        .tls
        .certificate = gone;
    wrong(&scene, unchanged, "gone.pem", &["gone.pem"]);
}

#[test]
fn a_key_that_can_not_be_read() {
    let mut scene = Scene::new("bad-key").unwrap();
    let key = scene.bed.write("bad.key", "no key at all").unwrap();
    scene
        .config
        .listeners
        .get_mut(MAIN)
        .unwrap()
        .tls
        .private_key = key;
    wrong(&scene, unchanged, "bad.key", &["bad.key"]);
}

#[test]
fn a_key_that_belongs_to_another_certificate() {
    let mut scene = Scene::new("mismatch").unwrap();
    let other = scene.authority.server().unwrap();
    let key = scene.bed.write("other.key", other.private_key).unwrap();
    scene
        .config
        .listeners
        .get_mut(MAIN)
        .unwrap()
        .tls
        .private_key = key;
    wrong(&scene, unchanged, "other.key", &["other.key"]);
}

#[test]
fn keys_of_an_issuer_that_are_none() {
    let scene = Scene::new("bad-jwks").unwrap();
    scene
        .bed
        .write("jwks.json", r#"{"keys": [{"kty": "EC"}]}"#)
        .unwrap();
    wrong(&scene, unchanged, "jwks.json", &["jwks.json"]);
}

#[test]
fn two_routes_that_collide() {
    let mut scene = Scene::new("collision").unwrap();
    let mut second = scene.config.routes[0].clone();
    second.upstream = "http://127.0.0.1:9999".to_owned();
    scene.config.routes.push(second);
    let text = scene.config.text().unwrap();
    let line = text.lines().count()
        - text
            .lines()
            .rev()
            .position(|line| line == "[[routes]]")
            .unwrap();
    let file = scene.bed.write("enforcer.toml", text).unwrap();
    let complaint = complaint(&scene);
    let place = format!("{}:", file.display());
    let (_, named) = complaint.split_once(&place).expect("the file's name");
    let named = named
        .split(':')
        .next()
        .unwrap()
        .parse::<usize>()
        .expect("a line");
    assert!(
        named >= line,
        "{complaint} is before the second route, line {line}"
    );
}

#[test]
fn a_route_to_a_policy_that_is_not_there() {
    let mut scene = Scene::new("no-policy").unwrap();
    scene.config.routes[0].policy = "mian".to_owned();
    wrong(&scene, unchanged, "mian", &["mian", "main"]);
}

#[test]
fn durations_that_are_negative_absurd_or_without_a_unit() {
    for duration in ["-5m", "0s", "900000000000000000y", "400y", "15", "soon"] {
        let mut scene = Scene::new("duration").unwrap();
        scene.config.policy().max_session = duration.to_owned();
        wrong(&scene, unchanged, "max_session", &["max_session"]);
    }
}

#[test]
fn an_algorithm_that_signs_nothing() {
    let mut scene = Scene::new("none").unwrap();
    scene.config.identity.jwt[0].algorithms = vec!["none".to_owned()];
    wrong(&scene, unchanged, "algorithms", &["none"]);
}

/// A scene with a TCP listener.
fn tcp(label: &str) -> Scene {
    let mut scene = Scene::new(label).expect("a scene");
    scene
        .serve_tcp("tcp://127.0.0.1:5432")
        .expect("a TCP listener");
    scene
}

#[test]
fn a_tcp_listener_that_can_not_know_its_clients() {
    let mut scene = tcp("tcp-no-ca");
    scene.config.listener().unwrap().tls.client_ca = None;
    wrong(&scene, unchanged, "protocol = \"tcp\"", &["client_ca"]);
}

#[test]
fn a_tcp_route_with_what_only_requests_have() {
    let mut scene = tcp("tcp-path");
    scene.config.routes[0].path = Some("/admin".to_owned());
    wrong(&scene, unchanged, "path = ", &["`path`", "TCP listener"]);
}

#[test]
fn listeners_and_upstreams_that_carry_different_things() {
    let mut scene = tcp("tcp-http");
    scene.config.routes[0].upstream = "http://127.0.0.1:5432".to_owned();
    wrong(&scene, unchanged, "upstream = ", &["`tcp://`"]);
    let mut scene = Scene::new("http-tcp").unwrap();
    scene.config.routes[0].upstream = "tls://127.0.0.1:5432".to_owned();
    wrong(&scene, unchanged, "upstream = ", &["`https://`"]);
}

#[test]
fn clients_that_would_be_announced_on_shared_connections() {
    let mut scene = Scene::new("shared").unwrap();
    scene.config.routes[0].proxy_protocol = Some("v2".to_owned());
    let words = ["upstream_pool = \"session\""];
    wrong(&scene, unchanged, "proxy_protocol", &words);
}

#[test]
fn run_refuses_what_check_refuses() {
    let mut scene = Scene::new("run").unwrap();
    scene.config.policy().max_session = "-5m".to_owned();
    let refused = scene.start().unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("exit status: 64"), "{refused}");
    assert!(refused.contains("max_session"), "{refused}");
    assert!(!scene.bed.bpf_dir().exists());
}
