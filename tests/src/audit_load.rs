//! What the audit log takes, and what that costs a request: measured by `cargo xtask bench`.

use std::{thread, time::Duration};

use anyhow::{Result, bail, ensure};
use enforcer::{
    audit::{AuditLog, AuditSettings, Event, Record},
    clock::{self, WallInstant},
    config::{Audit, Daemon},
    session::{Principal, SessionId},
};

use crate::{Scene, wait};

/// Records a second.
const RATE: u64 = 20_000;
/// Records at a time, and how often: that rate.
const AT_ONCE: u64 = 20;
const EVERY: Duration = Duration::from_millis(1);
const SECONDS: u64 = 5;
const REQUESTS: usize = 500;

/// Writes records at [`RATE`], beside requests to a daemon, and prints figures.
pub fn measure() -> Result<()> {
    let scene = Scene::new("audit-load")?;
    let daemon = scene.start()?;
    let mut quiet = requests(&scene)?;
    let log = AuditLog::open(settings(&scene))?;
    let sink = log.sink();
    let load = thread::spawn(move || {
        let mut waits = Vec::new();
        let start = clock::boot_now();
        for round in 0..RATE / AT_ONCE * SECONDS {
            wait::until_instant(start.saturating_add(EVERY * u32::try_from(round).unwrap_or(0)));
            for number in 0..AT_ONCE {
                let record = record(round * AT_ONCE + number);
                let before = clock::boot_now();
                sink.write(record);
                waits.push(clock::boot_now().saturating_duration_since(before));
            }
        }
        let took = clock::boot_now().saturating_duration_since(start);
        (waits, took, sink.health().queued)
    });
    let mut loaded = requests(&scene)?;
    let Ok((mut waits, took, queued)) = load.join() else {
        bail!("the load panicked");
    };
    let health = log.close();
    drop(daemon);
    ensure!(health.lost == 0, "{} records were lost", health.lost);

    let rate = waits.len() as f64 / took.as_secs_f64();
    println!("audit: {rate:.0} records/s for {SECONDS} s, none lost, {queued} waiting at the end");
    report("a record's writer waits", &mut waits);
    report("a request, without", &mut quiet);
    report("a request, beside it", &mut loaded);
    Ok(())
}

fn settings(scene: &Scene) -> AuditSettings {
    let daemon = Daemon {
        state_dir: scene.bed.path("load"),
        ..Daemon::default()
    };
    // A folder that can't be made shows when the log is opened.
    let _ = std::fs::create_dir_all(&daemon.state_dir);
    AuditSettings::new(&daemon, &Audit::within(&daemon.state_dir))
}

/// As the record of a cut is.
fn record(number: u64) -> Record {
    let time = clock::wall_now();
    let mut record = Record::new(time, Event::SessionEnded).because("deadline");
    if let Some(id) = SessionId::from_u64(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1) {
        let principal = Principal {
            issuer: "https://issuer.test".to_owned(),
            subject: format!("user {}", number % 5_000),
        };
        record = record.of(id, &principal);
    }
    record.policies = vec!["main".to_owned()];
    record.client = Some(([192, 0, 2, (number % 250) as u8], 443).into());
    record.deadline = Some(WallInstant::from_unix_seconds(time.as_unix_seconds()));
    record.lateness_us = Some(0);
    record.sockets_reset = Some(2);
    record.dropped_packets = Some(number % 7);
    record
}

/// How long requests take, one after the other on one connection each.
fn requests(scene: &Scene) -> Result<Vec<Duration>> {
    let client = scene.client()?;
    let token = scene.token("alice")?;
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let before = clock::boot_now();
        let answer = client.get("/headers", &token)?;
        ensure!(answer.status == 200, "{}", answer.status);
        took.push(clock::boot_now().saturating_duration_since(before));
    }
    Ok(took)
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let percentile = |hundredths: usize| {
        let rank = (times.len() * hundredths).div_ceil(100).max(1);
        let micros = times[rank - 1].as_secs_f64() * 1e6;
        format!("{micros:.1} us")
    };
    println!(
        "          {what:<24}{:>14}{:>14}{:>14}",
        percentile(50),
        percentile(99),
        percentile(100),
    );
}
