//! What TCP sends again after the deadline, because its acknowledgment got lost: the programs alone
//! stop it, also within the packets that a route wraps it into before they see it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use enforcer_tests::{
    Scene, Streams,
    bed::{CABLE, CLIENT_IPV6, DAEMON_IPV6},
    config::MAIN,
    namespace::Namespace,
    process,
    scene::PORT,
    wait,
};

/// Less than it takes until TCP sends something again for the second time.
const BEFORE: Duration = Duration::from_millis(500);

fn ip(scene: &Scene, namespace: &Namespace, words: &str) {
    let mut command = scene.bed.command(namespace, "ip").unwrap();
    let output = command.args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The daemon's packets to the client go within IPv6 with a segment routing header (RFC 8754).
/// Needs a kernel with `CONFIG_IPV6_SEG6_LWTUNNEL`.
fn encapsulate(scene: &Scene) {
    let client = scene.bed.client();
    for interface in ["all", CABLE] {
        let setting = format!("net.ipv6.conf.{interface}.seg6_enabled=1");
        let mut sysctl = scene.bed.command(client, "sysctl").unwrap();
        let output = sysctl.args(["-q", "-w", &setting]).output().unwrap();
        assert!(output.status.success(), "{sysctl:?}: {output:?}");
    }
    let end = "fd00:77::3";
    // Deprecated: nobody connects from it.
    ip(
        scene,
        client,
        &format!("address add {end}/64 dev {CABLE} nodad preferred_lft 0"),
    );
    ip(
        scene,
        scene.bed.daemon(),
        &format!(
            "-6 route add {CLIENT_IPV6}/128 encap seg6 mode encap segs {end} dev {CABLE} mtu 1400"
        ),
    );
}

fn check(label: &str, prepare: fn(&Scene)) {
    let mut scene = Scene::new(label).unwrap();
    let address = SocketAddr::new(DAEMON_IPV6, PORT);
    scene.config.listeners.get_mut(MAIN).unwrap().address = address;
    prepare(&scene);
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let token = scene.token_until("alice", deadline).unwrap();
    let client = scene.client().unwrap().of(address);
    let streams = Streams::start(&client, &token).unwrap();
    let gateway = daemon.gateway_pid().unwrap();
    let lost = format!("-6 route {{}} blackhole {DAEMON_IPV6}/128");
    let lose = |verb: &str| ip(&scene, scene.bed.client(), &lost.replace("{}", verb));

    wait::until_wall(deadline.saturating_sub(BEFORE));
    assert!(streams.are_running());
    lose("add");
    // What is sent from now on has to be sent again.
    wait::until_wall(deadline.saturating_sub(BEFORE * 4 / 5));
    process::stop(gateway).unwrap();
    process::stop(daemon.pid()).unwrap();
    wait::until_wall(deadline.saturating_add(2 * BEFORE));
    lose("del");
    process::resume(gateway).unwrap();
    process::resume(daemon.pid()).unwrap();
    let ended = streams.end().unwrap();

    let wire = capture.finish().unwrap();
    ended.check_eventual_cut(&wire, deadline).unwrap();
    let dropped = daemon.wait_for_end().unwrap()["dropped_packets"].as_u64();
    assert!(dropped > Some(0), "nothing was sent again: {dropped:?}");
}

#[test]
fn nothing_is_sent_again_after_the_deadline() {
    check("again", |_| {});
}

#[test]
fn nothing_is_sent_again_within_other_packets() {
    check("encapsulated", encapsulate);
}
