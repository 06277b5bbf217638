//! PostgreSQL listeners, with a real server, psql and pgbench: both ways to say who one is, what a
//! session's end looks like, and what counts as activity.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{process::Stdio, time::Duration};

use enforcer::clock::{self, Now, WallInstant};
use enforcer_tests::{
    Scene,
    config::{self, Route},
    daemon::Daemon,
    issuer::Claims,
    postgres::{Pg, Postgres, Proof, run},
    streams::instant,
    wait,
};
use serde_json::Value;

/// A scene whose clients show certificates, and are trusted by the server behind the gateway.
fn by_certificate(label: &str) -> (Scene, Postgres) {
    let mut scene = Scene::new(label).expect("a scene");
    let server = scene.serve_postgres("certificate", None).expect("a server");
    (scene, server)
}

/// A scene whose clients give tokens, and whose gateway logs in with a password.
fn by_token(label: &str) -> (Scene, Postgres) {
    let mut scene = Scene::new(label).expect("a scene");
    let login = scene.login("user", "app").expect("a login");
    let server = scene
        .serve_postgres("token", Some(login))
        .expect("a server");
    (scene, server)
}

/// A client with a certificate of its own.
fn certified<'bed>(scene: &'bed Scene, name: &str) -> Pg<'bed> {
    let identity = scene.authority.client(name).expect("a certificate");
    let proof = Proof::Certificate(&identity, name);
    scene.pg("trusted", &proof).expect("a client")
}

/// A client with a token of its own.
fn with_token<'bed>(scene: &'bed Scene, subject: &str) -> Pg<'bed> {
    let token = scene.token(subject).expect("a token");
    scene.pg("app", &Proof::Password(&token)).expect("a client")
}

/// What the server says of the client's connection: user, application and TLS.
const WHO: &str = "select usename, application_name, ssl from pg_stat_activity \
                   join pg_stat_ssl using (pid) where pid = pg_backend_pid()";

#[track_caller]
fn answer(pg: &Pg<'_>, statement: &str) -> String {
    let output = pg.query(statement).expect("psql");
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.trim().to_owned()
}

/// Where the client's end of the last connection is that the audit log knows of.
fn client_end(daemon: &Daemon<'_>) -> std::net::SocketAddr {
    let records = daemon.audit().expect("the audit log");
    let opened = records
        .iter()
        .rfind(|record| record["event"] == "connection_opened" && record["role"] == "client");
    let address = opened.and_then(|record| record["client"].as_str());
    address.expect("a connection").parse().expect("an address")
}

fn pgbench(pg: &Pg<'_>, arguments: &[&str]) {
    let mut pgbench = pg.command("pgbench").unwrap();
    let output = run(pgbench.args(arguments)).unwrap();
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn psql_and_pgbench_come_in_by_certificate() {
    let (scene, _server) = by_certificate("pg-certificate");
    let daemon = scene.start().unwrap();
    let mut alice = certified(&scene, "alice");
    alice.set("PGAPPNAME", "a program");
    assert_eq!(answer(&alice, WHO), "trusted|a program|f");
    let opened = daemon
        .wait_for_audit("session_opened", |record| record["subject"] == "alice")
        .unwrap();
    assert_eq!(opened["issuer"], "CN=enforcer's test authority");

    pgbench(&alice, &["--initialize", "--quiet", "--scale=1"]);
    for protocol in ["simple", "extended", "prepared"] {
        let protocol = format!("--protocol={protocol}");
        pgbench(&alice, &["-n", "-S", "-c", "2", "-t", "200", &protocol]);
    }
    let pipelined = scene
        .bed
        .write(
            "pipeline.sql",
            "\\startpipeline\nselect 1;\nselect 2;\nselect 3;\n\\endpipeline\n",
        )
        .unwrap();
    let file = pipelined.to_str().unwrap();
    pgbench(&alice, &["-n", "-f", file, "-t", "100", "-M", "extended"]);

    // A client that has to prove itself to the server, too: its answers pass.
    let identity = scene.authority.client("bob").unwrap();
    let mut bob = scene
        .pg("app", &Proof::Certificate(&identity, "bob"))
        .unwrap();
    bob.set("PGPASSWORD", enforcer_tests::postgres::PASSWORD);
    assert_eq!(answer(&bob, "select current_user"), "app");
    bob.set("PGPASSWORD", "not this one");
    let refused = bob.query("select 1").unwrap();
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("password authentication failed"),
        "{refused:?}"
    );
}

#[test]
fn psql_and_pgbench_come_in_by_token_and_the_gateway_logs_in() {
    let (mut scene, _server) = by_token("pg-token");
    scene.encrypt_upstream();
    let route = &mut scene.config.routes[0];
    route
        .more
        .insert("forward_identity".to_owned(), true.into());
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let mut alice = scene.pg("whoever", &Proof::Password(&token)).unwrap();
    alice.set("PGAPPNAME", "a program");
    assert_eq!(answer(&alice, WHO), "app|a program|t");
    let subject = answer(&alice, "select current_setting('enforcer.subject')");
    assert_eq!(subject, "alice");
    let session = answer(&alice, "select current_setting('enforcer.session')");
    let opened = daemon.wait_for_audit("session_opened", |record| record["subject"] == "alice");
    assert_eq!(opened.unwrap()["session"], session.as_str());
    pgbench(&alice, &["--initialize", "--quiet", "--scale=1"]);
    pgbench(
        &alice,
        &["-n", "-S", "-c", "2", "-t", "200", "-M", "prepared"],
    );
    // SCRAM-SHA-256-PLUS: PostgreSQL refuses a client that could bind the channel and did not.
    assert!(Postgres::log(&scene.bed).contains("method=scram-sha-256"));

    for (password, code) in [("", "missing_token"), ("nonsense", "token_malformed")] {
        let mut stranger = scene.pg("app", &Proof::Password(password)).unwrap();
        stranger.set("PGPASSFILE", "/nonexistent");
        let refused = stranger.query("select 1").unwrap();
        assert_eq!(refused.code, 2, "{refused:?}");
        if !password.is_empty() {
            assert!(refused.stderr.contains(code), "{refused:?}");
            daemon
                .wait_for_audit("session_refused", |record| record["reason"] == code)
                .unwrap();
        }
    }
}

#[test]
fn the_user_may_be_the_subject_and_weak_ways_to_log_in_are_not_gone() {
    let (mut scene, _server) = by_token("pg-users");
    let login = scene.login("user_from", "subject").unwrap();
    let route = &mut scene.config.routes[0];
    route.more.insert("login".to_owned(), login.into());
    let _daemon = scene.start().unwrap();
    let login = |subject: &str| {
        let token = scene.token(subject).unwrap();
        let pg = scene.pg("whoever", &Proof::Password(&token)).unwrap();
        pg.query("select current_user").unwrap()
    };
    let alice = login("alice");
    assert_eq!(alice.stdout.trim(), "alice", "{alice:?}");
    for weak in ["md5", "clear", "nobody"] {
        let refused = login(weak);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(
            refused.stderr.contains("upstream_refused_login"),
            "{refused:?}"
        );
    }
}

#[test]
fn an_idle_session_is_told_and_a_query_that_runs_is_not_idle() {
    let (mut scene, _server) = by_certificate("pg-idle");
    let policy = scene.config.policy();
    policy.idle_timeout = Some("2s".to_owned());
    policy.warn_before = Some("900ms".to_owned());
    policy.farewell = Some("300ms".to_owned());
    let daemon = scene.start().unwrap();

    // Longer than the timeout, twice.
    let mut busy = certified(&scene, "busy").interactive().unwrap();
    busy.write("select 'slept', pg_sleep(4.5);").unwrap();

    let mut idle = certified(&scene, "idle").interactive().unwrap();
    idle.write("begin; select 'begun';").unwrap();
    let begun = idle.wait_for("begun").unwrap();
    let closed = daemon
        .wait_for_audit("connection_closed", |record| {
            record["subject"] == "idle" && record["role"] == "client"
        })
        .unwrap();
    let lived = clock::boot_now().saturating_duration_since(begun);
    assert!(lived < Duration::from_secs(3), "{lived:?}");
    assert_eq!(closed["dropped_packets"], 0);
    // The transaction that was open has been given up.
    idle.write("select 'too late';").unwrap();
    idle.wait_for("WARNING:  the session ends in 1 s (idle)")
        .unwrap();
    idle.wait_for("FATAL:  terminating connection: the session was idle")
        .unwrap();
    assert_ne!(idle.end().unwrap(), 0);
    let ended = daemon.wait_for_audit("session_ended", |record| record["subject"] == "idle");
    assert_eq!(ended.unwrap()["reason"], "idle");

    busy.wait_for("slept").unwrap();
    busy.write("select 'still here';").unwrap();
    busy.wait_for("still here").unwrap();
    assert_eq!(busy.end().unwrap(), 0);
    let log = Postgres::log(&scene.bed);
    assert!(!log.contains("unexpected EOF"), "{log}");
}

#[test]
fn the_deadline_is_announced_and_said_in_time() {
    let (mut scene, _server) = by_token("pg-deadline");
    let policy = scene.config.policy();
    policy.max_session = "3s".to_owned();
    policy.warn_before = Some("1500ms".to_owned());
    policy.farewell = Some("300ms".to_owned());
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let pg = scene.pg("app", &Proof::Password(&token)).unwrap();

    let mut polite = pg.interactive().unwrap();
    let mut sleeping = pg.interactive().unwrap();
    sleeping.write("select pg_sleep(30);").unwrap();
    for _ in 0..12 {
        polite.write("select pg_sleep(0.3);").unwrap();
    }
    polite
        .wait_for("WARNING:  the session ends in 2 s (deadline)")
        .unwrap();
    let told = polite
        .wait_for("FATAL:  terminating connection: the session has to end")
        .unwrap();
    sleeping
        .wait_for("FATAL:  terminating connection: the session has to end")
        .unwrap();

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "deadline");
    let deadline = instant(&record, "deadline").unwrap();
    assert!(Now::read().wall_at(told) < deadline);
    // What ran for nobody any more was cancelled.
    Postgres::wait_for(&scene.bed, "canceling statement due to user request").unwrap();
    let refused = pg.query("select 1").unwrap();
    assert!(
        refused.stderr.contains("the session has ended (deadline)"),
        "{refused:?}"
    );
}

/// Cuts a copy that `log_in` starts as alice.
fn check_cut_of_a_copy(mut scene: Scene, log_in: for<'a> fn(&'a Scene, &str) -> Pg<'a>) {
    scene.config.policy().max_session = "3s".to_owned();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let alice = log_in(&scene, "alice");
    let mut psql = alice.psql().unwrap();
    let copy = "copy (select i, pg_sleep(0.01) from generate_series(1, 1000000) i) to stdout";
    let output = run(psql.args(["--command", copy])).unwrap();
    assert_ne!(output.code, 0);

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "deadline");
    assert_eq!(record["subject"], "alice");
    assert_eq!(record["sockets_reset"], 2);
    let deadline = instant(&record, "deadline").unwrap();
    let conversation = capture.finish().unwrap().conversation(client_end(&daemon));
    conversation.check_cut(deadline).expect("a cut");
}

#[test]
fn a_copy_that_flows_is_cut_on_the_wire() {
    let (scene, _server) = by_certificate("pg-cut");
    check_cut_of_a_copy(scene, certified);
}

#[test]
fn a_copy_of_one_who_came_in_by_token_is_cut_on_the_wire() {
    let (scene, _server) = by_token("pg-cut-token");
    check_cut_of_a_copy(scene, with_token);
}

/// A transaction that is open and waits is no activity; it is rolled back when its session is cut.
#[test]
fn an_open_transaction_is_idle_and_is_cut_on_the_wire() {
    let idle_timeout = Duration::from_secs(2);
    let (mut scene, _server) = by_token("pg-idle-token");
    scene.config.policy().idle_timeout = Some("2s".to_owned());
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let mut psql = with_token(&scene, "alice").interactive().unwrap();
    psql.write("create table kept (line text); select 'made';")
        .unwrap();
    psql.wait_for("made").unwrap();
    psql.write("begin; insert into kept values ('lost'); select 'begun';")
        .unwrap();
    let begun = Now::read().wall_at(psql.wait_for("begun").unwrap());

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "idle");
    assert_eq!(record["sockets_reset"], 2);
    let limit = instant(&record, "deadline").unwrap();
    let idle = limit.saturating_duration_since(begun);
    assert!(
        idle > idle_timeout * 3 / 4 && idle < idle_timeout * 5 / 4,
        "idle for {idle:?}"
    );
    psql.write("commit;").unwrap();
    psql.wait_for("server closed the connection").unwrap();
    let conversation = capture.finish().unwrap().conversation(client_end(&daemon));
    conversation.check_cut(limit).unwrap();
    let kept = answer(&with_token(&scene, "bob"), "select count(*) from kept");
    assert_eq!(kept, "0");
}

#[test]
fn ctrl_c_cancels_ones_own_query_and_no_other() {
    for (label, encrypted) in [("pg-cancel", false), ("pg-cancel-tls", true)] {
        let (mut scene, _server) = by_token(label);
        if encrypted {
            scene.encrypt_upstream();
        }
        let daemon = scene.start().unwrap();
        let start = |subject: &str| {
            let token = scene.token(subject).unwrap();
            let pg = scene.pg("app", &Proof::Password(&token)).unwrap();
            let mut psql = pg.interactive().unwrap();
            psql.write("select 'sleeping';").unwrap();
            psql.wait_for("sleeping").unwrap();
            let statement = format!("select '{subject} slept', pg_sleep(2);");
            psql.write(&statement).unwrap();
            Postgres::wait_for(&scene.bed, &statement).unwrap();
            psql
        };
        let bob = start("bob");
        let alice = start("alice");
        alice.interrupt().unwrap();
        alice
            .wait_for("ERROR:  canceling statement due to user request")
            .unwrap();
        bob.wait_for("bob slept").unwrap();
        let mut connections = daemon.audit().unwrap();
        connections.retain(|record| {
            record["event"] == "connection_opened" && record["subject"] == "alice"
        });
        // psql's, and the one that cancelled; to the server likewise.
        assert_eq!(connections.len(), 4, "{connections:#?}");
    }
}

#[test]
fn a_client_that_does_not_read_holds_nothing_but_its_upstream_up() {
    let (scene, _server) = by_certificate("pg-stalled");
    let daemon = scene.start().unwrap();
    let alice = certified(&scene, "alice");
    let copy = "copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout";

    // 100 MB, as fast as they go.
    let mut psql = alice.psql().unwrap();
    let output = run(psql.args(["--command", copy])).unwrap();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout.len(), 100_100_000);
    // A row of 100 MB.
    let row = answer(&alice, "select repeat('x', 100000000)");
    assert_eq!(row.len(), 100_000_000);
    answer(&alice, "create table lines (line text)");
    let file = scene.bed.write("lines", output.stdout).unwrap();
    answer(&alice, &format!("\\copy lines from '{}'", file.display()));
    assert_eq!(answer(&alice, "select count(*) from lines"), "100000");

    // Its output is not read.
    let mut psql = alice.psql().unwrap();
    psql.args([
        "--command",
        "copy (select repeat('x', 1000) from generate_series(1, 10000000)) to stdout",
    ]);
    let mut stalled = psql.stdout(Stdio::piped()).spawn().unwrap();
    wait::until("the server waited for it", || {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
        (answer(&alice, waiting) == "1").then_some(())
    })
    .unwrap();
    let held = daemon.gateway_memory().unwrap();
    assert!(held < 64 * 1024, "the gateway holds {held} KiB");
    assert_eq!(
        answer(&certified(&scene, "bob"), "select 'unharmed'"),
        "unharmed"
    );
    stalled.kill().unwrap();
    stalled.wait().unwrap();
}

fn token_of(scene: &Scene, expires_at: WallInstant) -> String {
    let claims = Claims::new("alice", expires_at).with("sid", "a login of alice's");
    scene.issuer.sign(&claims).expect("a token")
}

#[test]
fn a_newer_token_elsewhere_keeps_a_connection_alive() {
    let (mut scene, _server) = by_token("pg-renew");
    let mut web = scene.config.listeners[config::MAIN].clone();
    web.protocol = "http".to_owned();
    web.identity = None;
    web.address.set_port(8444);
    let web_address = web.address;
    scene.config.listeners.insert("web".to_owned(), web);
    scene.config.routes.push(Route {
        listener: "web".to_owned(),
        ..Route::to(scene.upstream.url())
    });
    scene.config.policy().farewell = Some("250ms".to_owned());
    let daemon = scene.start().unwrap();
    let expiry = wait::whole_second_after(Duration::from_secs(2));
    let first = token_of(&scene, expiry);
    let pg = scene.pg("app", &Proof::Password(&first)).unwrap();
    let open = || {
        let mut psql = pg.interactive().unwrap();
        psql.write("select 'opened';").unwrap();
        psql.wait_for("opened").unwrap();
        psql
    };
    let (mut psql, mut cancelling) = (open(), open());

    let later = expiry.saturating_add(Duration::from_secs(2));
    let client = scene.client().unwrap().of(web_address);
    let renew = "/.well-known/enforcer/session/renew";
    let renewed = client
        .connection()
        .unwrap()
        .post(renew, &token_of(&scene, later), "");
    assert_eq!(renewed.unwrap().status, 200);

    wait::until_wall(expiry.saturating_add(Duration::from_millis(300)));
    psql.write("select 'renewed';\nselect pg_sleep(30);")
        .unwrap();
    psql.wait_for("renewed").unwrap();
    // The key still works, although the token that it was given for has expired.
    cancelling
        .write("select 'cancelled', pg_sleep(30);")
        .unwrap();
    Postgres::wait_for(&scene.bed, "select 'cancelled'").unwrap();
    cancelling.interrupt().unwrap();
    cancelling
        .wait_for("canceling statement due to user request")
        .unwrap();
    psql.wait_for("FATAL:  terminating connection: the credential expires")
        .unwrap();
    let record: Value = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token");
    assert_eq!(instant(&record, "deadline").unwrap(), later);
}

#[test]
fn what_is_no_start_up_is_told_so_recorded_and_harms_nobody() {
    let (scene, _server) = by_certificate("pg-garbage");
    let daemon = scene.start().unwrap();
    let mut alice = certified(&scene, "alice").interactive().unwrap();
    alice.write("select 'before';").unwrap();
    alice.wait_for("before").unwrap();
    let raw = scene.client().unwrap();
    let too_long = [0, 0, 0x27, 0x11, 0, 3, 0, 0];
    let in_the_clear = b"\0\0\0\x14\0\x03\0\0user\0alice\0\0";
    let unknown_key = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";
    for (bytes, sqlstate, code) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "C08P01", "invalid_startup"),
        (&too_long, "C08P01", "invalid_startup"),
        (in_the_clear, "C28000", "plain_postgres"),
        (unknown_key, "", "unknown_cancel_key"),
    ] {
        let connection = raw.tcp().unwrap();
        let local = connection.local().to_string();
        connection.write(bytes).unwrap();
        let (answer, _) = connection.read_to_end().unwrap();
        assert!(answer.contains(sqlstate), "{bytes:?}: {answer:?}");
        assert_eq!(answer.is_empty(), sqlstate.is_empty(), "{answer:?}");
        let ours = |record: &Value| record["reason"] == code && record["client"] == local.as_str();
        daemon.wait_for_audit("session_refused", ours).unwrap();
    }
    alice.write("select 'after';").unwrap();
    alice.wait_for("after").unwrap();
}
