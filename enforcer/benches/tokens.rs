//! What it costs to validate a token: seen before (`warm`), and for the first time (`cold`).

use std::{hint::black_box, path::Path, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use enforcer::{
    authn::Authenticator,
    clock::Now,
    config::{Identity, JwtIssuer, KeySource},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, RsaKeySize};
use serde_json::json;

/// An issuer with a key of its own, and a token of the usual size.
struct Bench {
    identity: Identity,
    token: String,
    now: Now,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(algorithm: Algorithm) -> Self {
        let key = key(algorithm);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        std::fs::write(&path, key.public_key_pem()).expect("a key file");
        let now = Now::read();
        Self {
            identity: identity(algorithm, &path),
            token: token(algorithm, &key, now),
            now,
            _folder: folder,
        }
    }

    fn authenticator(&self) -> Authenticator {
        Authenticator::load(&self.identity).expect("an authenticator")
    }
}

fn key(algorithm: Algorithm) -> KeyPair {
    let made = match algorithm {
        Algorithm::RS256 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        Algorithm::ES256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        _ => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    };
    made.expect("a key")
}

fn identity(algorithm: Algorithm, key: &Path) -> Identity {
    Identity {
        jwt: vec![JwtIssuer {
            issuer: "https://idp.example".to_owned(),
            audience: vec!["api".to_owned()],
            keys: KeySource::PublicKeyFile(key.to_owned()),
            algorithms: vec![algorithm],
            certificate_bound: false,
            leeway: Duration::from_secs(30),
        }],
        introspection: Vec::new(),
    }
}

fn token(algorithm: Algorithm, key: &KeyPair, now: Now) -> String {
    let pem = key.serialize_pem();
    let signing = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        _ => EncodingKey::from_ed_pem(pem.as_bytes()),
    };
    let issued = now.wall.as_unix_seconds();
    let claims = json!({
        "iss": "https://idp.example",
        "sub": "0195b3f2-7c1e-7a55-9d61-1a1f5f0a7c3e",
        "aud": ["api", "account"],
        "iat": issued, "nbf": issued, "auth_time": issued, "exp": issued + 3600,
        "jti": "0195b3f2-8d2f-7b66-ae72-2b2060b18d4f",
        "sid": "0195b3f2-9e30-7c77-bf83-3c3171c29e50",
        "azp": "shop", "acr": "aal2", "amr": ["pwd", "otp"],
        "scope": "openid profile email orders:read orders:write",
        "roles": ["customer", "reviewer", "beta"],
        "name": "Alice Example", "email": "alice@shop.example", "email_verified": true,
    });
    let mut header = Header::new(algorithm);
    header.kid = Some("2026-01".to_owned());
    jsonwebtoken::encode(&header, &claims, &signing.expect("a signing key")).expect("a token")
}

fn validate(criterion: &mut Criterion) {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let bench = Bench::new(algorithm);
        let mut group = criterion.benchmark_group(format!("{algorithm:?}"));
        let known = bench.authenticator();
        known.validate(&bench.token, bench.now).expect("accepted");
        group.bench_function("warm", |bencher| {
            bencher.iter(|| known.validate(black_box(&bench.token), Now::read()));
        });
        group.bench_function("cold", |bencher| {
            bencher.iter_batched(
                || bench.authenticator(),
                |authenticator| {
                    let accepted = authenticator.validate(black_box(&bench.token), bench.now);
                    // Dropping it is not what is measured.
                    (accepted, authenticator)
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, validate);
criterion_main!(benches);
