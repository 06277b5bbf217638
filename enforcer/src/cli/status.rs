//! `enforcer status`: is enforcement on, and if not, what is missing?

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use enforcer_abi::ABI_VERSION;

use super::{
    canary,
    client::{Client, ClientError},
    output::{print, print_json},
    text::{NOTHING, count, duration, or_nothing, printable, table},
};
use crate::{
    audit::ExporterHealth,
    warden::{
        admin::{
            ConfigurationStatus, DaemonStatus, MapStatus, ProgramStatus, StatusReport,
            missing_parts,
        },
        store::StoreHealth,
    },
};

/// What is pinned and attached, as seen without a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Every program that there should be.
    pub programs: Vec<ProgramStatus>,
    /// Every map that there should be.
    pub maps: Vec<MapStatus>,
}

/// Asks the daemon at `socket`; if none runs, `read_pins` says what is left in the kernel. Fails
/// if not everything is as it should be.
///
/// # Errors
/// If a daemon runs and does not answer, or the pins can't be read.
pub fn run(
    socket: &Path,
    json: bool,
    read_pins: impl FnOnce() -> Result<Pins>,
) -> Result<ExitCode> {
    let report = match Client::new(socket)?.get("/v1/status") {
        Ok(report) => report,
        Err(error @ ClientError::NotRunning { .. }) => without_daemon(&error, read_pins()?),
        Err(error) => return Err(error.into()),
    };
    if json {
        print_json(&report)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&report)))?;
    }
    Ok(if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn without_daemon(error: &ClientError, pins: Pins) -> StatusReport {
    let mut problems = vec![error.to_string()];
    problems.extend(missing_parts(&pins.programs, &pins.maps));
    StatusReport {
        enforcing: false,
        problems,
        kernel_release: rustix::system::uname().release().to_string_lossy().into(),
        abi_version: ABI_VERSION,
        programs: pins.programs,
        maps: pins.maps,
        daemon: None,
    }
}

fn for_people(report: &StatusReport) -> String {
    let state = if report.enforcing { "on" } else { "OFF" };
    let mut lines = vec![field("enforcement", state)];
    for problem in &report.problems {
        lines.push(field("problem", &printable(problem)));
    }
    lines.push(field("kernel", &printable(&report.kernel_release)));
    lines.push(field("abi", &report.abi_version.to_string()));
    match &report.daemon {
        Some(daemon) => lines.extend(daemon_lines(daemon)),
        None => lines.push(field("daemon", "not running")),
    }
    lines.push(String::new());
    lines.push(programs_table(&report.programs));
    lines.push(String::new());
    lines.push(maps_table(&report.maps));
    lines.join("\n")
}

fn daemon_lines(daemon: &DaemonStatus) -> Vec<String> {
    let up = duration(daemon.uptime_seconds);
    let mut lines = vec![
        field(
            "daemon",
            &format!("{}, pid {}, up {up}", daemon.version, daemon.pid),
        ),
        field(
            "sessions",
            &format!(
                "{} with {}",
                daemon.sessions,
                count(daemon.connections, "connection")
            ),
        ),
    ];
    if daemon.gateways.is_empty() {
        lines.push(field("gateway", "none"));
    }
    for gateway in &daemon.gateways {
        let sealed = if gateway.sealed {
            "sealed"
        } else {
            "not sealed"
        };
        let state = gateway.state.as_str();
        lines.push(field(
            "gateway",
            &format!("pid {}, {state}, {sealed}", gateway.pid),
        ));
    }
    lines.push(field("config", &configuration(&daemon.configuration)));
    lines.push(field("store", &store(&daemon.store)));
    lines.push(field("audit log", &audit(daemon)));
    for export in &daemon.exports {
        lines.push(field("export", &exporter(export)));
    }
    if let Some(last) = &daemon.canary {
        lines.push(field("canary", &canary::for_people(last)));
    }
    lines
}

fn configuration(configuration: &ConfigurationStatus) -> String {
    let mut text = configuration.path.display().to_string();
    if let Some(version) = configuration.version {
        text += &format!(", version {version}");
    }
    if let Some(applied_at) = configuration.applied_at {
        text += &format!(", applied {applied_at}");
    }
    if configuration.reloading {
        text += ", another is being applied";
    }
    text
}

fn store(store: &StoreHealth) -> String {
    let place = store.path.display().to_string();
    match &store.last_error {
        Some(error) => format!(
            "{place}, {}, {} wait: {error}",
            count(saturating(store.errors), "failed commit"),
            count(saturating(store.queued), "change"),
        ),
        None => place,
    }
}

fn audit(daemon: &DaemonStatus) -> String {
    let audit = &daemon.audit;
    let mut text = format!("{}, {} written", audit.path.display(), audit.written);
    if audit.lost > 0 {
        text += &format!(", {} LOST", audit.lost);
    }
    if let Some(error) = &audit.last_error {
        text += &format!(", {} wait: {error}", audit.queued);
    }
    text
}

fn exporter(export: &ExporterHealth) -> String {
    let ExporterHealth {
        name,
        sequence,
        delivered,
        rejected,
        missed,
        last_error,
        failed: _,
        delivered_at: _,
    } = export;
    let mut text = format!("{name}, {delivered} delivered, up to record {sequence}");
    for (number, what) in [(rejected, "NOT TAKEN"), (missed, "MISSED")] {
        if *number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    if let Some(error) = last_error {
        text += &format!(": {}", printable(error));
    }
    text
}

fn programs_table(programs: &[ProgramStatus]) -> String {
    table(
        &["PROGRAM", "ATTACHED", "PINNED"],
        programs.iter().map(|program| {
            vec![
                program.name.clone(),
                yes_or_no(program.attached),
                yes_or_no(program.pinned),
            ]
        }),
    )
}

fn maps_table(maps: &[MapStatus]) -> String {
    table(
        &["MAP", "PINNED", "ENTRIES", "CAPACITY"],
        maps.iter().map(|map| {
            vec![
                map.name.clone(),
                yes_or_no(map.pinned),
                or_nothing(map.entries),
                or_nothing(map.capacity),
            ]
        }),
    )
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "NO" }.to_owned()
}

fn field(name: &str, value: &str) -> String {
    let value = if value.is_empty() { NOTHING } else { value };
    format!("{name:<12} {value}")
}

fn saturating(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::AuditHealth,
        clock::WallInstant,
        warden::{
            admin::{GatewayState, GatewayStatus},
            canary::CanaryStatus,
        },
    };

    fn pins() -> Pins {
        Pins {
            programs: vec![ProgramStatus {
                name: "egress".to_owned(),
                attached: false,
                pinned: true,
            }],
            maps: vec![MapStatus {
                name: "SESSIONS".to_owned(),
                pinned: false,
                entries: None,
                capacity: None,
            }],
        }
    }

    fn not_running() -> ClientError {
        ClientError::NotRunning {
            socket: "/run/x.sock".into(),
            source: std::io::ErrorKind::NotFound.into(),
        }
    }

    #[test]
    fn without_a_daemon_each_missing_part_has_its_line() {
        let report = without_daemon(&not_running(), pins());
        assert!(!report.enforcing);
        let text = for_people(&report);
        let problems: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("problem "))
            .collect();
        assert_eq!(problems.len(), 3, "{text}");
        assert!(problems[0].contains("/run/x.sock"), "{text}");
        assert!(
            problems[1].ends_with("program egress is not attached"),
            "{text}"
        );
        assert!(
            problems[2].ends_with("map SESSIONS is not pinned"),
            "{text}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["enforcing"], false);
        assert!(json.get("store").is_none());
    }

    #[test]
    fn a_daemon_that_is_well_fits_one_screen() {
        let report = StatusReport {
            enforcing: true,
            problems: Vec::new(),
            kernel_release: "6.1.0".to_owned(),
            abi_version: 1,
            programs: Vec::new(),
            maps: Vec::new(),
            daemon: Some(DaemonStatus {
                version: "0.1.0".to_owned(),
                pid: 10,
                uptime_seconds: 843,
                sessions: 2,
                connections: 1,
                gateways: vec![GatewayStatus {
                    pid: 11,
                    state: GatewayState::Serving,
                    sealed: true,
                }],
                store: StoreHealth {
                    path: "/var/lib/enforcer/enforcer.db".into(),
                    ..StoreHealth::default()
                },
                canary: Some(CanaryStatus {
                    at: WallInstant::from_unix_seconds(0),
                    passed: true,
                    lateness_us: Some(310),
                    failure: None,
                }),
                audit: AuditHealth {
                    path: "/var/lib/enforcer/audit.db".into(),
                    written: 5,
                    lost: 3,
                    ..AuditHealth::default()
                },
                exports: vec![ExporterHealth {
                    name: "siem".to_owned(),
                    sequence: 4,
                    delivered: 4,
                    ..ExporterHealth::default()
                }],
                configuration: ConfigurationStatus {
                    path: "/etc/enforcer/enforcer.toml".into(),
                    version: Some(7),
                    applied_at: Some(WallInstant::from_unix_seconds(0)),
                    ..ConfigurationStatus::default()
                },
            }),
        };
        let text = for_people(&report);
        for line in [
            "enforcement  on",
            "daemon       0.1.0, pid 10, up 14m 03s",
            "sessions     2 with 1 connection",
            "gateway      pid 11, serving, sealed",
            "store        /var/lib/enforcer/enforcer.db",
            "audit log    /var/lib/enforcer/audit.db, 5 written, 3 LOST",
            "export       siem, 4 delivered, up to record 4",
            "canary       passed at 1970-01-01T00:00:00.000000Z, reset 310 us late",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<StatusReport>(&json).unwrap(), report);
    }
}
