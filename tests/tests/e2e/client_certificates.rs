//! Clients' certificates on HTTP listeners: as identity, revoked, resumed, and as what tokens are
//! bound to.

use std::time::Duration;

use enforcer::clock::{self, WallInstant};
use enforcer_tests::{
    Scene,
    certificates::SERVER_NAME,
    client::{Answer, End, Pattern},
    issuer::Claims,
    wait,
};
use serde_json::json;

/// A scene whose listener asks clients for certificates.
fn scene(label: &str, certificate: &str, identity: &str) -> Scene {
    let mut scene = Scene::new(label).expect("a scene");
    let ca_file = scene.ca_file();
    let listener = scene.config.listener().expect("the listener");
    listener.identity = Some(identity.to_owned());
    listener.tls.client_ca = Some(ca_file);
    listener.tls.client_certificate = Some(certificate.to_owned());
    scene
}

fn an_hour_on() -> WallInstant {
    wait::whole_second_after(Duration::from_secs(3600))
}

fn without_token(path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    http::Request::get(path)
        .header("host", SERVER_NAME)
        .body(Default::default())
        .expect("a request")
}

fn code(answer: &Answer) -> String {
    let body = answer.json().expect("a body");
    format!(
        "{} {}",
        answer.status.as_u16(),
        body["code"].as_str().expect("a code")
    )
}

#[test]
fn a_workload_is_known_by_its_certificate_and_cut_when_that_ends() {
    let mut scene = scene("workload", "required", "certificate");
    scene.config.listener().unwrap().principal = Some("spiffe".to_owned());
    scene.config.identity.jwt.clear();
    let daemon = scene.start().unwrap();
    let not_after = wait::whole_second_after(Duration::from_secs(2));
    let id = "spiffe://example.org/billing";
    let workload = scene.authority.workload(id, not_after).unwrap();
    let client = scene.client_showing(&workload).unwrap();

    let seen = client.get("/headers", "").unwrap();
    let headers: Vec<(String, String)> = serde_json::from_value(seen.json().unwrap()).unwrap();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(it, _)| it == name)
            .unwrap()
            .1
            .as_str()
    };
    assert_eq!(header("x-enforcer-subject"), id);
    assert_eq!(header("x-enforcer-issuer"), "spiffe://example.org");

    let talk = client
        .websocket("/echo", "")
        .unwrap()
        .talk(Pattern::default());
    assert_eq!(talk.end().unwrap().ending.how, End::Reset);
    assert!(clock::wall_now() >= not_after);
    let ended = daemon.wait_for_end().unwrap();
    assert_eq!(ended["reason"], "token");
    assert_eq!(ended["subject"], id);
    // The handshake would end before it: what is left is a certificate of another kind.
    let nameless = scene.authority.client("nobody").unwrap();
    let refused = scene.client_showing(&nameless).unwrap().get("/headers", "");
    assert_eq!(code(&refused.unwrap()), "403 certificate_name_missing");
}

#[test]
fn a_token_goes_before_a_certificate_and_neither_is_needed_with_the_other() {
    let scene = scene("either", "optional", "token_or_certificate");
    let daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let subject_of = |answer: Answer| {
        assert_eq!(answer.status, 200);
        let headers: Vec<(String, String)> =
            serde_json::from_value(answer.json().unwrap()).unwrap();
        let mut subject = headers
            .into_iter()
            .filter(|(it, _)| it == "x-enforcer-subject");
        subject.next().unwrap().1
    };
    let shown = scene.client_showing(&alice).unwrap();
    let by_token = shown.get("/headers", &scene.token("bob").unwrap()).unwrap();
    assert_eq!(subject_of(by_token), "bob");
    let neither = scene.client().unwrap().connection().unwrap();
    let by_token = neither
        .get("/headers", &scene.token("carol").unwrap())
        .unwrap();
    assert_eq!(subject_of(by_token), "carol");
    daemon
        .wait_for_audit("session_opened", |record| record["subject"] == "carol")
        .unwrap();
    let bare = scene.client().unwrap().connection().unwrap();
    assert_eq!(
        code(&bare.send(without_token("/headers")).unwrap()),
        "401 missing_token"
    );
    let bare = shown.connection().unwrap();
    let by_certificate = bare.send(without_token("/headers")).unwrap();
    assert_eq!(subject_of(by_certificate), "CN=alice");
}

#[test]
fn a_bound_token_is_of_no_use_without_its_certificate() {
    let scene = scene("bound", "optional", "token");
    let daemon = scene.start().unwrap();
    let alice = scene.authority.client("alice").unwrap();
    let mallory = scene.authority.client("mallory").unwrap();
    let claims =
        Claims::new("alice", an_hour_on()).with("cnf", json!({"x5t#S256": alice.thumbprint()}));
    let token = scene.issuer.sign(&claims).unwrap();

    let hers = scene.client_showing(&alice).unwrap();
    assert_eq!(hers.get("/headers", &token).unwrap().status, 200);
    let stolen = scene.client_showing(&mallory).unwrap();
    let refused = stolen.get("/headers", &token).unwrap();
    assert_eq!(code(&refused), "401 certificate_mismatch");
    assert!(refused.header("www-authenticate").contains("invalid_token"));
    let refused = scene.client().unwrap().get("/headers", &token).unwrap();
    assert_eq!(code(&refused), "401 certificate_missing");
    daemon
        .wait_for_audit("session_refused", |record| {
            record["reason"] == "certificate_mismatch" && record["subject"] == "alice"
        })
        .unwrap();
}

#[test]
fn a_revoked_certificate_gets_no_further_than_the_handshake() {
    let mut scene = scene("revoked", "required", "token");
    let alice = scene.authority.client("alice").unwrap();
    let mallory = scene.authority.client("mallory").unwrap();
    let list = scene.authority.revoke(&[&mallory], an_hour_on()).unwrap();
    let list = scene.bed.write("revoked.crl", list).unwrap();
    scene.config.listener().unwrap().tls.client_crl = vec![list];
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();

    let good = scene.client_showing(&alice).unwrap();
    assert_eq!(good.get("/headers", &token).unwrap().status, 200);
    let revoked = scene.client_showing(&mallory).unwrap();
    assert!(revoked.get("/headers", &token).is_err());
    daemon
        .wait_for_audit("session_refused", |record| {
            record["reason"] == "tls_failed"
                && record["detail"]
                    .as_str()
                    .is_some_and(|it| it.contains("Revoked"))
        })
        .unwrap();
}

#[test]
fn a_certificate_is_looked_at_again_when_its_tls_session_resumes() {
    let scene = scene("resumed", "required", "token");
    let daemon = scene.start().unwrap();
    let not_after = wait::whole_second_after(Duration::from_secs(2));
    let alice = scene.authority.client_until("alice", not_after).unwrap();
    let client = scene.client_showing(&alice).unwrap();
    let token = scene.token("alice").unwrap();
    assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    // At the very second it is still valid for TLS.
    wait::until_wall(not_after.saturating_add(Duration::from_secs(1)));
    assert!(client.get("/headers", &token).is_err());
    // A full handshake would have failed as TLS: this one was resumed.
    daemon
        .wait_for_audit("session_refused", |record| {
            record["reason"] == "certificate_not_trusted"
        })
        .unwrap();
}

#[test]
fn a_list_that_names_a_certificate_ends_what_is_open_with_it() {
    let mut scene = scene("withdrawn", "required", "token");
    let alice = scene.authority.client("alice").unwrap();
    let mallory = scene.authority.client("mallory").unwrap();
    let list = |revoked| {
        let list = scene.authority.revoke(revoked, an_hour_on()).unwrap();
        scene.bed.write("revoked.crl", list).unwrap()
    };
    scene.config.listener().unwrap().tls.client_crl = vec![list(&[])];
    let mut daemon = scene.start().unwrap();
    let talk = |identity, subject: &str| {
        let client = scene.client_showing(identity).unwrap();
        let token = scene.token(subject).unwrap();
        let socket = client.websocket("/echo", &token).unwrap();
        socket.talk(Pattern::default())
    };
    let staying = talk(&alice, "alice");
    let leaving = talk(&mallory, "mallory");

    // Whatever starts a new gateway has it read the lists anew.
    scene
        .bed
        .write(
            "revoked.crl",
            scene.authority.revoke(&[&mallory], an_hour_on()).unwrap(),
        )
        .unwrap();
    // What the store has not written yet would be cut as unknown: it is asked to make sure of an end.
    let client = scene.client_showing(&alice).unwrap();
    let carols = scene.token("carol").unwrap();
    assert_eq!(client.get("/headers", &carols).unwrap().status, 200);
    let revoked = daemon.cli(&["sessions", "revoke", "--subject", "carol"]);
    assert_eq!(revoked.unwrap().code, 0);
    daemon.kill_warden().unwrap();
    daemon.start_again().unwrap();
    assert_eq!(leaving.end().unwrap().ending.how, End::Reset);
    let ended = daemon.wait_for_audit("session_ended", |record| record["subject"] == "mallory");
    assert_eq!(ended.unwrap()["reason"], "certificate_revoked");
    let echoes = staying.received();
    wait::until("the other goes on", || {
        (staying.received() > echoes).then_some(())
    })
    .unwrap();
}
