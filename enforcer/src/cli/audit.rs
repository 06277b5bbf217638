//! `enforcer audit`: the audit log, through the daemon, or from the file if none runs.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    client::{Client, ClientError},
    output::reader_left,
    text::printable,
};
use crate::audit::{Filter, Follow, LogReader, Progress, Record};

/// How often a followed file is looked at.
const TICK: Duration = Duration::from_millis(250);
/// What is asked for, up to the query.
const PATH: &str = "/v1/audit?";

/// Prints the records that `filter` picks, as they stand in the log with `json`, else for people.
/// They come from the daemon at `socket`; if none runs, from the file `log`.
///
/// # Errors
/// If the daemon does not answer, or none runs and there is no `log` that can be read.
pub fn run(
    socket: &Path,
    log: Option<&Path>,
    filter: Filter,
    follow: Follow,
    json: bool,
) -> Result<ExitCode> {
    let mut show = |lines: &[u8]| show(&mut io::stdout().lock(), lines, json);
    let mut broken_lines = Client::new(socket)?.lines(&path(&filter, follow), &mut show);
    if let (Err(error), Some(log)) = (&broken_lines, log)
        && is_not_running(error)
    {
        broken_lines = read_file(log, filter, follow, &mut show);
    }
    match broken_lines {
        Err(error) if reader_left(&error) => return Ok(ExitCode::SUCCESS),
        Ok(0) => {}
        Ok(broken_lines) => eprintln!("warning: {broken_lines} lines of the log are not records"),
        Err(error) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::NotRunning { .. }))
}

fn path(filter: &Filter, follow: Follow) -> String {
    let mut query = form_urlencoded::Serializer::for_suffix(PATH.to_owned(), PATH.len());
    query.extend_pairs(filter.since.map(|since| ("since", since.to_string())));
    query.extend_pairs(filter.subject.as_ref().map(|subject| ("subject", subject)));
    query.extend_pairs(filter.event.map(|event| ("event", event.as_str())));
    if follow == Follow::Yes {
        query.append_pair("follow", "true");
    }
    query.finish()
}

fn read_file(
    path: &Path,
    filter: Filter,
    follow: Follow,
    mut show: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut reader = LogReader::open(path, filter, follow).with_context(unreadable)?;
    loop {
        let mut found = Vec::new();
        let progress = reader.read(&mut found).with_context(unreadable)?;
        show(&found)?;
        match (progress, follow) {
            (Progress::More, _) => {}
            (Progress::End, Follow::Yes) => thread::sleep(TICK),
            (Progress::End, Follow::No) => return Ok(reader.broken_lines()),
        }
    }
}

fn show(out: &mut impl Write, lines: &[u8], json: bool) -> io::Result<()> {
    if json {
        out.write_all(lines)?;
    } else {
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            writeln!(out, "{}", for_people(line))?;
        }
    }
    out.flush()
}

/// A record of a later version is shown as it stands.
fn for_people(line: &[u8]) -> String {
    match serde_json::from_slice::<Record>(line) {
        Ok(record) => record_for_people(&record),
        Err(_) => printable(&String::from_utf8_lossy(line)),
    }
}

fn record_for_people(record: &Record) -> String {
    let policies = record.policies.join(",");
    let details: [(&str, Option<String>); 20] = [
        ("issuer", record.issuer.clone()),
        ("policies", Some(policies).filter(|names| !names.is_empty())),
        ("reason", record.reason.as_ref().map(ToString::to_string)),
        (
            "detail",
            record.detail.as_ref().map(|detail| format!("{detail:?}")),
        ),
        ("listener", record.listener.clone()),
        ("role", text(record.role)),
        ("client", text(record.client)),
        ("local", text(record.local)),
        ("cookie", text(record.cookie)),
        ("bytes_received", text(record.bytes_received)),
        ("bytes_sent", text(record.bytes_sent)),
        ("duration_ms", text(record.duration_ms)),
        ("deadline", text(record.deadline)),
        (
            "last_payload_before_deadline_us",
            text(record.last_payload_before_deadline_us),
        ),
        ("lateness_us", text(record.lateness_us)),
        ("reset_lateness_us", text(record.reset_lateness_us)),
        ("dropped_packets", text(record.dropped_packets)),
        ("sockets_reset", text(record.sockets_reset)),
        ("pid", text(record.pid)),
        ("lost", text(record.lost)),
    ];
    let mut line = format!("{} {:<17}", record.time, record.event.as_str());
    let who = [text(record.session), record.subject.clone()];
    for word in who.into_iter().flatten() {
        line.push(' ');
        line.push_str(&printable(&word));
    }
    for (name, value) in details {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={}", printable(&value)));
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::Event,
        clock::WallInstant,
        session::{Principal, SessionId},
    };

    #[test]
    fn a_record_is_one_line_for_people() {
        let principal = Principal {
            issuer: "https://idp.example".to_owned(),
            subject: "eve\n2030-01-01 session_opened admin".to_owned(),
        };
        let mut record = Record::new(WallInstant::from_unix_seconds(0), Event::SessionEnded)
            .of(SessionId::from_u64(1).unwrap(), &principal)
            .because("deadline");
        record.lateness_us = Some(0);
        record.sockets_reset = Some(2);
        let line = serde_json::to_vec(&record).unwrap();
        assert_eq!(
            for_people(&line),
            "1970-01-01T00:00:00.000000Z session_ended     0000000000000001 \
             eve\\n2030-01-01 session_opened admin issuer=https://idp.example reason=deadline \
             lateness_us=0 sockets_reset=2"
        );
        assert_eq!(for_people(b"{\"new\":\x1b}"), "{\"new\":\\u{1b}}");
    }

    #[test]
    fn what_is_asked_of_the_daemon_survives_the_way() {
        let filter = Filter {
            since: Some(WallInstant::from_unix_seconds(0)),
            subject: Some("a&b=c é".to_owned()),
            event: Some(Event::SessionEnded),
        };
        assert_eq!(
            path(&filter, Follow::Yes),
            "/v1/audit?since=1970-01-01T00%3A00%3A00.000000Z&subject=a%26b%3Dc+%C3%A9\
             &event=session_ended&follow=true"
        );
        assert_eq!(path(&Filter::default(), Follow::No), "/v1/audit?");
    }
}
