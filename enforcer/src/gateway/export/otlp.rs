//! Audit records to a collector: OTLP logs as JSON over HTTP (OpenTelemetry protocol).

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};

use crate::{
    audit::{is_grave, rfc3339},
    channel::ExportOutcome,
    config,
    gateway::{
        outbound::Outbound,
        upstream::tls::{NativeRoots, UpstreamTlsError},
    },
};

/// Longest answer of a collector that is looked at.
const LONGEST_ANSWER: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Collector {
    url: Uri,
    client: Outbound,
}

impl Collector {
    pub(super) fn load(
        url: Uri,
        outbound: &config::Outbound,
        roots: &mut NativeRoots,
    ) -> Result<Self, UpstreamTlsError> {
        let client = Outbound::load(outbound, roots)?;
        Ok(Self { url, client })
    }

    pub(super) async fn send(&self, records: &[String]) -> ExportOutcome {
        let mut request = Request::new(Bytes::from(logs(records).to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let answer = match self.client.send(request, LONGEST_ANSWER).await {
            Ok(answer) => answer,
            Err(error) => return ExportOutcome::Failed(error.to_string()),
        };
        outcome(answer.status, &answer.body)
    }
}

/// What a collector's answer means. One that refuses the data itself would refuse it for ever.
fn outcome(status: StatusCode, body: &[u8]) -> ExportOutcome {
    let what = || format!("the collector answered {status}");
    match status {
        status if status.is_success() => match refused(body) {
            Some(message) => ExportOutcome::Rejected(message),
            None => ExportOutcome::Delivered,
        },
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => ExportOutcome::Rejected(what()),
        _ => ExportOutcome::Failed(what()),
    }
}

/// What a collector says of records that it did not take, although it took the request.
fn refused(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let partial = answer.get("partialSuccess")?;
    let count = partial.get("rejectedLogRecords")?;
    // 64 bits are text in JSON.
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    let message = partial.get("errorMessage").and_then(Value::as_str);
    (count > 0).then(|| format!("{count} records: {}", message.unwrap_or("no reason given")))
}

/// Records as an `ExportLogsServiceRequest`.
fn logs(records: &[String]) -> Value {
    let records: Vec<_> = records.iter().filter_map(|line| log_record(line)).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "resourceLogs": [{
            "resource": { "attributes": [
                attribute("service.name", &json!("enforcer")),
                attribute("service.version", &json!(version)),
            ] },
            "scopeLogs": [{ "scope": { "name": "enforcer.audit" }, "logRecords": records }],
        }],
    })
}

fn log_record(line: &str) -> Option<Value> {
    let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
    let event = fields.get("event")?.as_str()?;
    let time = fields.get("time")?.as_str()?;
    let nanos = rfc3339::parse(time).ok()?.as_unix_nanos().to_string();
    let (number, text) = severity(event);
    let attributes: Vec<_> = fields
        .iter()
        .filter(|(name, _)| name.as_str() != "time")
        .map(|(name, value)| attribute(&format!("enforcer.{name}"), value))
        .collect();
    Some(json!({
        "timeUnixNano": nanos,
        "observedTimeUnixNano": nanos,
        "severityNumber": number,
        "severityText": text,
        "eventName": format!("enforcer.{event}"),
        "body": { "stringValue": event },
        "attributes": attributes,
    }))
}

fn severity(event: &str) -> (u8, &'static str) {
    if is_grave(event) {
        (13, "WARN")
    } else {
        (9, "INFO")
    }
}

fn attribute(name: &str, value: &Value) -> Value {
    json!({ "key": name, "value": any_value(value) })
}

fn any_value(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => {
            let values: Vec<_> = items.iter().map(any_value).collect();
            json!({ "arrayValue": { "values": values } })
        }
        other => json!({ "stringValue": other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_log_records_with_their_fields_as_attributes() {
        let line = concat!(
            r#"{"sequence":7,"time":"1970-01-01T00:00:01.000002Z","event":"session_ended","#,
            r#""policies":["a"],"lateness_us":0,"subject":"alice"}"#
        );
        let logs = logs(&[line.to_owned(), "no record".to_owned()]);
        let records = &logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        assert_eq!(records.as_array().unwrap().len(), 1);
        assert_eq!(records[0]["timeUnixNano"], "1000002000");
        assert_eq!(records[0]["body"]["stringValue"], "session_ended");
        let attributes = records[0]["attributes"].as_array().unwrap();
        for expected in [
            json!({ "key": "enforcer.sequence", "value": { "intValue": "7" } }),
            json!({ "key": "enforcer.subject", "value": { "stringValue": "alice" } }),
            json!({
                "key": "enforcer.policies",
                "value": { "arrayValue": { "values": [{ "stringValue": "a" }] } },
            }),
        ] {
            assert!(attributes.contains(&expected), "{expected}");
        }
    }

    #[test]
    fn answers_that_refuse_the_data_are_told_from_those_that_may_pass() {
        let partial = br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"old"}}"#;
        let rejected =
            |status, body: &[u8]| matches!(outcome(status, body), ExportOutcome::Rejected(_));
        assert_eq!(outcome(StatusCode::OK, b"{}"), ExportOutcome::Delivered);
        assert!(rejected(StatusCode::OK, partial));
        assert!(rejected(StatusCode::BAD_REQUEST, b""));
        for status in [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE] {
            assert!(
                matches!(outcome(status, b""), ExportOutcome::Failed(_)),
                "{status}"
            );
        }
    }
}
