//! The session endpoints.

use std::time::Duration;

use super::harness::{Answer, Client, EchoUpstream, World, token};
use crate::channel::{EndCause, Kinship, ToWarden};

const SESSION: &str = "/.well-known/enforcer/session";
const RENEW: &str = "/.well-known/enforcer/session/renew";
const LOGOUT: &str = "/.well-known/enforcer/session/logout";
const EVENTS: &str = "/.well-known/enforcer/session/events";

impl Client {
    async fn post(&mut self, path: &str, token: &str, more: &str) -> Answer {
        self.write(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             {more}Content-Length: 0\r\n\r\n"
        ))
        .await;
        self.answer().await
    }

    /// The next event of a stream.
    async fn event(&mut self) -> String {
        let size = self.line().await;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let event = self.exactly(size + 2).await;
        String::from_utf8(event).unwrap().trim_end().to_owned()
    }
}

fn touches(heard: &[ToWarden]) -> usize {
    let is_touch = |message: &&ToWarden| matches!(message, ToWarden::Touch { .. });
    heard.iter().filter(is_touch).count()
}

#[tokio::test]
async fn a_session_is_shown_but_not_opened() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let mut looking = world.connect().await;
    let answer = looking.get(SESSION, &token).await;
    assert_eq!((answer.status, &*answer.code()), (401, "no_session"));

    let mut working = world.connect().await;
    assert_eq!(working.get("/", &token).await.status, 200);
    let touches_before = touches(&world.warden.heard());
    let answer = looking.get(SESSION, &token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("session-expires-in").is_some());
    let session: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(session["subject"], "alice");
    assert_eq!(session["policies"], serde_json::json!(["default"]));
    assert_eq!(session["connections"], 1);
    assert_eq!(touches(&world.warden.heard()), touches_before);
}

#[tokio::test]
async fn a_renewal_is_the_wardens_to_grant_and_is_activity() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let mut working = world.connect().await;
    assert_eq!(working.get("/", &token).await.status, 200);
    let mut renewing = world.connect().await;
    assert_eq!(renewing.post(RENEW, &token, "").await.status, 200);
    world
        .warden
        .hears(|message| {
            matches!(message, ToWarden::Find { kinship, .. } if *kinship == Kinship::Successor)
        })
        .await;
    let before = touches(&world.warden.heard());
    world
        .warden
        .hears(|_| touches(&world.warden.heard()) > before)
        .await;
}

#[tokio::test]
async fn a_logout_is_answered_before_the_session_ends() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token).await.status, 200);
    let answer = client.post(LOGOUT, &token, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(client.rest().await, (Vec::new(), true));
    let id = world.warden.only_session().id;
    let end = ToWarden::End {
        session: id,
        cause: EndCause::Logout,
    };
    world.warden.hears(|message| *message == end).await;
}

#[tokio::test]
async fn another_site_and_the_tokenless_get_nowhere() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token).await.status, 200);
    let cross = "Sec-Fetch-Site: cross-site\r\n";
    let answer = client.post(LOGOUT, &token, cross).await;
    assert_eq!((answer.status, &*answer.code()), (403, "cross_site"));
    client
        .write(format!(
            "POST {LOGOUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &*answer.code()), (401, "missing_token"));
    let answer = client.get(LOGOUT, &token).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(client.get(SESSION, &token).await.status, 200);
}

#[tokio::test]
async fn events_tell_of_the_warning_the_renewal_and_the_end() {
    let upstream = EchoUpstream::start().await;
    let world = World::simple(upstream.address).await;
    let token = token("a", 60);
    let mut client = world.connect().await;
    assert_eq!(client.get("/", &token).await.status, 200);
    client
        .write(format!(
            "GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    let head = client.head().await;
    assert!(
        head.contains("content-type: text/event-stream\r\n"),
        "{head}"
    );
    world.warden.warn(Duration::from_secs(5)).await;
    let warning = client.event().await;
    assert!(warning.starts_with("event: warning\n"), "{warning}");
    // To look is not to calm.
    let mut other = world.connect().await;
    assert_eq!(other.get(SESSION, &token).await.status, 200);
    world.warden.calm().await;
    let renewed = client.event().await;
    assert!(renewed.starts_with("event: renewed\n"), "{renewed}");
    world.warden.farewell(Duration::from_secs(5)).await;
    let ended = client.event().await;
    assert_eq!(ended, "event: ended\ndata: {\"reason\":\"deadline\"}");
    assert_eq!(client.rest().await, (b"0\r\n\r\n".to_vec(), true));
}
