//! Tokens that are none, or not good here.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use enforcer::clock::{self, WallInstant};
use enforcer_tests::{
    Scene,
    config::Keys,
    issuer::{Claims, Issuer},
};
use jsonwebtoken::{Algorithm, Header};

fn in_an_hour() -> WallInstant {
    clock::wall_now().saturating_add(Duration::from_secs(3600))
}

fn an_hour_ago() -> WallInstant {
    clock::wall_now().saturating_sub(Duration::from_secs(3600))
}

fn good() -> Claims {
    Claims::new("alice", in_an_hour())
}

/// The answer to the token that `forge` makes is 401 with this code, the audit log says the same,
/// nothing reaches the upstream, and an honest token is served afterwards.
#[track_caller]
fn refused(label: &str, code: &str, forge: impl Fn(&Issuer) -> String) {
    refused_in(Scene::new(label).expect("a scene"), code, forge);
}

#[track_caller]
fn refused_in(scene: Scene, code: &str, forge: impl Fn(&Issuer) -> String) {
    let daemon = scene.start().expect("a daemon");
    let client = scene.client().expect("a client");
    let answer = client
        .get("/headers", &forge(&scene.issuer))
        .expect("an answer");
    assert_eq!(answer.status, 401, "{answer:?}");
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("Bearer realm="), "{challenge}");
    assert!(
        challenge.contains(r#"error="invalid_token""#),
        "{challenge}"
    );
    assert!(challenge.contains("error_description="), "{challenge}");
    assert_eq!(answer.json().expect("a body")["code"], code);
    let refused = daemon.wait_for_audit("session_refused", |record| record["reason"] == code);
    assert!(refused.expect("a record")["client"].is_string());
    assert!(scene.upstream.log().requests().is_empty());

    let honest = scene.issuer.sign(&good()).expect("a token");
    assert_eq!(
        client.get("/headers", &honest).expect("an answer").status,
        200
    );
}

#[test]
fn no_token_is_told_to_bring_one() {
    let scene = Scene::new("none").unwrap();
    let _daemon = scene.start().unwrap();
    let answer = scene.client().unwrap().get("/headers", "").unwrap();
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("Bearer realm="), "{challenge}");
    assert!(!challenge.contains("error="), "{challenge}");
    assert_eq!(answer.json().unwrap()["code"], "missing_token");
}

#[test]
fn a_truncated_token() {
    refused("truncated", "token_malformed", |issuer| {
        let token = issuer.sign(&good()).unwrap();
        token.rsplit_once('.').unwrap().0.to_owned()
    });
}

#[test]
fn a_token_with_a_truncated_signature() {
    refused("short-signature", "signature_invalid", |issuer| {
        let mut token = issuer.sign(&good()).unwrap();
        token.truncate(token.len() - 4);
        token
    });
}

#[test]
fn text_that_is_no_token() {
    refused("no-jwt", "token_malformed", |_| "let-me-in".to_owned());
}

#[test]
fn an_unsigned_token() {
    refused("unsigned", "algorithm_not_allowed", |_| good().unsigned());
}

#[test]
fn a_token_with_changed_claims() {
    refused("changed", "signature_invalid", |issuer| {
        let token = issuer.sign(&good()).unwrap();
        let [header, _, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("{token} has no three parts");
        };
        let claims = issuer.sign(&good().with("sub", "root")).unwrap();
        let claims = claims.split('.').nth(1).unwrap();
        format!("{header}.{claims}.{signature}")
    });
}

#[test]
fn a_token_signed_with_another_key() {
    refused("another-key", "signature_invalid", |_| {
        Issuer::new(Algorithm::ES256)
            .unwrap()
            .sign(&good())
            .unwrap()
    });
}

#[test]
fn a_token_of_an_algorithm_that_the_issuer_does_not_use() {
    refused("another-algorithm", "algorithm_not_allowed", |_| {
        Issuer::new(Algorithm::EdDSA)
            .unwrap()
            .sign(&good())
            .unwrap()
    });
}

#[test]
fn a_token_signed_with_the_public_key_as_a_shared_secret() {
    let mut scene = Scene::new("confusion").unwrap();
    scene.issuer = Issuer::new(Algorithm::RS256).unwrap();
    let pem = scene.issuer.public_key_pem().unwrap();
    let keys = Keys::PublicKeyFile(scene.bed.write("issuer.pem", pem).unwrap());
    scene.config.identity.jwt[0].keys = keys;
    scene.config.identity.jwt[0].algorithms = vec!["RS256".to_owned()];
    refused_in(scene, "algorithm_not_allowed", |issuer| {
        let secret = issuer.public_key_pem().unwrap().as_bytes();
        let forger = Issuer::with_secret(Algorithm::HS256, secret);
        forger.sign(&good()).unwrap()
    });
}

#[test]
fn a_token_that_brings_its_own_key() {
    refused("own-key", "signature_invalid", |_| {
        let forger = Issuer::new(Algorithm::ES256).unwrap();
        let mut header = Header::new(Algorithm::ES256);
        let keys: serde_json::Value = serde_json::from_str(&forger.jwks().unwrap()).unwrap();
        header.jwk = Some(serde_json::from_value(keys["keys"][0].clone()).unwrap());
        forger.sign_with_header(&header, &good()).unwrap()
    });
}

#[test]
fn an_expired_token() {
    refused("expired", "token_expired", |issuer| {
        issuer.sign(&Claims::new("alice", an_hour_ago())).unwrap()
    });
}

#[test]
fn a_token_that_never_expires() {
    refused("immortal", "claim_missing", |issuer| {
        issuer.sign(&good().without("exp")).unwrap()
    });
}

#[test]
fn a_token_that_is_not_valid_yet() {
    refused("not-yet", "token_not_yet_valid", |issuer| {
        issuer
            .sign(&good().with("nbf", in_an_hour().as_unix_seconds()))
            .unwrap()
    });
}

#[test]
fn a_token_for_another_audience() {
    refused("audience", "audience_mismatch", |issuer| {
        issuer.sign(&good().with("aud", "another service")).unwrap()
    });
}

#[test]
fn a_token_of_another_issuer() {
    refused("issuer", "issuer_unknown", |issuer| {
        issuer
            .sign(&good().with("iss", "https://elsewhere.test"))
            .unwrap()
    });
}

#[test]
fn a_token_without_a_subject() {
    refused("nobody", "claim_missing", |issuer| {
        issuer.sign(&good().without("sub")).unwrap()
    });
}

#[test]
fn a_token_with_an_endless_expiry() {
    let scene = Scene::new("endless").unwrap();
    let _daemon = scene.start().unwrap();
    let claims = good().with("exp", i64::MAX);
    let token = scene.issuer.sign(&claims).unwrap();
    let answer = scene.client().unwrap().get("/headers", &token).unwrap();
    // It is valid, and the policy's hour is what counts.
    assert_eq!(answer.status, 200);
    let expires_in = answer.header("session-expires-in").parse::<u64>().unwrap();
    assert!(expires_in <= 3600, "{expires_in}");
}

#[test]
fn a_token_of_100_kilobytes() {
    let scene = Scene::new("huge").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let ballast = URL_SAFE_NO_PAD.encode(vec![b'x'; 75_000]);
    let token = scene.issuer.sign(&good().with("ballast", ballast)).unwrap();
    assert!(token.len() > 100_000);
    let answer = client.get("/headers", &token).unwrap();
    assert!([401, 431].contains(&answer.status.as_u16()), "{answer:?}");
    assert!(scene.upstream.log().requests().is_empty());
    let honest = scene.issuer.sign(&good()).unwrap();
    assert_eq!(client.get("/headers", &honest).unwrap().status, 200);
}

#[test]
fn tokens_of_every_kind_of_key_are_accepted() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::PS384,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
        Algorithm::HS512,
    ] {
        let mut scene = Scene::new("algorithm").unwrap();
        scene.issuer = Issuer::new(algorithm).unwrap();
        let jwt = &mut scene.config.identity.jwt[0];
        jwt.keys = match scene.issuer.jwks() {
            Ok(jwks) => Keys::JwksFile(scene.bed.write("keys.json", jwks).unwrap()),
            Err(_) => {
                let secret = enforcer_tests::issuer::SECRET;
                Keys::SecretFile(scene.bed.write("secret", secret).unwrap())
            }
        };
        jwt.algorithms = vec![scene.issuer.algorithm()];
        let _daemon = scene.start().unwrap();
        let token = scene.issuer.sign(&good()).unwrap();
        let answer = scene.client().unwrap().get("/headers", &token).unwrap();
        assert_eq!(answer.status, 200, "{algorithm:?}");
    }
}
