//! Spans as OTLP's JSON (opentelemetry-proto, `ExportTraceServiceRequest`), with the names of the
//! semantic conventions.

use serde_json::{Value, json};

use super::Span;
use crate::clock::WallInstant;

/// `SPAN_KIND_SERVER`
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`
const ERROR: u8 = 2;

/// The request that exports these spans.
pub(super) fn request(spans: &[Span]) -> Value {
    let spans: Vec<_> = spans.iter().map(span).collect();
    let resource = [
        string("service.name", "enforcer"),
        string("service.version", env!("CARGO_PKG_VERSION")),
    ];
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": { "name": "enforcer" }, "spans": spans }],
        }],
    })
}

fn span(span: &Span) -> Value {
    let context = &span.open.context;
    let method = span.open.method.as_str();
    let status = span.status.as_u16();
    let mut attributes = vec![
        string("http.request.method", method),
        json!({
            "key": "http.response.status_code",
            "value": { "intValue": status.to_string() },
        }),
        string("client.address", &span.open.client),
        string("enforcer.listener", &span.route.listener),
    ];
    let mut name = method.to_owned();
    if !span.route.path.is_empty() {
        attributes.push(string("http.route", &span.route.path));
        name = format!("{method} {}", span.route.path);
    }
    if !span.route.host.is_empty() {
        attributes.push(string("server.address", &span.route.host));
    }
    if let Some(session) = span.session {
        attributes.push(string("enforcer.session.id", &session.to_string()));
    }
    let mut value = json!({
        "traceId": format!("{:032x}", context.trace),
        "spanId": format!("{:016x}", context.span),
        "name": name,
        "kind": SERVER,
        "startTimeUnixNano": nanos(span.open.began_at),
        "endTimeUnixNano": nanos(span.ended_at),
        "attributes": attributes,
    });
    if let Some(parent) = context.parent {
        value["parentSpanId"] = format!("{parent:016x}").into();
    }
    if span.status.is_server_error() {
        value["status"] = json!({ "code": ERROR });
    }
    value
}

fn string(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64-bit integers are strings in JSON.
fn nanos(at: WallInstant) -> String {
    at.as_unix_nanos().max(0).to_string()
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::{
        gateway::traces::{Open, context::TraceContext},
        metrics::RouteLabels,
        session::SessionId,
    };

    #[test]
    fn a_span_says_which_route_was_answered_how() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::new(TraceContext::parse(parent).as_ref()).unwrap();
        let span = Span {
            open: Open {
                context,
                began_at: WallInstant::from_unix_seconds(1),
                method: Method::GET,
                client: "192.0.2.1".to_owned(),
            },
            ended_at: WallInstant::from_unix_seconds(2),
            route: RouteLabels {
                listener: "public".to_owned(),
                host: String::new(),
                path: "/admin".to_owned(),
            },
            status: StatusCode::BAD_GATEWAY,
            session: SessionId::from_u64(0xabc),
        };
        let request = request(&[span]);
        let span = &request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["name"], "GET /admin");
        assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(span["endTimeUnixNano"], "2000000000");
        assert_eq!(span["status"]["code"], 2);
        let attributes = span["attributes"].to_string();
        for expected in [
            r#"{"key":"http.response.status_code","value":{"intValue":"502"}}"#,
            r#"{"key":"enforcer.session.id","value":{"stringValue":"0000000000000abc"}}"#,
        ] {
            assert!(attributes.contains(expected), "{attributes}");
        }
    }
}
