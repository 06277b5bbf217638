//! A record as a syslog message (RFC 5424).

use serde_json::{Map, Value};

/// Facility `authpriv`.
const FACILITY: u8 = 10;
/// The structured data of a record. The number is the one for documentation (RFC 5612): the
/// project has none of its own.
const STRUCTURED_DATA_ID: &str = "enforcer@32473";
/// Longest name of a message or a parameter.
const LONGEST_NAME: usize = 32;
/// Says that fields are left out.
const TRUNCATED: &str = " truncated=\"true\"";
/// Ends the structured data.
const END: &str = "]";

/// The name of this machine, for messages.
pub(crate) fn host_name() -> String {
    let system = rustix::system::uname();
    let fits = |c: &char| c.is_ascii_graphic();
    let host: String = system
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(fits)
        .collect();
    if host.is_empty() {
        "-".to_owned()
    } else {
        host
    }
}

/// The record on a `line` of JSON as a message.
///
/// With `longest`, in bytes, fields that do not fit are left out whole, and the message says so:
/// what is left is well-formed, which a message that the way there cuts off (RFC 5424, 6.1) is not.
/// The record's number is always there to find the rest by.
pub(crate) fn message(line: &str, host: &str, longest: Option<usize>) -> String {
    let longest = longest.unwrap_or(usize::MAX);
    let fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
    let text = |name: &str| fields.get(name).map(plain);
    let event = text("event").unwrap_or_default();
    let priority = FACILITY * 8 + severity(&event);
    let time = text("time").unwrap_or_else(|| "-".to_owned());
    let pid = std::process::id();
    let mut message = format!(
        "<{priority}>1 {time} {host} enforcer {pid} {} [{STRUCTURED_DATA_ID} sequence=\"{}\"",
        name(&event),
        text("sequence").unwrap_or_default()
    );
    let room = longest.saturating_sub(TRUNCATED.len() + END.len());
    let mut truncated = false;
    for (field, value) in &fields {
        if matches!(field.as_str(), "time" | "event" | "sequence") {
            continue;
        }
        let parameter = format!(" {}=\"{}\"", name(field), escaped(&plain(value)));
        if message.len() + parameter.len() <= room {
            message += &parameter;
        } else {
            truncated = true;
        }
    }
    if truncated {
        message += TRUNCATED;
    }
    message += END;
    let words = words(&event, text);
    if message.len() + words.len() <= longest {
        message += &words;
    }
    message
}

/// What a person reads; all of it is in the fields too.
fn words(event: &str, text: impl Fn(&str) -> Option<String>) -> String {
    let mut words = format!(" \u{feff}{event}");
    for (word, field) in [(" of ", "subject"), (": ", "reason")] {
        if let Some(value) = text(field) {
            words += word;
            // One line, whatever a subject is.
            words.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
    }
    words
}

/// Whether somebody should look at such an event.
pub(crate) fn is_grave(event: &str) -> bool {
    matches!(
        event,
        "violation" | "audit_lost" | "audit_tampered" | "gateway_died"
    )
}

/// Warning, notice or informational.
fn severity(event: &str) -> u8 {
    match event {
        event if is_grave(event) => 4,
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

    #[test]
    fn a_record_is_a_message_with_structured_data_that_nothing_breaks_out_of() {
        let line = concat!(
            r#"{"sequence":7,"time":"2026-01-31T12:00:00.000001Z","event":"session_refused","#,
            r#""subject":"a\"]\\ \n<34>1 b","policies":["x","y"],"reason":"token_expired"}"#
        );
        let pid = std::process::id();
        assert_eq!(
            message(line, "host", None),
            format!(
                "<85>1 2026-01-31T12:00:00.000001Z host enforcer {pid} session_refused \
                 [enforcer@32473 sequence=\"7\" policies=\"x,y\" reason=\"token_expired\" \
                 subject=\"a\\\"\\]\\\\ \\\\n<34>1 b\"] \u{feff}session_refused of a\"]\\  <34>1 b: \
                 token_expired"
            )
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole_and_said() {
        let detail = "\"".repeat(400);
        let line = serde_json::json!({
            "sequence": 7, "time": "2026-01-31T12:00:00.000001Z", "event": "session_refused",
            "detail": detail, "subject": "alice",
        });
        let line = line.to_string();
        let whole = message(&line, "host", None);
        assert!(!whole.contains("truncated"), "{whole}");
        assert_eq!(message(&line, "host", Some(whole.len())), whole);
        for longest in 200..whole.len() {
            let message = message(&line, "host", Some(longest));
            assert!(message.len() <= longest, "{longest}: {message}");
            assert!(message.contains(" sequence=\"7\""), "{message}");
            let detail = message.contains(&format!(" detail=\"{}\"", "\\\"".repeat(400)));
            let subject = message.contains(" subject=\"alice\"");
            assert!(detail || subject, "{message}");
            assert_eq!(
                message.contains(TRUNCATED),
                !(detail && subject),
                "{message}"
            );
        }
    }
}
