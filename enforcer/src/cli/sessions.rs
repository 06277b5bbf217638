//! `enforcer sessions`: the live sessions, and ending them.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use super::{
    client::Client,
    output::{print, print_json},
    text::{count, duration, or_nothing, printable, table},
};
use crate::{
    policy::Mode,
    session::SessionId,
    warden::admin::{
        ConnectionInfo, RevokeOutcome, RevokeRequest, Selector, SessionDetail, SessionInfo,
    },
};

/// Lists the live sessions of the daemon at `socket`.
///
/// # Errors
/// If it does not answer.
pub fn list(socket: &Path, json: bool) -> Result<ExitCode> {
    let sessions: Vec<SessionInfo> = Client::new(socket)?.get("/v1/sessions")?;
    if json {
        print_json(&sessions)?;
    } else if sessions.is_empty() {
        print(|out| writeln!(out, "no live sessions"))?;
    } else {
        print(|out| writeln!(out, "{}", list_for_people(&sessions)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a live session and its connections.
///
/// # Errors
/// If there is none of this id, or the daemon does not answer.
pub fn show(socket: &Path, id: SessionId, json: bool) -> Result<ExitCode> {
    let detail: SessionDetail = Client::new(socket)?.get(&format!("/v1/sessions/{id}"))?;
    if json {
        print_json(&detail)?;
    } else {
        print(|out| writeln!(out, "{}", detail_for_people(&detail)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends sessions now and says how many, and how many connections went with them. Fails if a single
/// session was named that is not live.
///
/// # Errors
/// If the daemon does not answer.
pub fn revoke(
    socket: &Path,
    selector: Selector,
    reason: Option<String>,
    json: bool,
) -> Result<ExitCode> {
    let named = match &selector {
        Selector::Id(id) => Some(*id),
        Selector::Subject(_) | Selector::All => None,
    };
    let request = RevokeRequest::new(selector, reason);
    let outcome: RevokeOutcome = Client::new(socket)?.post("/v1/revoke", &request)?;
    if json {
        print_json(&outcome)?;
    } else {
        let sessions = count(outcome.sessions, "session");
        let connections = count(outcome.connections, "connection");
        print(|out| writeln!(out, "revoked {sessions} with {connections}"))?;
    }
    if !outcome.durable {
        eprintln!(
            "warning: the store cannot be written: after a restart of the daemon the revoked \
             tokens would be accepted again (see `enforcer status`)"
        );
    }
    match named {
        Some(id) if outcome.sessions == 0 => {
            eprintln!("error: there is no live session {id}");
            Ok(ExitCode::FAILURE)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn list_for_people(sessions: &[SessionInfo]) -> String {
    let header = [
        "ID",
        "SUBJECT",
        "ISSUER",
        "POLICY",
        "STATE",
        "AGE",
        "EXPIRES IN",
        "IDLE IN",
        "CONNECTIONS",
    ];
    table(
        &header,
        sessions.iter().map(|session| {
            vec![
                session.id.to_string(),
                session.subject.clone(),
                session.issuer.clone(),
                session.policies.join(","),
                state(session),
                duration(session.age_seconds),
                duration(session.expires_in_seconds),
                or_nothing(session.idle_in_seconds.map(duration)),
                session.connections.to_string(),
            ]
        }),
    )
}

fn detail_for_people(detail: &SessionDetail) -> String {
    let info = &detail.info;
    let rows = [
        ("session", info.id.to_string()),
        ("subject", printable(&info.subject)),
        ("issuer", printable(&info.issuer)),
        ("policies", info.policies.join(", ")),
        ("state", state(info)),
        ("age", duration(info.age_seconds)),
        (
            "expires in",
            format!("{} ({})", duration(info.expires_in_seconds), info.deadline),
        ),
        ("idle in", or_nothing(info.idle_in_seconds.map(duration))),
        ("connections", detail.connections.len().to_string()),
    ];
    let mut text: Vec<_> = rows
        .iter()
        .map(|(name, value)| format!("{name:<12} {value}"))
        .collect();
    if !detail.connections.is_empty() {
        text.push(String::new());
        text.push(connections_for_people(&detail.connections));
    }
    text.join("\n")
}

fn connections_for_people(connections: &[ConnectionInfo]) -> String {
    table(
        &["COOKIE", "ROLE", "REMOTE", "LOCAL", "OPENED"],
        connections.iter().map(|connection| {
            vec![
                connection.cookie.to_string(),
                connection.role.to_string(),
                connection.remote.to_string(),
                connection.local.to_string(),
                connection.opened_at.to_string(),
            ]
        }),
    )
}

fn state(session: &SessionInfo) -> String {
    match session.mode {
        Mode::Enforce => session.state.as_str().to_owned(),
        Mode::Observe => format!("{} (observed)", session.state.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::ConnectionRole, clock::WallInstant, warden::admin::SessionState};

    fn session() -> SessionInfo {
        SessionInfo {
            id: SessionId::from_u64(0xabc).unwrap(),
            issuer: "https://idp.example".to_owned(),
            subject: "alice".to_owned(),
            policies: vec!["default".to_owned(), "pci".to_owned()],
            mode: Mode::Observe,
            state: SessionState::Expiring,
            age_seconds: 843,
            expires_in_seconds: 57,
            idle_in_seconds: None,
            idle_timeout_seconds: None,
            deadline: WallInstant::from_unix_seconds(0),
            connections: 1,
        }
    }

    #[test]
    fn a_list_is_a_line_each() {
        let text = list_for_people(&[session()]);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = "0000000000000abc alice https://idp.example default,pci expiring (observed) \
                        14m 03s 57s - 1";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_session_is_shown_with_its_connections() {
        let detail = SessionDetail {
            info: session(),
            connections: vec![ConnectionInfo {
                cookie: 77,
                role: ConnectionRole::Client,
                remote: "192.0.2.1:5000".parse().unwrap(),
                local: "192.0.2.2:8443".parse().unwrap(),
                opened_at: WallInstant::from_unix_seconds(0),
            }],
        };
        let text = detail_for_people(&detail);
        assert!(
            text.contains("expires in   57s (1970-01-01T00:00:00.000000Z)"),
            "{text}"
        );
        assert!(text.contains("77      client  192.0.2.1:5000"), "{text}");
    }
}
