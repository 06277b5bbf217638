use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use super::*;
use crate::{
    audit::{AuditLog, AuditSettings, DATABASE_NAME, Event, Record},
    clock::WallInstant,
    policy::Mode,
    session::SessionId,
};

const LIVE: u64 = 0xabc;

fn info() -> SessionInfo {
    SessionInfo {
        id: SessionId::from_u64(LIVE).unwrap(),
        issuer: "https://idp.example".to_owned(),
        subject: "alice".to_owned(),
        policies: vec!["default".to_owned()],
        mode: Mode::Enforce,
        state: SessionState::Active,
        age_seconds: 1,
        expires_in_seconds: 2,
        idle_in_seconds: None,
        idle_timeout_seconds: None,
        deadline: WallInstant::from_unix_seconds(0),
        connections: 0,
    }
}

/// Answers like a warden with one session, until the server stops.
fn core(mut commands: mpsc::Receiver<AdminCommand>) {
    while let Some(command) = commands.blocking_recv() {
        match command {
            AdminCommand::Sessions { reply } => reply.send(vec![info()]).unwrap(),
            AdminCommand::Session { id, reply } => reply
                .send((id.as_u64() == LIVE).then(|| SessionDetail {
                    info: info(),
                    connections: Vec::new(),
                }))
                .unwrap(),
            AdminCommand::Revoke {
                selector,
                reason,
                peer,
                reply,
            } => {
                assert_eq!(selector, Selector::Subject("alice".to_owned()));
                assert_eq!(reason.as_deref(), Some("stolen"));
                assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
                reply
                    .send(RevokeOutcome {
                        sessions: 1,
                        connections: 2,
                        durable: true,
                    })
                    .unwrap();
            }
            AdminCommand::Unload { reply, .. } => reply
                .send(Err(CommandFailed("a link is stuck".to_owned())))
                .unwrap(),
            AdminCommand::Reload { request, reply, .. } => {
                assert_eq!(request.max_cut, Some(1));
                let message = "c.toml:1: bad\nhelp: mend it";
                let refused = ReloadRefused::new(RefusalCode::Invalid, message);
                reply.send(Err(refused)).unwrap();
            }
            AdminCommand::Simulate { reply, .. } => drop(reply),
            AdminCommand::Metrics { reply } => reply.send("# no figures\n".to_owned()).unwrap(),
            // The core is in trouble.
            AdminCommand::Canary { reply } => drop(reply),
            AdminCommand::Status { reply } => drop(reply),
        }
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    server: AdminServer,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            socket: folder.path().join("admin.sock"),
            group: None,
            audit_log: folder.path().join(DATABASE_NAME),
            history: PathBuf::new(),
        };
        let (commands, receiver) = mpsc::channel(8);
        thread::spawn(|| core(receiver));
        let server = AdminServer::start(settings, commands).unwrap();
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn send(&self, head: &str, body: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path("admin.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: x\r\nte: trailers\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    /// Status and body.
    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut answer = String::new();
        self.send(head, body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

fn append(folder: &Path, second: i64, event: Event) {
    let record = Record::new(WallInstant::from_unix_seconds(second), event);
    let log = AuditLog::open(AuditSettings::within(folder)).unwrap();
    log.sink().write(record);
    log.close();
}

#[test]
fn requests_become_commands_and_answers_json() {
    let fixture = Fixture::new();
    let (status, body) = fixture.ask("GET /v1/sessions", "");
    assert_eq!(status, 200);
    let listed: Vec<SessionInfo> = serde_json::from_str(&body).unwrap();
    assert_eq!(listed, [info()]);

    let (status, body) = fixture.ask("GET /v1/sessions/0000000000000abc", "");
    assert_eq!(status, 200);
    assert!(serde_json::from_str::<SessionDetail>(&body).is_ok());

    let request = r#"{"subject":"alice","reason":"stolen"}"#;
    let (status, body) = fixture.ask("POST /v1/revoke", request);
    assert_eq!(
        (status, &*body),
        (200, r#"{"sessions":1,"connections":2,"durable":true}"#)
    );
    fixture.server.stop();
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_code() {
    let fixture = Fixture::new();
    for (head, body, status, code) in [
        ("GET /v1/nothing", "", 404, "not_found"),
        ("GET /v1/sessions/abc", "", 400, "bad_request"),
        ("GET /v1/sessions/0000000000000001", "", 404, "not_found"),
        ("DELETE /v1/sessions", "", 405, "method_not_allowed"),
        ("GET /v1/revoke", "", 405, "method_not_allowed"),
        ("POST /v1/revoke", "", 400, "bad_request"),
        ("POST /v1/revoke", "{}", 400, "bad_request"),
        ("POST /v1/revoke", r#"{"al":true}"#, 400, "bad_request"),
        (
            "POST /v1/revoke",
            r#"{"all":true,"subject":"a"}"#,
            400,
            "bad_request",
        ),
        ("POST /v1/unload", "", 500, "internal"),
        ("GET /v1/status", "", 503, "unavailable"),
        ("GET /v1/audit", "", 503, "unavailable"),
        ("GET /v1/audit?since=yesterday", "", 400, "bad_request"),
        ("GET /v1/audit?event=nothing", "", 400, "bad_request"),
        ("GET /v1/audit?folow=true", "", 400, "bad_request"),
        ("GET /v1/audit?address=nowhere", "", 400, "bad_request"),
        ("GET /v1/audit?limit=few", "", 400, "bad_request"),
    ] {
        let (found, answer) = fixture.ask(head, body);
        assert_eq!(found, status, "{head} {body}: {answer}");
        let error: ApiError = serde_json::from_str(&answer).unwrap();
        assert_eq!(error.code, code, "{head} {body}");
    }
    let long = format!("{{\"subject\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(fixture.ask("POST /v1/revoke", &long).0, 400);
}

#[test]
fn the_socket_is_for_root_alone_and_replaces_what_a_dead_daemon_left() {
    let fixture = Fixture::new();
    let socket = fixture.path("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (commands, _core) = mpsc::channel(1);
    let mut settings = Settings {
        socket: socket.clone(),
        group: None,
        audit_log: fixture.path(DATABASE_NAME),
        history: PathBuf::new(),
    };
    let successor = AdminServer::start(settings.clone(), commands.clone()).unwrap();
    assert!(UnixStream::connect(&socket).is_ok());
    successor.stop();
    assert!(!socket.exists());

    settings.group = Some("no such group".to_owned());
    let error = AdminServer::start(settings, commands).unwrap_err();
    assert!(matches!(error, AdminError::UnknownGroup(_)), "{error}");
}

#[test]
fn an_audit_stream_is_filtered_and_may_be_limited() {
    let fixture = Fixture::new();
    for second in 1..=4 {
        let event = [Event::SessionOpened, Event::SessionEnded][second % 2];
        append(fixture.folder.path(), i64::try_from(second).unwrap(), event);
    }
    let (status, body) = fixture.ask("GET /v1/audit?until=1970-01-01T00:00:04Z", "");
    assert_eq!(status, 200);
    assert_eq!(body.matches("\"session_").count(), 3, "{body}");
    let query = "event=session_opened&limit=1";
    let (_, body) = fixture.ask(&format!("GET /v1/audit?{query}"), "");
    assert_eq!(body.matches("session_opened").count(), 1, "{body}");
    assert!(body.contains("00:00:04"), "{body}");
}

#[test]
fn a_followed_stream_goes_on_until_the_server_stops() {
    let fixture = Fixture::new();
    let stream = fixture.send("GET /v1/audit?follow=true", "");
    // Clients that leave take their places along.
    for _ in 0..100 {
        drop(fixture.send("GET /v1/audit?follow=true", ""));
    }
    let mut lines = BufReader::new(stream).lines();
    let mut wait_for = |what: &str| {
        lines
            .by_ref()
            .map(|line| line.unwrap())
            .find(|line| line.contains(what))
            .unwrap()
    };
    wait_for("200 OK");
    append(fixture.folder.path(), 1, Event::SessionOpened);
    wait_for("session_opened");
    append(fixture.folder.path(), 2, Event::SessionEnded);
    wait_for("session_ended");
    fixture.server.stop();
    assert_eq!(lines.next().unwrap().unwrap(), "");
    assert_eq!(lines.next().unwrap().unwrap(), "0");
}
