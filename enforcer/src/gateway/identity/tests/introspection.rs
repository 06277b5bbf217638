//! Issuers that are asked about their tokens.

use super::*;
use crate::{
    channel::{EndCause, SessionView},
    config::{ClientProof, Introspection, IntrospectionClient, Outbound},
    gateway::sessions::{SessionHandle, SessionTable, tests::view},
    session::SessionId,
};

const NAME: &str = "https://idp.example";

fn endpoint(issuer: &Issuer, secret: &Path) -> Introspection {
    Introspection {
        issuer: NAME.to_owned(),
        endpoint: issuer.url("/introspect"),
        audience: Vec::new(),
        token_prefix: String::new(),
        client: IntrospectionClient {
            id: "enforcer:1".to_owned(),
            proof: ClientProof::SecretBasic(secret.to_owned()),
        },
        active_ttl: Duration::from_millis(300),
        inactive_ttl: Duration::from_millis(300),
        stale_ttl: Duration::ZERO,
        recheck_interval: Duration::from_millis(200),
        default_token_lifetime: Duration::from_secs(60),
        leeway: Duration::ZERO,
        outbound: Outbound {
            timeout: Duration::from_millis(500),
            ..issuer.outbound()
        },
    }
}

/// What the issuer says of every token, with its name in it as `sub`.
#[derive(Clone)]
struct Opinion(Arc<Mutex<Value>>);

impl Opinion {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(
            json!({"active": true, "sub": "alice"}),
        )))
    }

    fn set(&self, answer: Value) {
        *self.0.lock().unwrap() = answer;
    }

    /// The issuer, and somebody who asks it.
    async fn asked(&self, change: impl FnOnce(&mut Introspection)) -> (Issuer, Identifier) {
        let opinion = self.clone();
        let issuer = Issuer::new(move |_| match &*opinion.0.lock().unwrap() {
            Value::Null => Said::Hanging("HTTP/1.1 200 OK\r\n".to_owned()),
            Value::Number(code) => status(code.as_u64().unwrap() as u16),
            answer => ok(&answer.to_string()),
        })
        .await;
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s3cret&more\n").unwrap();
        let mut rules = endpoint(&issuer, secret.path());
        change(&mut rules);
        let identity = Identity {
            jwt: Vec::new(),
            introspection: vec![rules],
        };
        let identifier = Identifier::load(&identity, &mut NativeRoots::default()).unwrap();
        (issuer, identifier)
    }
}

#[tokio::test]
async fn a_token_is_asked_about_once_and_again_when_the_answer_is_old() {
    let opinion = Opinion::new();
    let (issuer, identifier) = opinion.asked(|_| {}).await;
    let identifier = Arc::new(identifier);
    let together: Vec<_> = (0..50)
        .map(|_| {
            let identifier = Arc::clone(&identifier);
            tokio::spawn(async move { code(&identifier, "token-1").await })
        })
        .collect();
    for one in together {
        assert_eq!(one.await.unwrap(), "accepted");
    }
    let questions = issuer.questions();
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].line, "POST /introspect HTTP/1.1");
    assert_eq!(
        questions[0].body,
        "token=token-1&token_type_hint=access_token"
    );
    // enforcer%3A1:s3cret%26more
    let basic = "Basic ZW5mb3JjZXIlM0ExOnMzY3JldCUyNm1vcmU=";
    assert!(questions[0].head.contains(basic), "{}", questions[0].head);
    opinion.set(json!({"active": false}));
    assert_eq!(code(&identifier, "token-1").await, "accepted");
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        assert_eq!(code(&identifier, "token-1").await, "token_inactive");
    }
    assert_eq!(issuer.questions().len(), 2);
    opinion.set(json!({"active": true, "sub": "alice"}));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(code(&identifier, "token-1").await, "accepted");
}

#[tokio::test]
async fn a_client_may_be_named_in_the_form() {
    let opinion = Opinion::new();
    let post = |rules: &mut Introspection| {
        let ClientProof::SecretBasic(path) = &rules.client.proof else {
            panic!("{rules:?}");
        };
        rules.client.proof = ClientProof::SecretPost(path.clone());
    };
    let (issuer, identifier) = opinion.asked(post).await;
    assert_eq!(code(&identifier, "t").await, "accepted");
    let question = &issuer.questions()[0];
    assert_eq!(
        question.body,
        "token=t&token_type_hint=access_token&client_id=enforcer%3A1&client_secret=s3cret%26more"
    );
    assert!(!question.head.to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn what_no_token_can_be_is_not_asked_about() {
    let (issuer, identifier) = Opinion::new().asked(|_| {}).await;
    for bad in ["", "a b", "t\u{e9}", "t&x=1", &"x".repeat(20_000)] {
        let code = code(&identifier, bad).await;
        assert!(
            matches!(code, "token_malformed" | "token_too_long"),
            "{code}"
        );
    }
    assert!(issuer.questions().is_empty());
}

#[tokio::test]
async fn no_answer_is_the_issuers_fault() {
    let opinion = Opinion::new();
    let (_issuer, identifier) = opinion.asked(|_| {}).await;
    for senseless in [
        json!(null),
        json!(500),
        json!(401),
        json!(302),
        json!([]),
        json!({}),
    ] {
        opinion.set(senseless.clone());
        let code = code(&identifier, "t").await;
        assert_eq!(code, "introspection_unavailable", "{senseless}");
    }
}

#[tokio::test]
async fn an_old_answer_serves_in_an_outage_up_to_its_limit() {
    let opinion = Opinion::new();
    let stale = |rules: &mut Introspection| rules.stale_ttl = Duration::from_millis(700);
    let (issuer, identifier) = opinion.asked(stale).await;
    assert_eq!(code(&identifier, "t").await, "accepted");
    opinion.set(json!(503));
    tokio::time::sleep(Duration::from_millis(350)).await;
    for _ in 0..20 {
        assert_eq!(code(&identifier, "t").await, "accepted");
    }
    assert_eq!(issuer.questions().len(), 2);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(code(&identifier, "t").await, "introspection_unavailable");
}

#[tokio::test]
async fn a_token_that_changes_hands_is_worth_nothing_any_more() {
    let opinion = Opinion::new();
    let (_issuer, identifier) = opinion.asked(|_| {}).await;
    assert_eq!(code(&identifier, "t").await, "accepted");
    for answer in [
        json!({"active": true, "sub": "mallory"}),
        json!({"active": true, "sub": "alice"}),
    ] {
        opinion.set(answer);
        tokio::time::sleep(Duration::from_millis(350)).await;
        assert_eq!(code(&identifier, "t").await, "principal_changed");
    }
    opinion.set(json!({"active": true, "sub": "alice", "iss": "https://other.example"}));
    assert_eq!(code(&identifier, "u").await, "issuer_mismatch");
}

#[tokio::test]
async fn a_jwt_of_an_issuer_that_is_asked_is_asked_about() {
    let (issuer, identifier) = Opinion::new().asked(|_| {}).await;
    let jwt = |issuer: &str| {
        let claims = json!({"iss": issuer, "sub": "mallory"});
        let key = jsonwebtoken::EncodingKey::from_secret(b"anybody");
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let recognized = identifier.identify(&jwt(NAME), Now::read()).await.unwrap();
    assert_eq!(recognized.identified.credential.principal.subject, "alice");
    let other = code(&identifier, &jwt("https://other.example")).await;
    assert_eq!(other, "issuer_unknown");
    assert_eq!(issuer.questions().len(), 1);
}

#[tokio::test]
async fn a_token_is_shown_to_the_issuer_of_its_prefix_alone() {
    let (first, second) = (Opinion::new(), Opinion::new());
    let prefix = |text: &'static str| {
        move |rules: &mut Introspection| {
            rules.token_prefix = text.to_owned();
        }
    };
    let (first, mut identifier) = first.asked(prefix("at_")).await;
    let (second, other) = second.asked(prefix("at_long_")).await;
    identifier.introspectors.extend(other.introspectors);
    identifier
        .introspectors
        .sort_by_key(|it| std::cmp::Reverse(it.token_prefix().len()));
    for (token, expected) in [
        ("at_1", "accepted"),
        ("at_long_1", "accepted"),
        ("rt_1", "token_malformed"),
    ] {
        assert_eq!(code(&identifier, token).await, expected);
    }
    assert_eq!((first.questions().len(), second.questions().len()), (1, 1));
}

/// A session of the link's, as the warden would open it.
fn session(table: &SessionTable) -> SessionHandle {
    let deadline = boot_now().saturating_add(Duration::from_secs(60));
    table.opened(SessionView {
        id: SessionId::from_u64(7).unwrap(),
        deadline,
        ..view(0)
    })
}

async fn follow(identifier: &Identifier, link: &Arc<Link>, session: &SessionHandle) {
    let recognized = identifier.identify("t", Now::read()).await.unwrap();
    recognized.asked.unwrap().follow(link, session);
}

#[tokio::test]
async fn a_session_ends_when_its_token_is_not_active_any_more() {
    let opinion = Opinion::new();
    let (issuer, identifier) = opinion.asked(|_| {}).await;
    let (link, warden) = Warden::new().await;
    let table = SessionTable::default();
    let session = session(&table);
    opinion.set(json!({"active": true, "sub": "alice", "exp": 4_000_000_000_u64}));
    follow(&identifier, &link, &session).await;
    opinion.set(json!({"active": false}));
    let end = ToWarden::End {
        session: session.id(),
        cause: EndCause::TokenInactive,
    };
    assert_eq!(warden.hears().await, end);
    // Said again until the warden has ended it, and not after that.
    assert_eq!(warden.hears().await, end);
    table.apply(&ToGateway::Ended {
        session: session.id(),
        reason: crate::session::EndReason::TokenInactive,
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = issuer.questions().len();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(issuer.questions().len(), asked);
    assert!(
        identifier.introspectors[0]
            .followed
            .lock()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_session_whose_token_nobody_confirms_ends_when_that_has_lasted() {
    let opinion = Opinion::new();
    let stale = |rules: &mut Introspection| rules.stale_ttl = Duration::from_millis(500);
    let (_issuer, identifier) = opinion.asked(stale).await;
    let (link, warden) = Warden::new().await;
    let table = SessionTable::default();
    let session = session(&table);
    let begun = boot_now();
    follow(&identifier, &link, &session).await;
    opinion.set(json!(503));
    let end = ToWarden::End {
        session: session.id(),
        cause: EndCause::TokenUnconfirmed,
    };
    assert_eq!(warden.hears().await, end);
    let lasted = boot_now().saturating_duration_since(begun);
    assert!(lasted >= Duration::from_millis(800), "{lasted:?}");
}

#[tokio::test]
async fn a_session_by_a_token_without_exp_is_renewed_while_the_token_is_active() {
    let opinion = Opinion::new();
    let (_issuer, identifier) = opinion.asked(|_| {}).await;
    let (link, warden) = Warden::new().await;
    let table = SessionTable::default();
    let session = session(&table);
    follow(&identifier, &link, &session).await;
    let mut latest = None;
    for _ in 0..2 {
        let ToWarden::Renew {
            request,
            credential,
            ..
        } = warden.hears().await
        else {
            panic!("something else");
        };
        assert!(latest.replace(credential.expires_at) < Some(credential.expires_at));
        let session = view(60);
        warden.says(ToGateway::Opened { request, session }).await;
    }
}
