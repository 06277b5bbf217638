//! Issuers that are asked about their tokens.

use super::{
    turns::{AT_A_TIME, Acquaintance},
    *,
};
use crate::{
    authn::TokenDigest,
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
        certificate_bound: false,
        leeway: Duration::ZERO,
        outbound: Outbound {
            timeout: Duration::from_millis(500),
            ..issuer.outbound()
        },
    }
}

/// What the issuer says of tokens: JSON, the number of a status, or nothing at all.
#[derive(Clone)]
struct Opinion {
    of_all: Arc<Mutex<Value>>,
    /// Of some it has one of their own.
    of_some: Arc<Mutex<HashMap<String, Value>>>,
}

impl Opinion {
    fn new() -> Self {
        let alice = json!({"active": true, "sub": "alice"});
        Self {
            of_all: Arc::new(Mutex::new(alice)),
            of_some: Arc::default(),
        }
    }

    fn set(&self, answer: Value) {
        *self.of_all.lock().unwrap() = answer;
    }

    fn set_of(&self, token: &str, answer: Value) {
        let question = format!("token={token}&token_type_hint=access_token");
        self.of_some.lock().unwrap().insert(question, answer);
    }

    fn of(&self, question: &Question) -> Value {
        let own = self.of_some.lock().unwrap().get(&question.body).cloned();
        own.unwrap_or_else(|| self.of_all.lock().unwrap().clone())
    }

    /// The issuer, and somebody who asks it.
    async fn asked(&self, change: impl FnOnce(&mut Introspection)) -> (Issuer, Identifier) {
        let opinion = self.clone();
        let issuer = Issuer::new(move |question| match opinion.of(question) {
            Value::Null => Said::Hanging("HTTP/1.1 200 OK\r\n".to_owned()),
            Value::Number(code) => status(code.as_u64().unwrap() as u16),
            answer => ok(&answer.to_string()),
        })
        .await;
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s3cret&more\n").unwrap();
        let mut rules = endpoint(&issuer, secret.path());
        change(&mut rules);
        let identifier = identifier(rules);
        (issuer, identifier)
    }
}

fn identifier(rules: Introspection) -> Identifier {
    let identity = Identity {
        jwt: Vec::new(),
        introspection: vec![rules],
    };
    Identifier::load(&identity, &mut NativeRoots::default()).unwrap()
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
async fn a_client_may_be_known_by_its_certificate() {
    let alice = json!({"active": true, "sub": "alice"}).to_string();
    let issuer = Issuer::with_client_certificates(move |_| ok(&alice)).await;
    let rules = |client_certificate| {
        let mut rules = endpoint(&issuer, Path::new(""));
        rules.client.proof = ClientProof::Tls;
        rules.outbound.client_certificate = client_certificate;
        identifier(rules)
    };
    let shown = rules(Some((issuer.ca(), issuer.private_key())));
    assert_eq!(code(&shown, "t").await, "accepted");
    let hidden = rules(None);
    assert_eq!(code(&hidden, "t").await, "introspection_unavailable");
    let [question] = &issuer.questions()[..] else {
        panic!("{:?}", issuer.questions());
    };
    assert_eq!(
        question.body,
        "token=t&token_type_hint=access_token&client_id=enforcer%3A1"
    );
    assert!(!question.head.to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn a_token_ends_at_its_exp_however_fresh_the_answer_is() {
    let opinion = Opinion::new();
    let long = |rules: &mut Introspection| rules.active_ttl = Duration::from_secs(60);
    let (issuer, identifier) = opinion.asked(long).await;
    let expires_at = Now::read().wall.as_unix_seconds() + 2;
    opinion.set(json!({"active": true, "sub": "alice", "exp": expires_at}));
    let mut last = code(&identifier, "t").await;
    assert_eq!(last, "accepted");
    while last == "accepted" {
        assert!(Now::read().wall.as_unix_seconds() <= expires_at);
        tokio::time::sleep(Duration::from_millis(10)).await;
        last = code(&identifier, "t").await;
    }
    assert!(Now::read().wall.as_unix_seconds() >= expires_at);
    assert_eq!(last, "token_expired");
    assert_eq!(issuer.questions().len(), 1);
}

#[tokio::test]
async fn tokens_may_have_to_be_bound_to_certificates() {
    let bound = |rules: &mut Introspection| rules.certificate_bound = true;
    for (identifier, expected) in [
        (Opinion::new().asked(|_| {}).await, false),
        (Opinion::new().asked(bound).await, true),
    ] {
        let (_issuer, identifier) = identifier;
        let asked = identifier.identify("t", Now::read()).await.unwrap().asked;
        assert_eq!(
            identifier.binds_certificates(NAME, asked.as_ref()),
            expected
        );
        // Of what the issuer signs that says nothing.
        assert!(!identifier.binds_certificates(NAME, None));
    }
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
async fn an_old_answer_serves_at_once_while_the_endpoint_hangs() {
    let opinion = Opinion::new();
    let stale = |rules: &mut Introspection| rules.stale_ttl = Duration::from_secs(60);
    let (issuer, identifier) = opinion.asked(stale).await;
    assert_eq!(code(&identifier, "t").await, "accepted");
    opinion.set(json!(null));
    tokio::time::sleep(Duration::from_millis(350)).await;
    // The first has to find out.
    assert_eq!(code(&identifier, "t").await, "accepted");
    let begun = boot_now();
    let prompt = async |expected: usize| {
        while issuer.questions().len() < expected {
            let asked_at = boot_now();
            assert_eq!(code(&identifier, "t").await, "accepted");
            let took = boot_now().saturating_duration_since(asked_at);
            assert!(took < Duration::from_millis(300), "{took:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // It is tried again meanwhile, and nobody waits for that.
    prompt(4).await;
    let lasted = boot_now().saturating_duration_since(begun);
    assert!(lasted > Duration::from_secs(2), "{lasted:?}");
    opinion.set(json!({"active": false}));
    while code(&identifier, "t").await == "accepted" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code(&identifier, "t").await, "token_inactive");
}

/// Whatever it does to the endpoint, an invented token keeps no revoked one alive.
#[tokio::test]
async fn only_an_outage_lets_old_answers_serve() {
    for (token, answer, expected) in [
        ("invented", json!(400), "token_inactive"),
        ("invented", json!(413), "token_inactive"),
        ("invented", json!(500), "token_inactive"),
        ("invented", json!(null), "token_inactive"),
        ("u", json!(400), "token_inactive"),
        ("u", json!([]), "token_inactive"),
        ("u", json!(429), "accepted"),
        ("u", json!(503), "accepted"),
        ("u", json!(null), "accepted"),
    ] {
        let opinion = Opinion::new();
        let stale = |rules: &mut Introspection| rules.stale_ttl = Duration::from_secs(60);
        let (_issuer, identifier) = opinion.asked(stale).await;
        assert_eq!(code(&identifier, "t").await, "accepted");
        assert_eq!(code(&identifier, "u").await, "accepted");
        opinion.set(json!({"active": false}));
        opinion.set_of(token, answer.clone());
        tokio::time::sleep(Duration::from_millis(350)).await;
        let of_token = code(&identifier, token).await;
        assert!(["accepted", "introspection_unavailable"].contains(&of_token));
        assert_eq!(code(&identifier, "t").await, expected, "{token} {answer}");
    }
}

#[tokio::test]
async fn invented_tokens_wait_for_each_other_and_nobody_for_them() {
    let opinion = Opinion::new();
    let slow = |rules: &mut Introspection| rules.outbound.timeout = Duration::from_secs(2);
    let (issuer, identifier) = opinion.asked(slow).await;
    let identifier = Arc::new(identifier);
    let (link, warden) = Warden::new().await;
    let table = SessionTable::default();
    let session = session(&table);
    opinion.set(json!({"active": true, "sub": "alice", "exp": 4_000_000_000_u64}));
    follow(&identifier, &link, &session).await;
    opinion.set_of(
        "t",
        json!({"active": true, "sub": "alice", "exp": 4_000_000_000_u64}),
    );
    opinion.set(json!(null));
    let flood: Vec<_> = (0..40)
        .map(|number| {
            let identifier = Arc::clone(&identifier);
            let token = format!("invented-{number}");
            tokio::spawn(async move { code(&identifier, &token).await })
        })
        .collect();
    let asked = |what: &str| {
        let questions = issuer.questions();
        let about = questions.iter().filter(|it| it.body.contains(what));
        about.count()
    };
    while asked("invented") < AT_A_TIME {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Live sessions are asked about all the same, and so are tokens that were good before.
    let before = asked("token=t&");
    while asked("token=t&") < before + 3 {
        assert_eq!(code(&identifier, "t").await, "accepted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(asked("invented"), AT_A_TIME);
    opinion.set_of("t", json!({"active": false}));
    let end = ToWarden::End {
        session: session.id(),
        cause: EndCause::TokenInactive,
    };
    assert_eq!(warden.hears().await, end);
    for one in flood {
        assert_eq!(one.await.unwrap(), "introspection_unavailable");
    }
}

#[tokio::test]
async fn a_session_whose_question_has_no_turn_goes_on() {
    let opinion = Opinion::new();
    let brief = |rules: &mut Introspection| rules.outbound.timeout = Duration::from_millis(100);
    let (issuer, identifier) = opinion.asked(brief).await;
    let (link, warden) = Warden::new().await;
    let table = SessionTable::default();
    let session = session(&table);
    opinion.set(json!({"active": true, "sub": "alice", "exp": 4_000_000_000_u64}));
    follow(&identifier, &link, &session).await;
    let introspector = &identifier.introspectors[0];
    let mut turns = Vec::new();
    for _ in 0..AT_A_TIME {
        let turn = introspector.turns.wait(Acquaintance::Known, Duration::MAX);
        turns.push(turn.await.ok().unwrap());
    }
    let asked = issuer.questions().len();
    // Longer than the last word counts when nobody answers.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(issuer.questions().len(), asked);
    opinion.set(json!({"active": false}));
    drop(turns);
    let end = ToWarden::End {
        session: session.id(),
        cause: EndCause::TokenInactive,
    };
    assert_eq!(warden.hears().await, end);
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
async fn a_session_ends_when_its_token_changes_hands_though_its_answer_was_forgotten() {
    let opinion = Opinion::new();
    let rare = |rules: &mut Introspection| rules.recheck_interval = Duration::from_millis(800);
    let (issuer, identifier) = opinion.asked(rare).await;
    let (link, warden) = Warden::new().await;
    let table = SessionTable::default();
    let session = session(&table);
    opinion.set(json!({"active": true, "sub": "alice", "exp": 4_000_000_000_u64}));
    follow(&identifier, &link, &session).await;
    opinion.set(json!({"active": true, "sub": "mallory", "exp": 4_000_000_000_u64}));
    // Others that are in use take its place.
    let introspector = &identifier.introspectors[0];
    let digest = TokenDigest::of("t");
    let answer = introspector.known(&digest).unwrap();
    for number in 0..100_000_u32 {
        let other = TokenDigest::of(&number.to_string());
        introspector.answers.remember(other, &answer);
        introspector.known(&other);
    }
    assert!(introspector.known(&digest).is_none());
    assert_eq!(issuer.questions().len(), 1);
    let end = ToWarden::End {
        session: session.id(),
        cause: EndCause::TokenInactive,
    };
    assert_eq!(warden.hears().await, end);
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
