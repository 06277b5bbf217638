//! Spans of requests reach a collector, and the upstream is told which span it is part of.

use std::net::SocketAddr;

use enforcer_tests::{Scene, certificates::SERVER_NAME, client::Client, receiver::Receiver};
use http::{Request, header};
use http_body_util::Full;
use serde_json::Value;

const CLIENTS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The `traceparent` that the upstream sees of a request with the client's.
fn traceparent(client: &Client, token: &str) -> String {
    let request = Request::get("/headers")
        .header(header::HOST, SERVER_NAME)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header("traceparent", CLIENTS)
        .body(Full::default())
        .expect("the bed does as it is told");
    let answer = client
        .connection()
        .expect("the bed does as it is told")
        .send(request)
        .expect("the bed does as it is told");
    assert_eq!(answer.status, 200);
    let headers = answer.json().expect("the bed does as it is told");
    let mut pairs = headers
        .as_array()
        .expect("the bed does as it is told")
        .iter();
    let found = pairs
        .find(|pair| pair[0] == "traceparent")
        .expect("the bed does as it is told");
    found[1]
        .as_str()
        .expect("the bed does as it is told")
        .to_owned()
}

fn spans(received: &enforcer_tests::receiver::Received) -> Vec<Value> {
    let body = received.json().expect("the bed does as it is told");
    let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    spans
        .as_array()
        .expect("the bed does as it is told")
        .clone()
}

#[test]
fn a_span_of_each_request_reaches_the_collector_and_its_name_the_upstream() {
    let address: SocketAddr = "127.0.0.1:4318".parse().unwrap();
    for continue_clients in [false, true] {
        let mut scene = Scene::new("traces").unwrap();
        scene.config.monitoring = format!(
            "[traces]\notlp = \"http://{address}\"\ncontinue_clients = {continue_clients}\n\
             outbound = {{ allow_networks = [\"127.0.0.1\"] }}\n"
        );
        let collector = Receiver::start(scene.bed.daemon(), address, None).unwrap();
        let _daemon = scene.start().unwrap();
        let client = scene.client().unwrap();
        let upstream = traceparent(&client, &scene.token("alice").unwrap());
        let ids: Vec<_> = upstream.split('-').collect();
        let continued = ids[1] == "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(continued, continue_clients, "{upstream}");
        assert_ne!(upstream, CLIENTS);

        let received = collector.wait_for("a span came", |_| true).unwrap();
        assert_eq!(received.path, "/v1/traces");
        let spans = spans(&received);
        let [span] = &spans[..] else {
            panic!("{spans:?}");
        };
        assert_eq!(
            (&span["traceId"], &span["spanId"]),
            (&ids[1].into(), &ids[2].into())
        );
        let parent = continue_clients.then_some("00f067aa0ba902b7");
        assert_eq!(span["parentSpanId"].as_str(), parent);
        assert_eq!(span["name"], "GET /");
        let attributes = span["attributes"].to_string();
        assert!(attributes.contains("enforcer.session.id"), "{attributes}");
    }
}
