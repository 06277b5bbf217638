//! Sends alerts to their receivers, signed as the Standard Webhooks specification says: HMAC-SHA256
//! over `id.timestamp.body`.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};

use super::{
    link::Link,
    outbound::Outbound,
    upstream::tls::{NativeRoots, UpstreamTlsError},
};
use crate::{
    channel::{Delivery, ToWarden},
    clock::{WallInstant, wall_now},
    config,
};

/// Longest answer that is read; only its status counts.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Longest description of a failure.
const LONGEST_FAILURE: usize = 500;

/// Why a receiver cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("its secret: {0}")]
    Secret(String),
    #[error(transparent)]
    Tls(#[from] UpstreamTlsError),
}

/// All receivers.
#[derive(Debug, Default)]
pub(crate) struct Webhooks(BTreeMap<String, Webhook>);

#[derive(Debug)]
struct Webhook {
    url: Uri,
    key: hmac::Key,
    outbound: Outbound,
}

impl Webhooks {
    /// Reads secrets and roots: to be called before the process is sealed.
    pub(crate) fn load(
        configured: &[config::Webhook],
        roots: &mut NativeRoots,
    ) -> Result<Self, (String, WebhookError)> {
        let mut webhooks = BTreeMap::new();
        for webhook in configured {
            let loaded = load(webhook, roots).map_err(|error| (webhook.name.clone(), error))?;
            webhooks.insert(webhook.name.clone(), loaded);
        }
        Ok(Self(webhooks))
    }
}

fn load(webhook: &config::Webhook, roots: &mut NativeRoots) -> Result<Webhook, WebhookError> {
    let secret = config::read_secret(&webhook.secret_file).map_err(WebhookError::Secret)?;
    Ok(Webhook {
        url: webhook.url.clone(),
        key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        outbound: Outbound::load(&webhook.outbound, roots)?,
    })
}

/// Sends an alert once, and tells the warden what became of it.
pub(super) async fn deliver(link: Arc<Link>, delivery: Delivery) {
    let failure = match link.webhooks().0.get(&delivery.webhook) {
        Some(webhook) => webhook.post(&delivery).await.err(),
        None => Some("this gateway does not know the receiver".to_owned()),
    };
    link.tell(ToWarden::Delivered {
        webhook: delivery.webhook,
        id: delivery.id,
        failure: failure.map(|failure| failure.chars().take(LONGEST_FAILURE).collect()),
    });
}

impl Webhook {
    async fn post(&self, delivery: &Delivery) -> Result<(), String> {
        let request = self.request(delivery, wall_now());
        let request = request.map_err(|error| error.to_string())?;
        self.outbound.deliver(request, LONGEST_ANSWER).await
    }

    fn request(&self, delivery: &Delivery, now: WallInstant) -> http::Result<Request<Bytes>> {
        let timestamp = now.as_unix_seconds().to_string();
        let mut signature = hmac::Context::with_key(&self.key);
        for part in [&delivery.id, ".", &timestamp, ".", &delivery.body] {
            signature.update(part.as_bytes());
        }
        let signature = format!("v1,{}", STANDARD.encode(signature.sign()));
        Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )
            .header(
                header::USER_AGENT,
                concat!("enforcer/", env!("CARGO_PKG_VERSION")),
            )
            .header("webhook-id", &delivery.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(Bytes::from(delivery.body.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_as_the_specification_says() {
        // The specification's own example; its secret is given in base64.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let webhook = Webhook {
            url: Uri::from_static("https://chat.example/hook"),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            outbound: Outbound::load(&config::Outbound::default(), &mut NativeRoots::default())
                .unwrap(),
        };
        let delivery = Delivery {
            webhook: "chat".to_owned(),
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: "{\"test\": 2432232314}".to_owned(),
        };
        let now = WallInstant::from_unix_seconds(1_614_265_330);
        let request = webhook.request(&delivery, now).unwrap();
        assert_eq!(
            request.headers()["webhook-signature"],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(request.headers()["webhook-timestamp"], "1614265330");
        assert_eq!(request.body(), delivery.body.as_bytes());
    }
}
