//! PostgreSQL's own programs by way of `enforcer connect`: what a user does who has a token and a
//! database behind the gateway.

use std::{fs, time::Duration};

use enforcer::clock::{Now, WallInstant};
use enforcer_tests::{
    Scene,
    config::Route,
    connect::{Connect, Credential},
    issuer::Claims,
    postgres::{PASSWORD, Pg, Postgres, run},
    wait,
};

const TARGET: &str = "127.0.0.1:5432";

fn scene(label: &str) -> (Scene, Postgres) {
    let mut scene = Scene::new(label).expect("a scene");
    scene.config.routes = vec![Route::tunnel(&[TARGET])];
    scene.config.policy().warn_before = Some("1s".to_owned());
    let identity = scene.authority.server().expect("a certificate");
    let server = Postgres::start(&scene.bed, &identity).expect("PostgreSQL");
    (scene, server)
}

/// What is printed from now on where a user logs in.
fn log_in(scene: &Scene, expires_at: WallInstant) -> String {
    let claims = Claims::new("alice", expires_at).with("sid", "one");
    let token = scene.issuer.sign(&claims).expect("a token");
    let next = scene.bed.write("token.next", token).expect("a file");
    let file = scene.bed.path("token");
    fs::rename(next, &file).expect("a new name");
    format!("cat {}", file.display())
}

/// A client of the local end, within TLS from here to the server.
fn pg<'a>(scene: &'a Scene, connect: &Connect) -> Pg<'a> {
    let mut pg = scene.pg_of_server("alice").expect("a client");
    pg.set("PGHOSTADDR", connect.local().ip());
    pg.set("PGPORT", connect.local().port());
    pg.set("PGPASSWORD", PASSWORD);
    pg
}

#[test]
fn psql_stays_connected_through_a_renewal_and_sees_the_cut() {
    let (scene, _server) = scene("connect-psql");
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let first = wait::whole_second_after(Duration::from_secs(4));
    let last = first.saturating_add(Duration::from_secs(3));
    let login = log_in(&scene, first);
    let connect = Connect::listen(&scene, Credential::TokenCommand(&login), TARGET).unwrap();
    let pg = pg(&scene, &connect);
    let open = || {
        let mut psql = pg.interactive().unwrap();
        psql.write("select 'opened';").unwrap();
        psql.wait_for("opened").unwrap();
        psql
    };
    let (mut busy, mut quiet) = (open(), open());

    log_in(&scene, last);
    connect.wait_for("renewed, for ").unwrap();
    wait::until_wall(first.saturating_add(Duration::from_millis(300)));
    for psql in [&mut busy, &mut quiet] {
        psql.write("select 'still here';").unwrap();
        psql.wait_for("still here").unwrap();
    }
    busy.write("select pg_sleep(30);").unwrap();
    let cut_at = busy.wait_for("connection to server was lost").unwrap();
    assert!(Now::read().wall_at(cut_at) >= last);
    assert_eq!(busy.end().unwrap(), 2);
    // Who says nothing hears nothing, but for the server.
    Postgres::wait_for(&scene.bed, "could not receive data from client").unwrap();
    quiet.write("select 'too late';").unwrap();
    quiet.wait_for("connection to server was lost").unwrap();
    connect.wait_for("the session is over: ").unwrap();
    assert!(!Postgres::log(&scene.bed).contains("too late"));

    // Two to the server, on one to the gateway.
    assert_eq!(daemon.wait_for_end().unwrap()["sockets_reset"], 3);
    let opened = daemon.wait_for_audit("connection_opened", |it| it["role"] == "client");
    let client = opened.unwrap()["client"].as_str().unwrap().parse().unwrap();
    let conversation = capture.finish().unwrap().conversation(client);
    conversation.check_cut(last).unwrap();
}

#[test]
fn pgbench_loses_no_transaction_in_tunnels_that_share_a_connection() {
    let (scene, _server) = scene("connect-pgbench");
    let daemon = scene.start().unwrap();
    let hour = wait::whole_second_after(Duration::from_secs(3600));
    let login = log_in(&scene, hour);
    let connect = Connect::listen(&scene, Credential::TokenCommand(&login), TARGET).unwrap();
    let pg = pg(&scene, &connect);
    let pgbench = |arguments: &[&str]| {
        let output = run(pg.command("pgbench").unwrap().args(arguments)).unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout
    };
    pgbench(&["--initialize", "--quiet", "--scale=1"]);
    let said = pgbench(&["--client=8", "--jobs=2", "--transactions=50"]);
    assert!(said.contains("actually processed: 400/400"), "{said}");
    assert!(said.contains("failed transactions: 0 "), "{said}");
    let history = pg.query("select count(*) from pgbench_history").unwrap();
    assert_eq!(history.stdout.trim(), "400");
    let records = daemon.audit().unwrap();
    let clients = records
        .iter()
        .filter(|it| it["event"] == "connection_opened" && it["role"] == "client");
    assert_eq!(clients.count(), 1);
}
