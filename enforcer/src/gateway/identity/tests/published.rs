//! Keys that an issuer publishes.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};

use super::*;
use crate::config::{JwtIssuer, KeyLocation, Outbound, PublishedKeys};

const NAME: &str = "https://idp.example";

/// What the issuer publishes at present.
#[derive(Clone, Default)]
struct Shelf {
    set: Arc<Mutex<Vec<Value>>>,
    down: Arc<AtomicBool>,
}

impl Shelf {
    fn put(&self, keys: &[Value]) {
        *self.set.lock().unwrap() = keys.to_vec();
    }

    fn answer(&self, fields: &str) -> Said {
        if self.down.load(Ordering::Relaxed) {
            return status(500);
        }
        let keys = self.set.lock().unwrap().clone();
        ok_with(fields, &json!({ "keys": keys }).to_string())
    }
}

struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self { id, pair }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.der_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id})
    }

    fn sign(&self, sub: &str) -> String {
        let now = Now::read().wall.as_unix_seconds();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.to_owned());
        let claims = json!({"iss": NAME, "sub": sub, "aud": "api", "exp": now + 600});
        let key = EncodingKey::from_ed_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

fn identifier(location: KeyLocation, outbound: Outbound) -> Identifier {
    identifier_with(location, outbound, Duration::from_secs(3600))
}

fn identifier_with(location: KeyLocation, outbound: Outbound, stale_ttl: Duration) -> Identifier {
    let identity = Identity {
        jwt: vec![JwtIssuer {
            issuer: NAME.to_owned(),
            audience: vec!["api".to_owned()],
            keys: KeySource::Published(Box::new(PublishedKeys {
                location,
                refresh_interval: Duration::from_millis(500),
                stale_ttl,
                outbound,
            })),
            algorithms: vec![Algorithm::EdDSA],
            certificate_bound: false,
            leeway: Duration::ZERO,
        }],
        introspection: Vec::new(),
    };
    Identifier::load(&identity, &mut NativeRoots::default()).unwrap()
}

fn jwks(issuer: &Issuer) -> KeyLocation {
    KeyLocation::Jwks(issuer.url("/keys"))
}

#[tokio::test]
async fn keys_are_found_by_discovery_and_the_warden_hears_of_them() {
    let shelf = Shelf::default();
    let key = Key::new("1");
    shelf.put(&[key.jwk()]);
    let published = shelf.clone();
    let issuer = Issuer::new(move |question| match question.path() {
        "/.well-known/openid-configuration" => {
            let keys = format!("https://localhost:{}/elsewhere", question.port);
            ok(&json!({"issuer": NAME, "jwks_uri": keys}).to_string())
        }
        "/elsewhere" => published.answer(""),
        _ => status(404),
    })
    .await;
    let document = issuer.url("/.well-known/openid-configuration");
    let identifier = identifier(KeyLocation::Discovery(document), issuer.outbound());
    let (link, warden) = Warden::new().await;
    identifier.start(&link);
    // The first request waits for the first answer.
    let identified = identifier.identify(&key.sign("alice"), Now::read()).await;
    let credential = identified.unwrap().identified.credential;
    let ToWarden::IssuerKeys { issuer, keys, .. } = warden.hears().await else {
        panic!("something else");
    };
    assert_eq!(issuer, NAME);
    assert_eq!(keys, [credential.signing_key.unwrap()]);
}

#[tokio::test]
async fn documents_that_lie_or_lead_astray_bring_no_keys() {
    let key = Key::new("1");
    let set = json!({"keys": [key.jwk()]}).to_string();
    let issuer = Issuer::new(move |question| {
        let port = question.port;
        let document =
            |issuer: &str, keys: &str| ok(&json!({"issuer": issuer, "jwks_uri": keys}).to_string());
        let keys = format!("https://localhost:{port}/keys");
        match question.path() {
            "/other" => document("https://other.example", &keys),
            "/slash" => document("https://idp.example/", &keys),
            "/plain" => document(NAME, &format!("http://localhost:{port}/keys")),
            "/metadata" => document(NAME, "https://169.254.169.254/keys"),
            "/bomb" => ok(&format!("{{\"issuer\":{}", "[".repeat(60_000))),
            "/huge" => document(NAME, &format!("https://localhost:{port}/megabytes")),
            "/megabytes" => ok(&" ".repeat(10 * 1024 * 1024)),
            "/keys" => ok(&set),
            "/slow" => Said::Hanging("HTTP/1.1 200 OK\r\n".to_owned()),
            _ => status(404),
        }
    })
    .await;
    for path in [
        "/other",
        "/slash",
        "/plain",
        "/metadata",
        "/bomb",
        "/huge",
        "/slow",
        "/missing",
    ] {
        let document = KeyLocation::Discovery(issuer.url(path));
        let identifier = identifier(document, issuer.outbound());
        let (link, _warden) = Warden::new().await;
        identifier.start(&link);
        let code = code(&identifier, &key.sign("alice")).await;
        assert_eq!(code, "keys_unavailable", "{path}");
    }
}

#[tokio::test]
async fn a_flood_of_invented_key_ids_asks_the_issuer_once_a_second() {
    let shelf = Shelf::default();
    let key = Key::new("1");
    shelf.put(&[key.jwk()]);
    let published = shelf.clone();
    let issuer = Issuer::new(move |_| published.answer("cache-control: max-age=60\r\n")).await;
    let identifier = Arc::new(identifier(jwks(&issuer), issuer.outbound()));
    let (link, _warden) = Warden::new().await;
    identifier.start(&link);
    assert_eq!(code(&identifier, &key.sign("alice")).await, "accepted");
    let before = issuer.questions().len();
    let flood: Vec<_> = (0..200)
        .map(|number: u32| {
            let id = ["x", "../../../etc/passwd", "https://evil.example/keys"][number as usize % 3];
            let token = Key::new(id).sign(&number.to_string());
            let identifier = Arc::clone(&identifier);
            tokio::spawn(async move { code(&identifier, &token).await })
        })
        .collect();
    for refused in flood {
        assert_eq!(refused.await.unwrap(), "key_unknown");
    }
    let questions = issuer.questions();
    assert!(questions.len() - before <= 4, "{}", questions.len());
    assert!(questions.iter().all(|question| question.path() == "/keys"));
}

/// The issuer takes a new key and drops the old one at once, over and over, while others sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_under_load_and_no_valid_token_is_refused() {
    let shelf = Shelf::default();
    let current = Arc::new(Mutex::new(Key::new("0")));
    shelf.put(&[current.lock().unwrap().jwk()]);
    let published = shelf.clone();
    let issuer = Issuer::new(move |_| published.answer("")).await;
    let identifier = Arc::new(identifier(jwks(&issuer), issuer.outbound()));
    let (link, warden) = Warden::new().await;
    let hearing = tokio::spawn(async move {
        loop {
            warden.hears().await;
        }
    });
    identifier.start(&link);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (identifier, current) = (Arc::clone(&identifier), Arc::clone(&current));
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut accepted = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    // Each token is new, and its key may be newer than what the gateway knows.
                    let (token, id) = {
                        let key = current.lock().unwrap();
                        (key.sign(&format!("{client}-{accepted}")), key.id)
                    };
                    let code = code(&identifier, &token).await;
                    // A key that was withdrawn meanwhile does not count any more.
                    let withdrawn = current.lock().unwrap().id != id;
                    assert!(
                        code == "accepted" || (withdrawn && code == "key_unknown"),
                        "{code}"
                    );
                    accepted += u32::from(code == "accepted");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                accepted
            })
        })
        .collect();
    for id in ["1", "2", "3"] {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let next = Key::new(id);
        let mut current = current.lock().unwrap();
        shelf.put(&[next.jwk()]);
        *current = next;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 20);
    }
    hearing.abort();
}

#[tokio::test]
async fn an_issuer_may_withdraw_all_of_its_keys() {
    let shelf = Shelf::default();
    let key = Key::new("1");
    shelf.put(&[key.jwk()]);
    let published = shelf.clone();
    let issuer = Issuer::new(move |_| published.answer("")).await;
    let identifier = identifier(jwks(&issuer), issuer.outbound());
    let (link, warden) = Warden::new().await;
    identifier.start(&link);
    let token = key.sign("alice");
    assert_eq!(code(&identifier, &token).await, "accepted");
    let withdrawn_by = async || {
        while let ToWarden::IssuerKeys { keys, .. } = warden.hears().await {
            if keys.is_empty() {
                return;
            }
        }
        panic!("something else");
    };
    // A set that is of no use is not a set without keys.
    shelf.put(&[json!({"kty": "unheard of"})]);
    let asked = issuer.questions().len();
    while issuer.questions().len() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(code(&identifier, &token).await, "accepted");
    shelf.put(&[]);
    withdrawn_by().await;
    assert_eq!(code(&identifier, &token).await, "key_unknown");
    // And it may have new ones.
    let next = Key::new("2");
    shelf.put(&[next.jwk()]);
    assert_eq!(code(&identifier, &next.sign("alice")).await, "accepted");
    assert_eq!(code(&identifier, &token).await, "key_unknown");
}

#[tokio::test]
async fn keys_serve_on_in_an_outage_up_to_their_limit() {
    let shelf = Shelf::default();
    let key = Key::new("1");
    let published = shelf.clone();
    shelf.down.store(true, Ordering::Relaxed);
    let issuer = Issuer::new(move |_| published.answer("")).await;
    let outbound = issuer.outbound();
    let identifier = identifier_with(jwks(&issuer), outbound, Duration::from_millis(1_000));
    let (link, _warden) = Warden::new().await;
    identifier.start(&link);
    assert_eq!(code(&identifier, &key.sign("a")).await, "keys_unavailable");
    shelf.put(&[key.jwk()]);
    shelf.down.store(false, Ordering::Relaxed);
    assert_eq!(code(&identifier, &key.sign("b")).await, "accepted");
    shelf.down.store(true, Ordering::Relaxed);
    let known = key.sign("b");
    assert_eq!(code(&identifier, &known).await, "accepted");
    // Whose fault it is that a key is unknown, nobody can say now.
    let unknown = Key::new("2").sign("c");
    assert_eq!(code(&identifier, &unknown).await, "keys_unavailable");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(code(&identifier, &known).await, "keys_unavailable");
    shelf.down.store(false, Ordering::Relaxed);
    assert_eq!(code(&identifier, &known).await, "accepted");
}
