//! The same cut on every kind of address.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use enforcer_tests::{
    Scene, Streams,
    bed::{DAEMON_IPV4, DAEMON_IPV6},
    config::MAIN,
    scene::PORT,
    wait,
};

/// Listens on `listener`, connects to `server`, and expects the cut.
fn check(label: &str, listener: SocketAddr, server: SocketAddr) {
    let mut scene = Scene::new(label).unwrap();
    scene.config.listeners.get_mut(MAIN).unwrap().address = listener;
    let _daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(2));
    let token = scene.token_until("alice", deadline).unwrap();

    let client = scene.client().unwrap().of(server);
    let ended = Streams::start(&client, &token).unwrap().end().unwrap();

    let wire = capture.finish().unwrap();
    ended.check_cut(&wire, deadline).unwrap();
    ended.check_flow(&wire, deadline).unwrap();
}

fn any_address() -> SocketAddr {
    SocketAddr::new("::".parse().unwrap(), PORT)
}

#[test]
fn ipv6_connections_are_cut() {
    let address = SocketAddr::new(DAEMON_IPV6, PORT);
    check("ipv6", address, address);
}

#[test]
fn ipv6_connections_of_a_listener_on_any_address_are_cut() {
    check(
        "any-ipv6",
        any_address(),
        SocketAddr::new(DAEMON_IPV6, PORT),
    );
}

#[test]
fn v4_mapped_connections_are_cut() {
    check(
        "v4-mapped",
        any_address(),
        SocketAddr::new(DAEMON_IPV4, PORT),
    );
}
