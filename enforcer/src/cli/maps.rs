//! `enforcer maps`: the pinned maps, decoded. Needs no daemon.

mod view;

use std::process::ExitCode;

use anyhow::Result;
use enforcer_abi::{Activity, Binding, Connection, Control, Session, Stats, map_name};

use self::view::{BindingView, ConnectionView, MapsView, SessionView, Span};
use super::{
    output::{print, print_json},
    text::{duration, or_nothing, table},
};
use crate::clock::Now;

/// The contents of the pinned maps, as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// `CONTROL`.
    pub control: Control,
    /// `STATS`, summed over the CPUs.
    pub stats: Stats,
    /// `SESSIONS`, by id.
    pub sessions: Vec<(u64, Session)>,
    /// `BINDINGS`, by socket cookie.
    pub bindings: Vec<(u64, Binding)>,
    /// `CONNECTIONS`, by socket cookie.
    pub connections: Vec<(u64, Connection)>,
    /// `ACTIVITY`, by session id.
    pub activity: Vec<(u64, Activity)>,
}

/// Prints the maps as they are at `now`.
///
/// # Errors
/// If standard output can't be written.
pub fn run(maps: &Maps, now: Now, json: bool) -> Result<ExitCode> {
    let view = MapsView::new(maps, now);
    if json {
        print_json(&view)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&view)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(view: &MapsView) -> String {
    [
        section(map_name::CONTROL, None, control_table(view)),
        section(
            map_name::SESSIONS,
            Some(view.sessions.len()),
            sessions_table(&view.sessions),
        ),
        section(
            map_name::BINDINGS,
            Some(view.bindings.len()),
            bindings_table(&view.bindings),
        ),
        section(
            map_name::CONNECTIONS,
            Some(view.connections.len()),
            connections_table(&view.connections),
        ),
        section(map_name::STATS, None, stats_table(view)),
    ]
    .join("\n\n")
}

fn section(name: &str, entries: Option<usize>, table: String) -> String {
    match entries {
        None => format!("{name}\n{table}"),
        Some(0) => format!("{name}: empty"),
        Some(entries) => format!("{name}: {entries}\n{table}"),
    }
}

fn control_table(view: &MapsView) -> String {
    let control = &view.control;
    table(
        &["ABI", "MODE", "PRE-AUTHENTICATION TIMEOUT"],
        [vec![
            control.abi_version.to_string(),
            control.mode.clone(),
            duration(control.pre_authentication_timeout_ns / NANOS_PER_SECOND),
        ]],
    )
}

fn sessions_table(sessions: &[SessionView]) -> String {
    table(
        &[
            "ID",
            "STATE",
            "MODE",
            "POLICY",
            "ACTIVITY",
            "DEADLINE",
            "IDLE LIMIT",
            "EXPIRY LATCHED",
        ],
        sessions.iter().map(|session| {
            vec![
                session.id.clone(),
                session.state.clone(),
                session.mode.clone(),
                session.policy_id.to_string(),
                session.activity.clone(),
                span(session.deadline_in),
                or_nothing(session.idle_in.map(span)),
                or_nothing(session.expired_in.map(span)),
            ]
        }),
    )
}

fn bindings_table(bindings: &[BindingView]) -> String {
    table(
        &["COOKIE", "SESSION", "ROLE"],
        bindings.iter().map(|binding| {
            vec![
                binding.cookie.to_string(),
                or_nothing(binding.session.clone()),
                binding.role.clone(),
            ]
        }),
    )
}

fn connections_table(connections: &[ConnectionView]) -> String {
    table(
        &[
            "COOKIE",
            "SESSION",
            "ROLE",
            "REMOTE",
            "LOCAL",
            "OPENED",
            "CLOSED",
            "RECEIVED",
            "SENT",
            "DROPPED PACKETS",
        ],
        connections.iter().map(|connection| {
            let closed = connection.closed_in.is_some();
            vec![
                connection.cookie.to_string(),
                or_nothing(connection.session.clone()),
                connection.role.clone(),
                connection.remote.to_string(),
                connection.local.to_string(),
                span(connection.opened_in),
                or_nothing(connection.closed_in.map(span)),
                or_nothing(closed.then_some(connection.bytes_received)),
                or_nothing(closed.then_some(connection.bytes_acknowledged)),
                connection.dropped_packets.to_string(),
            ]
        }),
    )
}

fn stats_table(view: &MapsView) -> String {
    table(
        &["COUNTER", "VALUE"],
        view.stats
            .named()
            .map(|(name, value)| vec![name.to_owned(), value.to_string()]),
    )
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn span(span: Span) -> String {
    match span {
        Span::Ahead(ahead) => format!("in {}", duration(ahead.as_secs())),
        Span::Past(past) => format!("{} ago", duration(past.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use enforcer_abi::{ActivityKind, Mode, Role, SessionState};

    use super::*;
    use crate::clock::{BootInstant, WallInstant};

    const SECOND: u64 = NANOS_PER_SECOND;

    fn now() -> Now {
        Now {
            boot: BootInstant::from_nanos(1_000 * SECOND),
            wall: WallInstant::from_unix_seconds(1_000),
        }
    }

    /// As the kernel stores addresses: words whose bytes in memory are the address's.
    fn words(address: &str) -> [u32; 4] {
        let octets = match address.parse().unwrap() {
            std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(address) => address.octets(),
        };
        let word = |at: usize| u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap());
        [word(0), word(4), word(8), word(12)]
    }

    fn maps() -> Maps {
        let mut maps = Maps {
            control: Control {
                abi_version: 1,
                mode: Mode::Enforce.code(),
                pre_authentication_timeout_ns: 10 * SECOND,
            },
            ..Maps::default()
        };
        maps.stats.dropped_idle = 7;
        maps.sessions.push((
            0xabc,
            Session {
                deadline_ns: 1_843 * SECOND,
                idle_timeout_ns: 300 * SECOND,
                idle_base_ns: 600 * SECOND,
                policy_id: 2,
                mode: Mode::Enforce.code(),
                activity: ActivityKind::Payload.code(),
                state: SessionState::Active.code(),
            },
        ));
        maps.activity.push((
            0xabc,
            Activity {
                last_client_payload_at_ns: 650 * SECOND,
                expired_at_ns: 950 * SECOND,
                observed_at_ns: 0,
                first_drop_at_ns: 0,
            },
        ));
        maps.bindings.push((
            77,
            Binding {
                session_id: 0xabc,
                role: Role::Client.code(),
                padding: 0,
            },
        ));
        maps.connections.push((
            77,
            Connection {
                session_id: 0,
                opened_at_ns: 940 * SECOND,
                local_address: words("2001:db8::1"),
                local_port: 8_443,
                remote_address: words("192.0.2.1"),
                remote_port: 5_000,
                role: 99,
                ..Connection::default()
            },
        ));
        maps
    }

    #[test]
    fn people_see_names_and_times_that_count() {
        let text = for_people(&MapsView::new(&maps(), now()));
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for expected in [
            "1 enforce 10s",
            "SESSIONS: 1",
            "0000000000000abc active enforce 2 payload in 14m 03s 50s ago 50s ago",
            "77 0000000000000abc client",
            "77 - unknown (99) 192.0.2.1:5000 [2001:db8::1]:8443 1m 00s ago - - - 0",
            "dropped_idle 7",
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected}\n{text}"
            );
        }
    }

    #[test]
    fn programs_see_instants_of_both_clocks() {
        let json = serde_json::to_value(MapsView::new(&maps(), now())).unwrap();
        let session = &json["sessions"][0];
        assert_eq!(session["id"], "0000000000000abc");
        assert_eq!(session["deadline_ns"], 1_843 * SECOND);
        assert_eq!(session["deadline"], "1970-01-01T00:30:43.000000Z");
        assert_eq!(session["idle_timeout_ns"], 300 * SECOND);
        assert_eq!(session["last_client_payload_at_ns"], 650 * SECOND);
        assert_eq!(session["state"], "active");
        let connection = &json["connections"][0];
        assert_eq!(connection["remote"], "192.0.2.1:5000");
        assert_eq!(connection["closed_at_ns"], 0);
        assert!(connection.get("session").is_none());
        assert_eq!(json["stats"]["dropped_idle"], 7);
        assert_eq!(json["control"]["mode"], "enforce");
    }

    #[test]
    fn empty_maps_say_so() {
        let text = for_people(&MapsView::new(&Maps::default(), now()));
        assert!(
            text.contains("\n\nSESSIONS: empty\n\nBINDINGS: empty\n"),
            "{text}"
        );
    }
}
