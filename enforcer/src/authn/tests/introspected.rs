//! Answers of an introspection endpoint.

use super::*;
use crate::{
    authn::introspected::{Active, Introspected, read},
    config::{ClientProof, Introspection, IntrospectionClient, Outbound},
};

fn endpoint() -> Introspection {
    Introspection {
        issuer: "https://idp.example".to_owned(),
        endpoint: "https://idp.example/introspect".parse().unwrap(),
        audience: vec!["api".to_owned()],
        token_prefix: String::new(),
        client: IntrospectionClient {
            id: "enforcer".to_owned(),
            proof: ClientProof::Tls,
        },
        active_ttl: Duration::from_secs(30),
        inactive_ttl: Duration::from_secs(10),
        stale_ttl: Duration::from_secs(60),
        recheck_interval: Duration::from_secs(30),
        default_token_lifetime: Duration::from_secs(600),
        certificate_bound: false,
        leeway: Duration::from_secs(LEEWAY),
        outbound: Outbound::default(),
    }
}

/// An active token's answer with some members set, or removed where the value is null.
fn answer(changes: Value) -> String {
    let mut answer = claims_with(changes);
    answer["active"] = answer.get("active").cloned().unwrap_or(json!(true));
    answer.to_string()
}

fn read_by(rules: &Introspection, answer: &str) -> Result<Active, Introspected> {
    read(answer.as_bytes(), "opaque", rules, at(NOW))
}

fn code(answer: &str) -> &'static str {
    match read_by(&endpoint(), answer) {
        Ok(active) => match active.identify(at(NOW)) {
            Ok(_) => "accepted",
            Err(error) => error.code(),
        },
        Err(Introspected::Token(error)) => error.code(),
        Err(Introspected::Senseless) => "senseless",
    }
}

#[test]
fn an_answer_is_taken_for_what_it_says() {
    for (answer, expected) in [
        (answer(json!({})), "accepted"),
        (answer(json!({"iss": null})), "accepted"),
        (answer(json!({"token_type": "bearer"})), "accepted"),
        (
            answer(json!({"sub": null, "client_id": "shop"})),
            "accepted",
        ),
        (answer(json!({"exp": null})), "accepted"),
        (answer(json!({"active": false})), "token_inactive"),
        (r#"{"active":false}"#.to_owned(), "token_inactive"),
        (
            answer(json!({"token_type": "refresh_token"})),
            "token_not_bearer",
        ),
        (
            answer(json!({"iss": "https://other.example"})),
            "issuer_mismatch",
        ),
        (answer(json!({"aud": null})), "claim_missing"),
        (answer(json!({"aud": "other"})), "audience_mismatch"),
        (answer(json!({"sub": null})), "claim_missing"),
        (answer(json!({"sub": "a\nb"})), "claim_invalid"),
        (answer(json!({"exp": NOW})), "token_expired"),
        (answer(json!({"nbf": NOW + 31})), "token_not_yet_valid"),
        (answer(json!({"active": "true"})), "senseless"),
        (answer(json!({"exp": "tomorrow"})), "senseless"),
        (r#"{"active":true,"active":true}"#.to_owned(), "senseless"),
        ("{}".to_owned(), "senseless"),
        ("true".to_owned(), "senseless"),
        (String::new(), "senseless"),
        (
            format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)),
            "senseless",
        ),
        (
            format!(
                r#"{{"active":true,"x":{}1{}}}"#,
                "[".repeat(9_999),
                "]".repeat(9_999)
            ),
            "senseless",
        ),
    ] {
        assert_eq!(
            code(&answer),
            expected,
            "{}",
            &answer[..answer.len().min(200)]
        );
    }
}

#[test]
fn without_exp_a_token_lives_as_long_as_configured() {
    let active = read_by(&endpoint(), &answer(json!({"exp": null}))).unwrap();
    assert_eq!(active.credential().expires_at, at(NOW + 600));
    let client = answer(json!({"sub": null, "client_id": "shop", "scope": "read"}));
    let active = read_by(&endpoint(), &client).unwrap();
    assert_eq!(active.credential().principal.subject, "shop");
    let claims = &active.identify(at(NOW)).unwrap().claims;
    assert_eq!(claims.scopes().collect::<Vec<_>>(), ["read"]);
}

#[test]
fn the_same_token_of_another_subject_is_another_session() {
    let key = |sub: &str| {
        let active = read_by(&endpoint(), &answer(json!({ "sub": sub }))).unwrap();
        active.credential().key
    };
    assert_eq!(key("alice"), key("alice"));
    assert_ne!(key("alice"), key("mallory"));
}

#[test]
fn a_second_signature_of_a_jwt_makes_no_second_session() {
    let key_of = |token: &str| {
        let answer = answer(json!({}));
        let active = read(answer.as_bytes(), token, &endpoint(), at(NOW)).unwrap();
        active.credential().key
    };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let header = Header::new(Algorithm::ES256);
    // Each signature has a number in it that is chosen at random.
    let [first, second] = [(); 2].map(|()| sign_with(&header, &claims(), &key));
    assert_ne!(first, second);
    assert_eq!(key_of(&first), key_of(&second));
    let another = sign_with(&header, &claims_with(json!({"scope": "more"})), &key);
    assert_ne!(key_of(&first), key_of(&another));
    // What only looks like one is opaque to its last character.
    for [one, other] in [["v4.local.one", "v4.local.other"], ["eyJ.a.b", "eyJ.a.c"]] {
        assert_ne!(key_of(one), key_of(other));
    }
}

#[test]
fn without_an_audience_nobody_looks_at_it() {
    let rules = Introspection {
        audience: Vec::new(),
        ..endpoint()
    };
    for audience in [json!(null), json!("other")] {
        assert!(read_by(&rules, &answer(json!({ "aud": audience }))).is_ok());
    }
}
