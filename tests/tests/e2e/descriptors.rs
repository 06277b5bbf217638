//! A gateway without descriptors waits for some; it neither crashes nor spins.

use std::{fs, thread, time::Duration};

use enforcer_tests::{Scene, daemon::Daemon, process, wait};

const DESCRIPTORS: usize = 64;

/// Processor time of a process so far.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[test]
fn accept_backs_off_at_the_descriptor_limit_and_recovers() {
    let scene = Scene::new("descriptors").unwrap();
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let config = scene.config.text().unwrap();
    let daemon = Daemon::start_within(&scene.bed, &config, &["prlimit", &limit]).unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let socket = client.websocket("/echo", &token).unwrap();
    let gateway = daemon.gateway_pid().unwrap();
    let open = || fs::read_dir(format!("/proc/{gateway}/fd")).unwrap().count();

    let crowd = (0..2 * DESCRIPTORS)
        .map(|_| client.tcp().unwrap())
        .collect::<Vec<_>>();
    wait::until("the gateway had no descriptor left", || {
        (open() + 1 >= DESCRIPTORS).then_some(())
    })
    .unwrap();
    socket.echo("served in the crowd").unwrap();
    let (before, second) = (processor_time(gateway), Duration::from_secs(1));
    thread::sleep(second);
    let spent = processor_time(gateway).saturating_sub(before);
    assert!(spent < second / 2, "{spent:?} of a second spent on waiting");

    drop(crowd);
    assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    socket.echo("served after it").unwrap();
    assert_eq!(daemon.gateway_pid().unwrap(), gateway);
    assert!(process::is_alive(daemon.pid()));
}
