//! Pages in a real browser: what their scripts can do with a session, and what they see of its end.

use std::{fs, time::Duration};

use enforcer::clock::WallInstant;
use enforcer_tests::{
    Scene,
    chromium::{Browser, PAGE, Page, SameSite},
    config::Route,
    issuer::Claims,
    nginx::Nginx,
    wait,
    websockets::Server,
};
use serde_json::{Value, json};

const OWN: &str = "https://enforcer.test:8443/";
/// Another origin of the same site: cookies know no ports.
const NEIGHBOUR: &str = "https://enforcer.test:9443/";
/// Another site.
const STRANGER: &str = "https://10.77.0.2:9443/";
const COOKIE: &str = "__Host-token";

/// A site behind the gateway: a page, a WebSocket server, downloads. The same page is there without
/// the gateway, for origins that have nothing to do with it.
struct Site {
    scene: Scene,
    _chat: Server,
    _nginx: Nginx,
}

impl Site {
    fn new(label: &str) -> Self {
        let mut scene = Scene::new(label).expect("a scene");
        let home = scene.bed.path("");
        let home = home.display();
        let servers = format!(
            "types {{ text/html html; }}
    server {{
        listen 127.0.0.1:9080;
        location / {{ root {home}/nginx/files; }}
    }}
    server {{
        listen 10.77.0.2:9443 ssl http2;
        ssl_certificate {home}/server.pem;
        ssl_certificate_key {home}/server.key;
        location / {{ root {home}/nginx/files; }}
    }}"
        );
        let nginx = Nginx::start(&scene.bed, &servers).expect("nginx");
        fs::write(nginx.folder().join("files/index.html"), PAGE).expect("a page");
        let chat = Server::start(&scene.bed).expect("a WebSocket server");
        let at = |path: &str, url: String| Route {
            path: Some(path.to_owned()),
            ..Route::to(url)
        };
        scene.config.routes = vec![
            Route::to("http://127.0.0.1:9080"),
            at("/chat", chat.url()),
            at("/download", scene.upstream.url()),
        ];
        let listener = scene.config.listener().expect("a listener");
        listener.token_cookie = Some(COOKIE.to_owned());
        Self {
            scene,
            _chat: chat,
            _nginx: nginx,
        }
    }

    /// A token of alice's login.
    fn token(&self, expires_at: WallInstant) -> String {
        let claims = Claims::new("alice", expires_at).with("sid", "a login of alice's");
        self.scene.issuer.sign(&claims).expect("a token")
    }
}

/// When something happened, by the page's clock.
fn at(value: &Value) -> WallInstant {
    let millis = value["at"].as_u64().expect("a time");
    WallInstant::from_unix_seconds(0).saturating_add(Duration::from_millis(millis))
}

/// Has the page open a WebSocket that is `talk` from then on; what the server saw of it.
fn open_talk(page: &Page<'_>) -> Value {
    let opened = page.run("globalThis.talk = new Talk('/chat'); talk.opened");
    assert_eq!(opened.expect("a WebSocket"), "");
    let seen = page.run("talk.receive().then(JSON.parse)");
    seen.expect("what the server saw")
}

fn check_echo(page: &Page<'_>) {
    let echo = page.run("talk.echo('over there')").expect("an echo");
    assert_eq!(echo, "over there");
}

fn header<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    let fields = seen["headers"].as_array().expect("fields");
    let field = fields.iter().find(|field| field[0] == name)?;
    field[1].as_str()
}

#[test]
fn a_page_with_the_cookie_talks_until_the_deadline_and_is_told() {
    let mut site = Site::new("browser-cookie");
    site.scene.config.policy().farewell = Some("500ms".to_owned());
    let scene = &site.scene;
    let daemon = scene.start().unwrap();
    let browser = Browser::start(&scene.bed).unwrap();
    let capture = scene.capture().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(5));
    let token = site.token(deadline);
    browser
        .set_cookie(OWN, COOKIE, &token, SameSite::Lax)
        .unwrap();
    let page = browser.open(OWN).unwrap();
    let protocol = page.run("performance.getEntriesByType('navigation')[0].nextHopProtocol");
    assert_eq!(protocol.unwrap(), "h2");

    let seen = open_talk(&page);
    assert_eq!(header(&seen, "x-enforcer-subject"), Some("alice"));
    assert_eq!(header(&seen, "origin"), Some("https://enforcer.test:8443"));
    assert!(!seen.to_string().contains(&token), "{seen}");
    check_echo(&page);
    page.run("globalThis.flowing = download('/download?rate=100000'); 0")
        .unwrap();

    let closed = page.run("talk.closed").unwrap();
    assert_eq!(
        (&closed["code"], &closed["reason"]),
        (&json!(1008), &json!("session expired"))
    );
    assert_eq!(closed["wasClean"], true);
    assert!(at(&closed) < deadline, "{closed}");
    // What has begun goes on until it is cut, and does not look complete.
    let flowed = page.run("flowing").unwrap();
    assert_eq!(flowed["complete"], false, "{flowed}");
    assert!(flowed["length"].as_u64().unwrap() > 10_000, "{flowed}");
    assert!(
        at(&flowed) >= deadline.saturating_sub(Duration::from_millis(2)),
        "{flowed}"
    );
    let later = page.run("ask('/')").unwrap();
    assert_eq!(later["status"], 401, "{later}");

    let record = daemon.wait_for_end().unwrap();
    assert_eq!(record["reason"], "token");
    assert_eq!(record["payload_after_deadline"], 0);
    // The page and its download came on the first connection.
    let opened = daemon.wait_for_audit("connection_opened", |it| it["role"] == "client");
    let opened = opened.unwrap();
    let client = opened["client"].as_str().unwrap().parse().unwrap();
    let conversation = capture.finish().unwrap().conversation(client);
    conversation.check_cut(deadline).unwrap();
}

#[test]
fn a_token_as_a_subprotocol_opens_a_websocket_from_any_page_and_stays_with_the_gateway() {
    let site = Site::new("browser-subprotocol");
    let scene = &site.scene;
    let daemon = scene.start().unwrap();
    let browser = Browser::start(&scene.bed).unwrap();
    let token = scene.token("alice").unwrap();
    let page = browser.open(STRANGER).unwrap();
    let open = |protocols: &[&str]| {
        let protocols = json!(protocols);
        page.run(&format!(
            "globalThis.talk = new Talk('{OWN}chat', {protocols}); talk.opened"
        ))
        .unwrap()
    };
    let bearer = format!("bearer.{token}");
    assert_eq!(open(&[&bearer, "chat"]), "chat");
    let seen = page.run("talk.receive().then(JSON.parse)").unwrap();
    assert_eq!(seen["subprotocol"], "chat");
    assert_eq!(header(&seen, "x-enforcer-subject"), Some("alice"));
    assert_eq!(header(&seen, "origin"), Some("https://10.77.0.2:9443"));
    assert!(!seen.to_string().contains(&token), "{seen}");
    check_echo(&page);

    // A browser wants one of those that it offers.
    assert_eq!(open(&[&bearer]), bearer);
    let seen = page.run("talk.receive().then(JSON.parse)").unwrap();
    assert_eq!(seen["subprotocol"], Value::Null);
    assert!(!seen.to_string().contains(&token), "{seen}");
    check_echo(&page);

    assert_eq!(open(&["chat"]), Value::Null);
    assert_eq!(page.run("talk.closed").unwrap()["code"], 1006);
    let refused = daemon.wait_for_audit("session_refused", |it| it["reason"] == "missing_token");
    refused.unwrap();
}

/// What the cookie would allow is refused by the `Origin` that the browser itself tells.
#[test]
fn pages_of_other_origins_get_nowhere_with_the_cookie() {
    let site = Site::new("browser-cross-site");
    let scene = &site.scene;
    let daemon = scene.start().unwrap();
    let browser = Browser::start(&scene.bed).unwrap();
    let token = scene.token("alice").unwrap();
    browser
        .set_cookie(OWN, COOKIE, &token, SameSite::None)
        .unwrap();
    let own = browser.open(OWN).unwrap();
    open_talk(&own);

    let refusals = || {
        let records = daemon.audit().unwrap();
        let refused = records.iter().filter(|it| it["reason"] == "cross_site");
        refused
            .map(|it| it["repeated"].as_u64().unwrap_or(1))
            .sum::<u64>()
    };
    for origin in [NEIGHBOUR, STRANGER] {
        let page = browser.open(origin).unwrap();
        let before = refusals();
        let refused = |count| {
            wait::until("it was recorded", || {
                (refusals() == before + count).then_some(())
            })
            .unwrap();
        };
        let opened = page.run(&format!(
            "globalThis.talk = new Talk('{OWN}chat'); talk.opened"
        ));
        assert_eq!(opened.unwrap(), Value::Null, "{origin}");
        assert_eq!(page.run("talk.closed").unwrap()["code"], 1006);
        refused(1);
        // As a form would: the cookie goes along, and the answer is nobody's to read.
        for (count, path) in [(2, "logout"), (3, "renew")] {
            let posted = page.run(&format!(
                "fetch('{OWN}.well-known/enforcer/session/{path}', \
                 {{ method: 'POST', mode: 'no-cors', credentials: 'include' }})\
                 .then((answer) => answer.type)"
            ));
            assert_eq!(posted.unwrap(), "opaque", "{origin}");
            refused(count);
        }
        // Without leave to read it there is nothing to read.
        let read = page.run(&format!(
            "ask('{OWN}.well-known/enforcer/session', {{ credentials: 'include' }})\
             .catch((error) => error.name)"
        ));
        assert_eq!(read.unwrap(), "TypeError", "{origin}");
        check_echo(&own);
    }
    let records = daemon.audit().unwrap();
    assert!(records.iter().all(|it| it["event"] != "session_ended"));
}

#[test]
fn a_page_sees_renews_and_leaves_its_session() {
    let mut site = Site::new("browser-session");
    let policy = site.scene.config.policy();
    policy.warn_before = Some("2s".to_owned());
    policy.farewell = Some("250ms".to_owned());
    let scene = &site.scene;
    let daemon = scene.start().unwrap();
    let browser = Browser::start(&scene.bed).unwrap();
    let first = wait::whole_second_after(Duration::from_secs(6));
    let first_token = site.token(first);
    browser
        .set_cookie(OWN, COOKIE, &first_token, SameSite::Lax)
        .unwrap();
    let page = browser.open(OWN).unwrap();
    open_talk(&page);

    let session = page.run("ask('/.well-known/enforcer/session')").unwrap();
    assert_eq!(
        (&session["status"], &session["protocol"]),
        (&json!(200), &json!("h2"))
    );
    let shown: Value = serde_json::from_str(session["body"].as_str().unwrap()).unwrap();
    assert_eq!(shown["subject"], "alice");
    page.run("globalThis.events = new Events('/.well-known/enforcer/session/events'); 0")
        .unwrap();
    let warning = page.run("events.seen.warning").unwrap();
    assert_eq!(warning["reason"], "token");
    assert!(
        warning["expires_in_seconds"].as_u64().unwrap() <= 2,
        "{warning}"
    );

    // The page's login has renewed the cookie.
    let second = first.saturating_add(Duration::from_secs(600));
    let second_token = site.token(second);
    browser
        .set_cookie(OWN, COOKIE, &second_token, SameSite::Lax)
        .unwrap();
    let post = |path: &str| {
        let posted = page.run(&format!(
            "ask('/.well-known/enforcer/session/{path}', {{ method: 'POST' }})"
        ));
        posted.unwrap()
    };
    let renewed = post("renew");
    assert_eq!(renewed["status"], 200, "{renewed}");
    let renewed = page.run("events.seen.renewed").unwrap();
    assert!(
        renewed["expires_in_seconds"].as_u64().unwrap() > 500,
        "{renewed}"
    );
    wait::until_wall(first.saturating_add(Duration::from_millis(500)));
    check_echo(&page);

    assert_eq!(post("logout")["status"], 204);
    let closed = page.run("talk.closed").unwrap();
    assert_eq!(closed["code"], 1008, "{closed}");
    assert_eq!(daemon.wait_for_end().unwrap()["reason"], "logout");
    let later = page.run("ask('/')").unwrap();
    assert_eq!(later["status"], 401, "{later}");
}
