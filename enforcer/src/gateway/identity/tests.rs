//! Issuers that publish, rotate, fail and lie, and those that are asked about their tokens.

mod introspection;
mod published;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use super::*;
use crate::{
    channel::{ToGateway, Transport},
    gateway::tests::issuer::{Issuer, Question, Said, ok, ok_with, status},
};

/// What the identifier does with a token: `accepted`, or the code of the refusal.
async fn code(identifier: &Identifier, token: &str) -> &'static str {
    match identifier.identify(token, Now::read()).await {
        Ok(_) => "accepted",
        Err(rejection) => rejection.verdict().code,
    }
}

/// The warden's end of the channel.
struct Warden {
    transport: Transport,
    _folder: tempfile::TempDir,
}

impl Warden {
    /// A link that is up, and who is at its other end.
    async fn new() -> (Arc<Link>, Self) {
        let folder = tempfile::tempdir().unwrap();
        let handover = UnixSeqpacketListener::bind(folder.path().join("handover.sock")).unwrap();
        let (link, driver) = Link::new(
            handover,
            Vec::new(),
            crate::gateway::webhook::Webhooks::default(),
        );
        let (ours, theirs) = UnixSeqpacket::pair().unwrap();
        tokio::spawn(driver.run(Transport::new(theirs.into()).unwrap()));
        let warden = Self {
            transport: Transport::new(ours.into()).unwrap(),
            _folder: folder,
        };
        assert_eq!(warden.hears().await, ToWarden::Ready);
        (link, warden)
    }

    async fn hears(&self) -> ToWarden {
        let heard = self.transport.recv::<ToWarden>();
        let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
        heard.unwrap().unwrap().unwrap().0
    }

    async fn says(&self, message: ToGateway) {
        self.transport.send(&message).await.unwrap();
    }
}

#[test]
fn a_jwt_is_told_by_its_shape() {
    for (token, jwt) in [
        ("eyJhbGciOiJub25lIn0.e30.", true),
        ("ewogImFsZyI6.e30.c2ln", true),
        ("eyJhbGciOiJub25lIn0.e30", false),
        ("eyJ.a.b.c.d", false),
        ("at_0123456789", false),
        ("a.b.c", false),
        ("", false),
    ] {
        assert_eq!(is_shaped_like_jwt(token), jwt, "{token}");
    }
}
