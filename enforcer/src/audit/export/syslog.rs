//! Syslog messages (RFC 5424) to a datagram socket of this machine, `/dev/log` for one.

use std::{io, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

use super::super::StoredRecord;
use crate::channel::ExportOutcome;

/// Facility `authpriv`.
const FACILITY: u8 = 10;
/// The structured data of a record. The number is the one for documentation (RFC 5612): the
/// project has none of its own.
const STRUCTURED_DATA_ID: &str = "enforcer@32473";
/// Longest wait for a receiver whose queue is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest name of a message or a parameter.
const LONGEST_NAME: usize = 32;

/// A socket that is connected when it is needed.
#[derive(Debug)]
pub(super) struct SyslogSocket {
    path: PathBuf,
    host: String,
    socket: Option<UnixDatagram>,
}

impl SyslogSocket {
    pub(super) fn new(path: PathBuf) -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let host = Some(host).filter(|host| !host.is_empty());
        Self {
            path,
            host: host.map_or_else(|| "-".to_owned(), |host| host.into_owned()),
            socket: None,
        }
    }

    pub(super) fn send(&mut self, records: &[StoredRecord]) -> ExportOutcome {
        let mut too_long = 0;
        for record in records {
            let message = message(record, &self.host);
            match self.send_one(message.as_bytes()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => too_long += 1,
                Err(error) => {
                    self.socket = None;
                    let path = self.path.display();
                    return ExportOutcome::Failed(format!("cannot send to {path}: {error}"));
                }
            }
        }
        if too_long > 0 {
            tracing::error!(
                too_long,
                "audit records were too long for the syslog socket"
            );
        }
        ExportOutcome::Delivered
    }

    fn send_one(&mut self, message: &[u8]) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                none.insert(socket)
            }
        };
        socket.send(message).map(drop)
    }
}

/// A record as a message.
fn message(record: &StoredRecord, host: &str) -> String {
    let fields: Map<String, Value> = serde_json::from_str(&record.text).unwrap_or_default();
    let text = |name: &str| fields.get(name).map(plain);
    let event = text("event").unwrap_or_default();
    let priority = FACILITY * 8 + severity(&event);
    let time = text("time").unwrap_or_else(|| "-".to_owned());
    let pid = std::process::id();
    let mut message = format!(
        "<{priority}>1 {time} {host} enforcer {pid} {} ",
        name(&event)
    );
    message += &format!("[{STRUCTURED_DATA_ID} sequence=\"{}\"", record.sequence);
    for (field, value) in &fields {
        if field != "time" && field != "event" {
            message += &format!(" {}=\"{}\"", name(field), escaped(&plain(value)));
        }
    }
    message += "] \u{feff}";
    message += &event;
    for (word, field) in [(" of ", "subject"), (": ", "reason")] {
        if let Some(value) = text(field) {
            message += word;
            // One line, whatever a subject is.
            message.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
    }
    message
}

/// Warning, notice or informational.
fn severity(event: &str) -> u8 {
    match event {
        "violation" | "audit_lost" | "audit_tampered" | "gateway_died" => 4,
        "session_refused" | "session_ended" | "limits_tightened" => 5,
        _ => 6,
    }
}

/// A name of printable ASCII without what would end it.
fn name(text: &str) -> String {
    let fits = |c: &char| c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"');
    let name: String = text.chars().filter(fits).take(LONGEST_NAME).collect();
    if name.is_empty() {
        "-".to_owned()
    } else {
        name
    }
}

fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        if character.is_control() {
            // Its backslash is one like any other.
            escaped.push('\\');
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Hash;

    #[test]
    fn a_record_is_a_message_with_structured_data_that_nothing_breaks_out_of() {
        let text = concat!(
            r#"{"time":"2026-01-31T12:00:00.000001Z","event":"session_refused","#,
            r#""subject":"a\"]\\ \n<34>1 b","policies":["x","y"],"reason":"token_expired"}"#
        );
        let record = StoredRecord {
            sequence: 7,
            text: text.to_owned(),
            hash: Hash::from_bytes([0; 32]),
        };
        let pid = std::process::id();
        assert_eq!(
            message(&record, "host"),
            format!(
                "<85>1 2026-01-31T12:00:00.000001Z host enforcer {pid} session_refused \
                 [enforcer@32473 sequence=\"7\" policies=\"x,y\" reason=\"token_expired\" \
                 subject=\"a\\\"\\]\\\\ \\\\n<34>1 b\"] \u{feff}session_refused of a\"]\\  <34>1 b: \
                 token_expired"
            )
        );
    }
}
