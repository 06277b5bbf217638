//! Keys that come and go.

use super::*;
use crate::config::{KeyLocation, Outbound, PublishedKeys};

const ISSUER: &str = "https://idp.example";

fn published(algorithms: &[Algorithm]) -> JwtIssuer {
    let location = KeyLocation::Jwks("https://idp.example/keys".parse().unwrap());
    let keys = PublishedKeys {
        location,
        refresh_interval: Duration::from_secs(300),
        stale_ttl: Duration::from_secs(3600),
        outbound: Outbound::default(),
    };
    rules(KeySource::Published(Box::new(keys)), algorithms)
}

/// An authenticator, and what brings it keys that are good for ten seconds from `NOW`.
struct Issuer {
    rules: JwtIssuer,
    authenticator: Authenticator,
}

impl Issuer {
    fn new() -> Self {
        let rules = published(&[Algorithm::EdDSA]);
        let authenticator = load(rules.clone()).unwrap();
        Self {
            rules,
            authenticator,
        }
    }

    fn publish(&self, keys: &[Value]) {
        let set = json!({ "keys": keys }).to_string();
        let set = KeySet::parse(&self.rules, set.as_bytes()).unwrap();
        let end = now().boot.saturating_add(Duration::from_secs(10));
        self.authenticator.publish(ISSUER, set, end);
    }

    fn code_at(&self, token: &str, seconds: u64) -> &'static str {
        let later = at(NOW).saturating_add(Duration::from_secs(seconds));
        match self.authenticator.validate(token, now_at(later)) {
            Ok(_) => "accepted",
            Err(Unaccepted::Token(error)) => error.code(),
            Err(Unaccepted::KeysOutdated { .. }) => "keys_outdated",
            Err(Unaccepted::KeysUnknown { .. }) => "keys_unknown",
        }
    }
}

fn token(id: Option<&str>, key: &KeyPair) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = id.map(str::to_owned);
    let key = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
    sign_with(&header, &claims(), &key)
}

#[test]
fn keys_count_from_when_they_are_published_until_they_are_withdrawn() {
    let [first, second] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let (by_first, by_second) = (token(Some("1"), &first), token(Some("2"), &second));
    let issuer = Issuer::new();
    assert_eq!(issuer.code_at(&by_first, 0), "keys_unknown");
    issuer.publish(&[jwk(&first, Some("1"))]);
    assert_eq!(issuer.code_at(&by_first, 0), "accepted");
    assert_eq!(issuer.code_at(&by_second, 0), "keys_outdated");
    issuer.publish(&[jwk(&first, Some("1")), jwk(&second, Some("2"))]);
    assert_eq!(issuer.code_at(&by_first, 0), "accepted");
    assert_eq!(issuer.code_at(&by_second, 0), "accepted");
    // The cache knows the first, and must not say so.
    issuer.publish(&[jwk(&second, Some("2"))]);
    assert_eq!(issuer.code_at(&by_first, 0), "keys_outdated");
    assert_eq!(issuer.code_at(&by_second, 0), "accepted");
}

#[test]
fn keys_that_nobody_confirms_end() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let token = token(Some("1"), &key);
    let issuer = Issuer::new();
    issuer.publish(&[jwk(&key, Some("1"))]);
    assert_eq!(issuer.code_at(&token, 9), "accepted");
    assert_eq!(issuer.code_at(&token, 10), "keys_unknown");
    let set = json!({"keys": [jwk(&key, Some("renamed"))]}).to_string();
    let set = KeySet::parse(&issuer.rules, set.as_bytes()).unwrap();
    let end = now().boot.saturating_add(Duration::from_secs(20));
    issuer.authenticator.publish(ISSUER, set, end);
    // The same key under another name: what it has signed still counts.
    assert_eq!(issuer.code_at(&token, 19), "accepted");
}

#[test]
fn a_bad_signature_by_a_named_key_asks_for_no_newer_ones() {
    let [first, second] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let issuer = Issuer::new();
    issuer.publish(&[jwk(&first, Some("1"))]);
    let code = |id| issuer.code_at(&token(id, &second), 0);
    assert_eq!(code(Some("1")), "signature_invalid");
    assert_eq!(code(Some("../../etc/passwd")), "keys_outdated");
    assert_eq!(code(None), "keys_outdated");
    issuer.publish(&[jwk(&first, None)]);
    assert_eq!(code(Some("1")), "keys_outdated");
}

#[test]
fn a_credential_says_which_key_signed_it() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let issuer = Issuer::new();
    issuer.publish(&[jwk(&key, Some("1"))]);
    let identified = issuer
        .authenticator
        .validate(&token(Some("1"), &key), now());
    let signed_by = identified.unwrap().credential.signing_key;
    let set = json!({"keys": [jwk(&key, None)]}).to_string();
    let set = KeySet::parse(&issuer.rules, set.as_bytes()).unwrap();
    assert_eq!(set.thumbprints(), [signed_by.unwrap()]);
    // The example of RFC 8037, appendix A.3.
    let example = json!({"keys": [{
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }]});
    let set = KeySet::parse(&issuer.rules, example.to_string().as_bytes()).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(set.thumbprints()[0].as_bytes());
    assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let secret = with_secret().validate(&sign(&claims()), now()).unwrap();
    assert_eq!(secret.credential.signing_key, None);
}

#[test]
fn two_issuers_are_not_mixed_up_by_the_same_key_id() {
    let [ours, theirs] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let other = "https://other.example";
    let mut rules = [
        published(&[Algorithm::EdDSA]),
        published(&[Algorithm::EdDSA]),
    ];
    rules[1].issuer = other.to_owned();
    let authenticator = Authenticator::load(&Identity {
        jwt: rules.to_vec(),
        introspection: Vec::new(),
    });
    let authenticator = authenticator.unwrap();
    let end = BootInstant::from_nanos(u64::MAX);
    for (rules, key) in rules.iter().zip([&ours, &theirs]) {
        let set = json!({"keys": [jwk(key, Some("1"))]}).to_string();
        let set = KeySet::parse(rules, set.as_bytes()).unwrap();
        authenticator.publish(&rules.issuer, set, end);
    }
    let signed = |issuer: &str, key: &KeyPair| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("1".to_owned());
        let key = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
        sign_with(&header, &claims_with(json!({ "iss": issuer })), &key)
    };
    for (issuer, key, expected) in [
        (ISSUER, &ours, "accepted"),
        (other, &theirs, "accepted"),
        (ISSUER, &theirs, "signature_invalid"),
        (other, &ours, "signature_invalid"),
    ] {
        assert_eq!(code(&authenticator, &signed(issuer, key)), expected);
    }
}

#[test]
fn an_issuers_clock_may_be_off_by_the_leeway_and_no_more() {
    let skewed = |leeway: u64, skew: i64| {
        let rules = JwtIssuer {
            leeway: Duration::from_secs(leeway),
            ..published(&[Algorithm::EdDSA])
        };
        let authenticator = load(rules.clone()).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let set = json!({"keys": [jwk(&key, None)]}).to_string();
        let set = KeySet::parse(&rules, set.as_bytes()).unwrap();
        authenticator.publish(ISSUER, set, BootInstant::from_nanos(u64::MAX));
        // Issued now by the issuer's clock, for four minutes.
        let issued = NOW + skew;
        let claims = claims_with(json!({"iat": issued, "nbf": issued, "exp": issued + 240}));
        let signing = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
        code(
            &authenticator,
            &sign_with(&Header::new(Algorithm::EdDSA), &claims, &signing),
        )
    };
    assert_eq!(skewed(30, 0), "accepted");
    assert_eq!(skewed(30, 300), "token_not_yet_valid");
    assert_eq!(skewed(300, 300), "accepted");
    // `exp` is a deadline: no leeway helps a token that is over.
    assert_eq!(skewed(30, -300), "token_expired");
    assert_eq!(skewed(300, -300), "token_expired");
}

#[test]
fn sets_that_are_bombs_are_refused() {
    let rules = published(&[Algorithm::EdDSA]);
    let fault = |content: &str| KeySet::parse(&rules, content.as_bytes()).unwrap_err();
    let nested = format!(
        "{{\"keys\": {}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(matches!(fault(&nested), KeyFault::NotAKeySet(_)));
    let key = jwk(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), None);
    let many = json!({ "keys": vec![key; 65] }).to_string();
    assert!(matches!(fault(&many), KeyFault::TooMany(65)));
}

#[test]
fn only_a_published_set_may_be_empty_and_only_if_it_lists_nothing() {
    const EMPTY: &[u8] = br#"{"keys": []}"#;
    const UNFIT: &[u8] = br#"{"keys": [{"kty": "unheard of"}, 7]}"#;
    let rules = published(&[Algorithm::EdDSA]);
    assert!(KeySet::parse(&rules, EMPTY).unwrap().is_empty());
    let unfit = KeySet::parse(&rules, UNFIT).unwrap_err();
    assert!(matches!(unfit, KeyFault::NoKeyFor(_)));
    for malformed in ["{}", "[]", "", r#"{"keys": null}"#, r#"{"keys": {}}"#] {
        let fault = KeySet::parse(&rules, malformed.as_bytes()).unwrap_err();
        assert!(matches!(fault, KeyFault::NotAKeySet(_)), "{malformed}");
    }
    let in_file = with_file(EMPTY, KeySource::JwksFile, &[Algorithm::EdDSA]).unwrap_err();
    assert!(matches!(in_file.fault, KeyFault::NoKeyFor(_)));
}
