use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, jwk::Jwk};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;
use crate::{clock::WallInstant, session::SessionKey};

mod introspected;
mod published;

const NOW: i64 = 1_800_000_000;
const LEEWAY: u64 = 30;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn at(seconds: i64) -> WallInstant {
    WallInstant::from_unix_seconds(seconds)
}

/// The wall clock at a time, and the other at the same one.
fn now_at(wall: WallInstant) -> Now {
    Now {
        boot: BootInstant::from_nanos(wall.as_unix_nanos().unsigned_abs()),
        wall,
    }
}

fn now() -> Now {
    now_at(at(NOW))
}

fn rules(keys: KeySource, algorithms: &[Algorithm]) -> JwtIssuer {
    JwtIssuer {
        issuer: "https://idp.example".to_owned(),
        audience: vec!["api".to_owned(), "admin".to_owned()],
        keys,
        algorithms: algorithms.to_vec(),
        certificate_bound: false,
        leeway: Duration::from_secs(LEEWAY),
    }
}

fn load(issuer: JwtIssuer) -> Result<Authenticator, KeyError> {
    Authenticator::load(&Identity {
        jwt: vec![issuer],
        introspection: Vec::new(),
    })
}

fn with_file(
    content: impl AsRef<[u8]>,
    source: fn(std::path::PathBuf) -> KeySource,
    algorithms: &[Algorithm],
) -> Result<Authenticator, KeyError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    load(rules(source(file.path().to_owned()), algorithms))
}

fn with_secret() -> Authenticator {
    with_file(SECRET, KeySource::SecretFile, &[Algorithm::HS256]).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.example",
        "sub": "alice",
        "aud": "api",
        "exp": NOW + 600,
    })
}

/// The usual claims with some of them set, or removed where the value is null.
fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        let object = claims.as_object_mut().unwrap();
        match value {
            Value::Null => object.remove(name),
            value => object.insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn sign(claims: &Value) -> String {
    sign_with(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(SECRET),
    )
}

fn sign_with(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

/// A token of our own making, signed with the secret whatever its parts say.
fn sign_raw(header: &str, payload: &str) -> String {
    let message = [header, payload]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

fn code(authenticator: &Authenticator, token: &str) -> &'static str {
    match authenticator.validate(token, now()) {
        Ok(_) => "accepted",
        Err(Unaccepted::Token(error)) => error.code(),
        Err(Unaccepted::KeysOutdated { .. }) => "keys_outdated",
        Err(Unaccepted::KeysUnknown { .. }) => "keys_unknown",
    }
}

#[test]
fn a_good_token_becomes_a_credential() {
    let token = sign(&claims_with(json!({
        "aud": ["other", "admin"],
        "sid": "s-1",
        "jti": "t-1",
        "azp": "shop",
        "client_id": "ignored",
        "auth_time": NOW - 5,
        "exp": (NOW as f64) + 1.5,
    })));
    let Identified { credential, claims } = with_secret().validate(&token, now()).unwrap();
    assert_eq!(claims.get("azp"), Some(&json!("shop")));
    assert_eq!(credential.principal.issuer, "https://idp.example");
    assert_eq!(credential.principal.subject, "alice");
    assert_eq!(
        credential.key,
        SessionKey::from_sid(&credential.principal, "s-1")
    );
    assert!(credential.names_session);
    assert_eq!(credential.authorized_party.as_deref(), Some("shop"));
    assert_eq!(credential.authenticated_at, Some(at(NOW - 5)));
    assert_eq!(
        credential.expires_at,
        at(NOW + 1).saturating_add(Duration::from_millis(500))
    );
}

#[test]
fn the_session_key_falls_back_to_jti_and_then_to_the_token() {
    let authenticator = with_secret();
    let token = sign(&claims_with(
        json!({"sid": "", "jti": "t-1", "client_id": "shop"}),
    ));
    let credential = authenticator.validate(&token, now()).unwrap().credential;
    assert_eq!(
        credential.key,
        SessionKey::from_token_id(&credential.principal, "t-1")
    );
    assert!(!credential.names_session);
    assert_eq!(credential.authorized_party.as_deref(), Some("shop"));

    let token = sign(&claims());
    let credential = authenticator.validate(&token, now()).unwrap().credential;
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(credential.key, SessionKey::from_token(signed.as_bytes()));
    assert!(!credential.names_session);
}

#[test]
fn every_algorithm_verifies_with_its_key() {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let pem = |key: &KeyPair| key.serialize_pem().into_bytes();
    let rsa_key = EncodingKey::from_rsa_pem(&pem(&rsa)).unwrap();
    for (key, encoding, algorithm) in [
        (&rsa, rsa_key.clone(), Algorithm::RS256),
        (&rsa, rsa_key.clone(), Algorithm::RS384),
        (&rsa, rsa_key.clone(), Algorithm::RS512),
        (&rsa, rsa_key.clone(), Algorithm::PS256),
        (&rsa, rsa_key.clone(), Algorithm::PS384),
        (&rsa, rsa_key.clone(), Algorithm::PS512),
        (
            &p256,
            EncodingKey::from_ec_pem(&pem(&p256)).unwrap(),
            Algorithm::ES256,
        ),
        (
            &p384,
            EncodingKey::from_ec_pem(&pem(&p384)).unwrap(),
            Algorithm::ES384,
        ),
        (
            &ed25519,
            EncodingKey::from_ed_pem(&pem(&ed25519)).unwrap(),
            Algorithm::EdDSA,
        ),
    ] {
        let token = sign_with(&Header::new(algorithm), &claims(), &encoding);
        let set = json!({"keys": [jwk(key, None)]}).to_string();
        for (content, source) in [
            (key.public_key_pem(), KeySource::PublicKeyFile as fn(_) -> _),
            (certificate(key), KeySource::PublicKeyFile),
            (set, KeySource::JwksFile),
        ] {
            let authenticator = with_file(content, source, &[algorithm]).unwrap();
            assert_eq!(code(&authenticator, &token), "accepted", "{algorithm:?}");
            let forged = tamper(&token);
            assert_eq!(
                code(&authenticator, &forged),
                "signature_invalid",
                "{algorithm:?}"
            );
        }
    }
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let with_break = [SECRET, b"\r\n"].concat();
        let authenticator = with_file(with_break, KeySource::SecretFile, &[algorithm]).unwrap();
        let key = EncodingKey::from_secret(SECRET);
        let token = sign_with(&Header::new(algorithm), &claims(), &key);
        assert_eq!(code(&authenticator, &token), "accepted", "{algorithm:?}");
    }
}

fn certificate(key: &KeyPair) -> String {
    let parameters = rcgen::CertificateParams::new(vec!["idp.example".to_owned()]).unwrap();
    parameters.self_signed(key).unwrap().pem()
}

fn jwk(key: &KeyPair, id: Option<&str>) -> Value {
    let pem = key.public_key_pem();
    let key = DecodingKey::from_rsa_pem(pem.as_bytes())
        .or_else(|_| DecodingKey::from_ec_pem(pem.as_bytes()))
        .or_else(|_| DecodingKey::from_ed_pem(pem.as_bytes()))
        .unwrap();
    let mut jwk = Jwk::from_decoding_key(&key, None).unwrap();
    jwk.common.key_id = id.map(str::to_owned);
    serde_json::to_value(jwk).unwrap()
}

/// The same token with another subject.
fn tamper(token: &str) -> String {
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts[1] = URL_SAFE_NO_PAD.encode(claims_with(json!({"sub": "mallory"})).to_string());
    parts.join(".")
}

#[test]
fn bad_tokens_are_told_apart() {
    let authenticator = with_secret();
    let good = sign(&claims());
    assert_eq!(code(&authenticator, &good), "accepted");

    let payload = claims().to_string();
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(&payload)
    );
    let stranger = EncodingKey::from_secret(b"fedcba9876543210fedcba9876543210");
    let hs512 = Header::new(Algorithm::HS512);
    let changed = |changes: Value| sign(&claims_with(changes));
    for (token, expected) in [
        (String::new(), "token_malformed"),
        ("..".to_owned(), "token_malformed"),
        (format!("{good}.x"), "token_malformed"),
        (good[..good.len() / 2].to_owned(), "token_malformed"),
        (good[..good.len() - 5].to_owned(), "signature_invalid"),
        (format!("{good}="), "signature_invalid"),
        ("x".repeat(100_000), "token_too_long"),
        (changed(json!({"x": "x".repeat(100_000)})), "token_too_long"),
        (unsigned, "algorithm_not_allowed"),
        (
            sign_raw(r#"{"alg":"None"}"#, &payload),
            "algorithm_not_allowed",
        ),
        (
            sign_raw(r#"{"alg":"hs256"}"#, &payload),
            "algorithm_not_allowed",
        ),
        (sign_raw("{}", &payload), "token_malformed"),
        (
            sign_raw(r#"{"alg":"HS256","alg":"HS256"}"#, &payload),
            "token_malformed",
        ),
        (
            sign_raw(r#"{"alg":"HS256","crit":["x"],"x":1}"#, &payload),
            "critical_extension",
        ),
        (
            sign_raw(r#"{"alg":"HS256","crit":null}"#, &payload),
            "critical_extension",
        ),
        (sign_raw(r#"{"alg":"HS256"}"#, "[]"), "token_malformed"),
        (
            sign_raw(r#"{"alg":"HS256"}"#, r#"{"iss":"a","iss":"b"}"#),
            "token_malformed",
        ),
        (
            sign_with(&hs512, &claims(), &EncodingKey::from_secret(SECRET)),
            "algorithm_not_allowed",
        ),
        (
            sign_with(&Header::default(), &claims(), &stranger),
            "signature_invalid",
        ),
        (tamper(&good), "signature_invalid"),
        (
            changed(json!({"iss": "https://evil.example"})),
            "issuer_unknown",
        ),
        (changed(json!({"iss": null})), "claim_missing"),
        (changed(json!({"sub": null})), "claim_missing"),
        (changed(json!({"exp": null})), "claim_missing"),
        (changed(json!({"aud": null})), "claim_missing"),
        (changed(json!({"sub": ""})), "claim_invalid"),
        (changed(json!({"sub": "a\nb"})), "claim_invalid"),
        (changed(json!({"sub": "a".repeat(1025)})), "claim_invalid"),
        (changed(json!({"azp": "a\u{0}"})), "claim_invalid"),
        (changed(json!({"sub": 7})), "token_malformed"),
        (changed(json!({"exp": "tomorrow"})), "token_malformed"),
        (changed(json!({"aud": "other"})), "audience_mismatch"),
        (changed(json!({"aud": []})), "audience_mismatch"),
        (changed(json!({"aud": "ap"})), "audience_mismatch"),
        (changed(json!({"exp": NOW})), "token_expired"),
        (changed(json!({"exp": -1e300})), "token_expired"),
        (changed(json!({"exp": i64::MIN})), "token_expired"),
        (changed(json!({"nbf": NOW + 31})), "token_not_yet_valid"),
        (changed(json!({"iat": NOW + 31})), "token_not_yet_valid"),
        (
            changed(json!({"auth_time": NOW + 31})),
            "token_not_yet_valid",
        ),
        (changed(json!({"iat": u64::MAX})), "token_not_yet_valid"),
        (
            changed(json!({"nbf": NOW + 30, "iat": NOW + 30})),
            "accepted",
        ),
        (
            changed(json!({"exp": 1e300, "nbf": -1e300, "iat": i64::MIN})),
            "accepted",
        ),
        (changed(json!({"exp": (NOW as f64) + 0.5})), "accepted"),
    ] {
        let start = &token[..token.len().min(200)];
        assert_eq!(code(&authenticator, &token), expected, "{start}");
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = key.public_key_pem();
    let set = json!({"keys": [jwk(&key, None)]}).to_string();
    let confused = |secret: &[u8]| {
        sign_with(
            &Header::default(),
            &claims(),
            &EncodingKey::from_secret(secret),
        )
    };
    let by_pem = with_file(&pem, KeySource::PublicKeyFile, &[Algorithm::ES256]).unwrap();
    let by_set = with_file(&set, KeySource::JwksFile, &[Algorithm::ES256]).unwrap();
    for secret in [
        pem.as_bytes(),
        pem.trim().as_bytes(),
        set.as_bytes(),
        key.public_key_raw(),
    ] {
        assert_eq!(code(&by_pem, &confused(secret)), "algorithm_not_allowed");
        assert_eq!(code(&by_set, &confused(secret)), "algorithm_not_allowed");
    }
    // Even a list of algorithms that the configuration would refuse makes no secret of a public key.
    let algorithms = [Algorithm::ES256, Algorithm::HS256];
    let careless = with_file(&pem, KeySource::PublicKeyFile, &algorithms).unwrap();
    assert_eq!(code(&careless, &confused(pem.as_bytes())), "key_unknown");
    let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let set = json!({"keys": [jwk(&key, None), oct]}).to_string();
    let careless = with_file(set, KeySource::JwksFile, &algorithms).unwrap();
    assert_eq!(code(&careless, &sign(&claims())), "key_unknown");
}

#[test]
fn the_key_id_chooses_among_the_keys_of_a_set() {
    let [first, second] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let token = |id: Option<&str>, key: &KeyPair| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = id.map(str::to_owned);
        let key = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
        sign_with(&header, &claims(), &key)
    };
    let set = |keys: Value| {
        with_file(
            json!({ "keys": keys }).to_string(),
            KeySource::JwksFile,
            &[Algorithm::EdDSA],
        )
    };

    let named = set(json!([jwk(&first, Some("1")), jwk(&second, Some("2"))])).unwrap();
    for (id, key, expected) in [
        (Some("1"), &first, "accepted"),
        (Some("2"), &second, "accepted"),
        (Some("1"), &second, "signature_invalid"),
        (Some("3"), &first, "key_unknown"),
        (None, &second, "accepted"),
    ] {
        assert_eq!(code(&named, &token(id, key)), expected, "{id:?}");
    }

    let unnamed = set(json!([jwk(&first, None), jwk(&second, None)])).unwrap();
    assert_eq!(code(&unnamed, &token(Some("3"), &second)), "accepted");

    let mut for_encryption = jwk(&second, None);
    for_encryption["use"] = json!("enc");
    let unknown = json!({"kty": "AKP", "alg": "ML-DSA-44"});
    let mixed = set(json!([unknown, 7, for_encryption, jwk(&first, None)])).unwrap();
    assert_eq!(code(&mixed, &token(None, &first)), "accepted");
    assert_eq!(code(&mixed, &token(None, &second)), "signature_invalid");
}

#[test]
fn sources_without_a_useful_key_are_refused() {
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut off_curve = jwk(&ec, None);
    off_curve["x"] = off_curve["y"].clone();
    let short_rsa = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0x81; 128]), "e": "AQAB"});
    let set = |key: Value| json!({"keys": [key]}).to_string();
    type Source = fn(std::path::PathBuf) -> KeySource;
    let pem: Source = KeySource::PublicKeyFile;
    let jwks: Source = KeySource::JwksFile;
    for (content, source, algorithm, expected) in [
        (ec.serialize_pem(), pem, Algorithm::ES256, "a private key"),
        (
            ec.public_key_pem(),
            pem,
            Algorithm::RS256,
            "no key for RS256",
        ),
        (
            ec.public_key_pem(),
            pem,
            Algorithm::ES384,
            "no key for ES384",
        ),
        (
            "hello".to_owned(),
            pem,
            Algorithm::ES256,
            "no PEM public key",
        ),
        (String::new(), pem, Algorithm::ES256, "no PEM public key"),
        ("{}".to_owned(), jwks, Algorithm::ES256, "not a JWK set"),
        (
            r#"{"keys":[]}"#.to_owned(),
            jwks,
            Algorithm::ES256,
            "no key for ES256",
        ),
        (set(off_curve), jwks, Algorithm::ES256, "no key for ES256"),
        (set(short_rsa), jwks, Algorithm::RS256, "no key for RS256"),
        (
            "short".to_owned(),
            KeySource::SecretFile,
            Algorithm::HS256,
            "a secret of 5 bytes",
        ),
    ] {
        let error = with_file(content, source, &[algorithm]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.help().is_empty());
    }
    let missing = rules(KeySource::JwksFile(Path::new("/nowhere").to_owned()), &[]);
    assert!(
        load(missing)
            .unwrap_err()
            .to_string()
            .contains("`/nowhere` cannot be read")
    );
}

#[test]
fn time_is_checked_on_every_call() {
    let authenticator = with_secret();
    let token = sign(&claims_with(json!({"nbf": NOW})));
    let validate = |seconds| {
        authenticator
            .validate(&token, now_at(at(seconds)))
            .map_err(|error| match error {
                Unaccepted::Token(error) => error.code(),
                _ => panic!("{error}"),
            })
    };
    let first = validate(NOW).unwrap();
    let later = validate(NOW + 599).unwrap();
    assert!(Arc::ptr_eq(&first.credential, &later.credential));
    assert_eq!(validate(NOW + 600).unwrap_err(), "token_expired");
    assert_eq!(validate(NOW - 31).unwrap_err(), "token_not_yet_valid");
    assert!(validate(NOW - 30).is_ok());
}

#[test]
fn errors_hold_nothing_that_breaks_a_header_or_a_log() {
    let name = "\"\r\n\u{202e}é".repeat(40);
    let error = TokenError::IssuerUnknown {
        issuer: Excerpt::new(&name),
    };
    let text = error.to_string();
    assert!(text.len() < 120, "{text}");
    assert!(
        text.bytes()
            .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
    );
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused(text in ".*") {
        prop_assert!(with_secret().validate(&text, now()).is_err());
    }

    #[test]
    fn arbitrary_parts_never_panic(header in ".*", payload in ".*") {
        prop_assert!(with_secret().validate(&sign_raw(&header, &payload), now()).is_err());
    }

    #[test]
    fn arbitrary_dates_never_panic(
        exp in number(), nbf in number(), iat in number(), auth_time in number(), now: i64,
    ) {
        let token = sign(&claims_with(json!({
            "exp": exp, "nbf": nbf, "iat": iat, "auth_time": auth_time,
        })));
        let now = WallInstant::from_unix_nanos(now);
        if let Ok(identified) = with_secret().validate(&token, now_at(now)) {
            prop_assert!(identified.credential.expires_at > now);
        }
    }

    #[test]
    fn a_changed_token_is_refused(position: prop::sample::Index, replacement in "[A-Za-z0-9_.-]") {
        let token = sign(&claims());
        let at_position = position.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at_position..=at_position, &replacement);
        prop_assume!(changed != token);
        prop_assert!(with_secret().validate(&changed, now()).is_err());
    }
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (NOW - 100..NOW + 100).prop_map(Value::from),
    ]
}
