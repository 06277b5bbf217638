//! Alerts reach their receiver: signed, later if it was down, whatever another receiver does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use enforcer_tests::{
    Scene,
    daemon::Daemon,
    metrics::{self, Metrics},
    namespace::Task,
    receiver::{Received, Receiver},
    wait,
};
use jsonwebtoken::{Algorithm, EncodingKey};

const SECRET: &str = "the secret of the chat, of 32 bytes or more";

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `[[alerts.webhook]]` for a receiver on loopback.
fn section(scene: &Scene, name: &str, address: SocketAddr) -> String {
    let secret = scene
        .bed
        .write("chat.secret", format!("{SECRET}\n"))
        .expect("the bed does as it is told");
    let (secret, ca) = (secret.display(), scene.ca_file());
    let ca = ca.display();
    format!(
        "[[alerts.webhook]]\nname = \"{name}\"\nurl = \"https://{address}/hook\"\n\
         secret_file = \"{secret}\"\n\
         outbound = {{ ca = \"{ca}\", allow_networks = [\"127.0.0.1\"], timeout = \"1s\" }}\n"
    )
}

/// Uses the token of an ended session often enough.
fn raise_alert(scene: &Scene, daemon: &Daemon<'_>, subject: &str) {
    let client = scene.client().expect("the bed does as it is told");
    let token = scene.token(subject).expect("the bed does as it is told");
    assert_eq!(
        client
            .get("/headers", &token)
            .expect("the bed does as it is told")
            .status,
        200
    );
    let revoke = ["sessions", "revoke", "--subject", subject];
    assert_eq!(
        daemon
            .cli(&revoke)
            .expect("the bed does as it is told")
            .code,
        0
    );
    for _ in 0..2 {
        assert_eq!(
            client
                .get("/headers", &token)
                .expect("the bed does as it is told")
                .status,
            401
        );
    }
    let raised = daemon.wait_for_audit("alert", |record| record["subject"] == subject);
    raised.expect("the bed does as it is told");
}

fn is_signed(received: &Received) -> bool {
    let body = String::from_utf8_lossy(&received.body);
    let (id, timestamp) = (
        received.header("webhook-id"),
        received.header("webhook-timestamp"),
    );
    let signed = format!("{id}.{timestamp}.{body}");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let expected = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256)
        .expect("the bed does as it is told");
    // JOSE's base64 has another alphabet and no padding.
    let expected = expected.replace('-', "+").replace('_', "/");
    received.header("webhook-signature") == format!("v1,{expected}=")
}

#[test]
fn alerts_reach_their_receiver_also_after_it_was_down_and_over_a_restart() {
    let mut scene = Scene::new("webhook").unwrap();
    let threshold = "[detectors.ended_token]\nthreshold = 2\n";
    scene.config.monitoring = [
        threshold.to_owned(),
        metrics::section(),
        section(&scene, "aside", at(9601)),
        section(&scene, "chat", at(9600)),
    ]
    .concat();
    let namespace = scene.bed.daemon();
    // It takes connections, and that is all.
    let runtime = namespace.runtime(1).unwrap();
    let silent = Task::spawn(&runtime, tokio::net::TcpListener::bind(at(9601)));
    let _silent = silent.join().unwrap().unwrap();
    let mut daemon = scene.start().unwrap();

    raise_alert(&scene, &daemon, "alice");
    let failed = r#"enforcer_webhook_deliveries_total{webhook="chat",result="failed"}"#;
    wait::until("an attempt failed", || {
        (Metrics::scrape(&scene.bed).ok()?.value(failed)? >= 1.0).then_some(())
    })
    .unwrap();
    daemon.kill_warden().unwrap();
    daemon.start_again().unwrap();

    let identity = scene.authority.server().unwrap();
    let receiver = Receiver::start(namespace, at(9600), Some(&identity)).unwrap();
    let received = receiver.wait_for("the alert came", |_| true).unwrap();
    assert_eq!(received.path, "/hook");
    assert!(is_signed(&received), "{received:?}");
    let alert = received.json().unwrap();
    assert_eq!(alert["event"], "alert");
    assert_eq!(alert["reason"], "ended_token");
    assert_eq!(alert["subject"], "alice");

    raise_alert(&scene, &daemon, "bob");
    let bobs = receiver.wait_for("the next alert came", |received| {
        received.json().is_ok_and(|alert| alert["subject"] == "bob")
    });
    assert!(is_signed(&bobs.unwrap()));
    let ids: Vec<_> = receiver
        .received()
        .iter()
        .map(|received| received.header("webhook-id").to_owned())
        .collect();
    assert_eq!(ids.len(), 2, "{ids:?}");

    // The one that hangs has them still, and nobody waited for it.
    let figures = wait::until("all was counted", || {
        let figures = Metrics::scrape(&scene.bed).ok()?;
        let delivered = r#"enforcer_webhook_deliveries_total{webhook="chat",result="delivered"}"#;
        (figures.value(delivered) == Some(2.0)).then_some(figures)
    })
    .unwrap();
    let waiting = |name| {
        figures.value(&format!(
            r#"enforcer_webhook_queue_alerts{{webhook="{name}"}}"#
        ))
    };
    assert_eq!((waiting("chat"), waiting("aside")), (Some(0.0), Some(2.0)));
    assert!(
        figures.sum(
            "enforcer_webhook_deliveries_total",
            r#"webhook="aside",result="failed""#
        ) >= 1.0
    );
}
