//! What an upstream is told about a request, in words that it can verify.

use enforcer_tests::{Scene, certificates::SERVER_NAME, config::Assertion, issuer::Claims, wait};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;

const GATEWAY: &str = "https://gateway.test";

fn request(
    path: &str,
    headers: &[(&str, &str)],
) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = http::Request::get(path).header("host", SERVER_NAME);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Default::default()).expect("a request")
}

#[test]
fn an_upstream_verifies_who_asks_with_the_published_keys() {
    let mut scene = Scene::new("assertion").unwrap();
    let key = scene.authority.client("a key of its own").unwrap();
    let (_, key) = key.write(&scene.bed, "assertion").unwrap();
    scene.config.assertion = Some(Assertion {
        issuer: GATEWAY.to_owned(),
        private_key: key,
        former_keys: Vec::new(),
    });
    scene.config.routes[0].assertion_audience = Some("billing".to_owned());
    scene.config.policy().max_session = "20s".to_owned();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let an_hour_on = wait::whole_second_after(std::time::Duration::from_secs(3600));
    let claims = Claims::new("alice", an_hour_on).with("acr", "aal2");
    let token = scene.issuer.sign(&claims).unwrap();

    let published = client.connection().unwrap();
    let published = published.send(request("/.well-known/enforcer/jwks.json", &[]));
    let published = published.unwrap();
    assert_eq!(published.status, 200);
    let keys: JwkSet = serde_json::from_slice(&published.body).unwrap();

    let authorization = format!("Bearer {token}");
    let forged = [
        ("authorization", authorization.as_str()),
        ("x-enforcer-assertion", "forged"),
        ("x_enforcer_assertion", "forged"),
    ];
    let connection = client.connection().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let answer = connection.send(request("/headers", &forged)).unwrap();
        let headers: Vec<(String, String)> =
            serde_json::from_value(answer.json().unwrap()).unwrap();
        let session = headers.iter().find(|(it, _)| it == "x-enforcer-session");
        let session = session.unwrap().1.clone();
        let assertions: Vec<_> = headers
            .into_iter()
            .filter(|(it, _)| it.replace('_', "-") == "x-enforcer-assertion")
            .collect();
        let [(_, assertion)] = &assertions[..] else {
            panic!("{assertions:?}");
        };
        seen.push((session, assertion.clone()));
    }
    // One is used for many requests.
    assert_eq!(seen[0], seen[1]);
    let (session, assertion) = &seen[0];

    let kid = jsonwebtoken::decode_header(assertion).unwrap().kid.unwrap();
    let verifier = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["billing"]);
    validation.set_issuer(&[GATEWAY]);
    let claims = jsonwebtoken::decode::<Value>(assertion, &verifier, &validation)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["sub_iss"], enforcer_tests::issuer::ISSUER);
    assert_eq!(claims["sid"], session.as_str());
    assert_eq!(claims["acr"], "aal2");
    // Never past the session's deadline, though an assertion could live for a minute.
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((15..=20).contains(&lifetime), "{lifetime}");
    validation.set_audience(&["another service"]);
    assert!(jsonwebtoken::decode::<Value>(assertion, &verifier, &validation).is_err());
}

#[test]
fn an_assertion_by_a_former_key_is_verified_with_the_published_keys() {
    let mut scene = Scene::new("former").unwrap();
    let [former, key] = ["former", "present"].map(|name| {
        let identity = scene.authority.client(name).unwrap();
        identity.write(&scene.bed, name).unwrap()
    });
    let assertion = |key: &std::path::Path, former_keys| Assertion {
        issuer: GATEWAY.to_owned(),
        private_key: key.to_owned(),
        former_keys,
    };
    scene.config.assertion = Some(assertion(&former.1, Vec::new()));
    scene.config.routes[0].assertion_audience = Some("billing".to_owned());
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let token = scene.token("alice").unwrap();
    let seen = || {
        let answer = client.get("/headers", &token).unwrap().json().unwrap();
        let headers: Vec<(String, String)> = serde_json::from_value(answer).unwrap();
        let assertion = headers
            .into_iter()
            .find(|it| it.0 == "x-enforcer-assertion");
        assertion.unwrap().1
    };
    let by_former = seen();
    // The certificate holds the public half.
    let config = enforcer_tests::config::Config {
        assertion: Some(assertion(&key.1, vec![former.0.clone()])),
        ..scene.config.clone()
    };
    daemon.configure(&config.text().unwrap()).unwrap();
    daemon.restart().unwrap();
    let by_present = seen();
    let published = client.connection().unwrap();
    let published = published.send(request("/.well-known/enforcer/jwks.json", &[]));
    let keys: JwkSet = serde_json::from_slice(&published.unwrap().body).unwrap();
    assert_eq!(keys.keys.len(), 2);
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["billing"]);
    validation.set_issuer(&[GATEWAY]);
    let verified_by = |assertion: &str| {
        let kid = jsonwebtoken::decode_header(assertion).unwrap().kid.unwrap();
        let verifier = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        jsonwebtoken::decode::<Value>(assertion, &verifier, &validation).unwrap();
        kid
    };
    assert_ne!(verified_by(&by_former), verified_by(&by_present));
}
