//! Who a bearer token speaks for, and everything that has to be asked of issuers for that.
//!
//! ```text
//!                 three parts, the first an encoded JSON object       anything else
//!                                  |                                        |
//!                                  v                                        v
//!   keeper ---publishes---> Authenticator --unknown issuer--> Introspector (by iss, by prefix)
//!     ^   fetches the keys      |  |                             |  asks, remembers the answer
//!     |   ahead of their end    |  v                             v
//!     +------wanted-------------+  Identified               Identified, and the session is
//!         a key that nobody knows                           asked about again while it lives
//! ```
//!
//! A token that was seen before costs a digest and a look into a table: nothing waits.

mod answers;
mod fetch;
mod following;
mod introspector;
mod keeper;
mod outage;
mod question;
#[cfg(test)]
mod tests;
mod turns;

use std::{collections::HashMap, sync::Arc};

use crate::{
    authn::{Authenticator, Identified, KeyError, TokenError, Unaccepted},
    channel::ToWarden,
    clock::{Now, boot_now},
    config::{Identity, KeySource},
    gateway::{
        link::Link,
        outbound::Outbound,
        rejection::Rejection,
        upstream::tls::{NativeRoots, UpstreamTlsError},
    },
};

pub(crate) use following::Asked;
use introspector::Introspector;
use keeper::Keeper;

/// Why tokens could not be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("issuer `{0}`")]
    Outbound(String, #[source] UpstreamTlsError),
    #[error("the client secret for issuer `{0}` cannot be read")]
    ClientSecret(String, #[source] std::io::Error),
}

/// Tells who tokens speak for.
#[derive(Debug)]
pub(crate) struct Identifier {
    authenticator: Arc<Authenticator>,
    /// Of the issuers that publish their keys.
    keepers: HashMap<String, Arc<Keeper>>,
    introspectors: Vec<Arc<Introspector>>,
}

/// Who a token speaks for, and by whose word if its issuer had to be asked.
#[derive(Debug)]
pub(crate) struct Recognized {
    pub(crate) identified: Identified,
    pub(crate) asked: Option<Asked>,
}

impl From<Identified> for Recognized {
    fn from(identified: Identified) -> Self {
        Self {
            identified,
            asked: None,
        }
    }
}

impl Identifier {
    /// Reads keys, secrets, roots and certificates: to be called before the process is sealed.
    pub(crate) fn load(
        identity: &Identity,
        roots: &mut NativeRoots,
    ) -> Result<Self, IdentityError> {
        let authenticator = Arc::new(Authenticator::load(identity)?);
        let mut keepers = HashMap::new();
        for rules in &identity.jwt {
            let KeySource::Published(published) = &rules.keys else {
                continue;
            };
            let outbound = Outbound::load(&published.outbound, roots)
                .map_err(|error| IdentityError::Outbound(rules.issuer.clone(), error))?;
            let keeper = Keeper::new(rules, published, outbound, Arc::clone(&authenticator));
            keepers.insert(rules.issuer.clone(), Arc::new(keeper));
        }
        let mut introspectors = Vec::new();
        for rules in &identity.introspection {
            introspectors.push(Arc::new(Introspector::load(rules, roots)?));
        }
        // The longest prefix that fits is the one that is meant.
        introspectors.sort_by_key(|it| std::cmp::Reverse(it.token_prefix().len()));
        Ok(Self {
            authenticator,
            keepers,
            introspectors,
        })
    }

    /// Begins to fetch what issuers publish, and tells the warden which keys there are.
    pub(crate) fn start(&self, link: &Arc<Link>) {
        for keeper in self.keepers.values() {
            tokio::spawn(Arc::clone(keeper).run(Arc::clone(link)));
        }
        let (authenticator, link) = (Arc::clone(&self.authenticator), Arc::clone(link));
        let as_of = boot_now();
        tokio::spawn(async move {
            if link.orders().wait_for(|orders| orders.linked).await.is_ok() {
                for (issuer, keys) in authenticator.thumbprints_of_files() {
                    link.tell(ToWarden::IssuerKeys {
                        issuer: issuer.to_owned(),
                        keys,
                        as_of,
                    });
                }
            }
        });
    }

    /// Whether each token of an issuer must be bound to a certificate: those that it was asked
    /// about, or those that it signed.
    pub(crate) fn binds_certificates(&self, issuer: &str, asked: Option<&Asked>) -> bool {
        match asked {
            Some(asked) => asked.binds_certificates(),
            None => self.authenticator.binds_certificates(issuer),
        }
    }

    /// Who a token speaks for.
    pub(crate) async fn identify(&self, token: &str, now: Now) -> Result<Recognized, Rejection> {
        if let Some(introspector) = self.introspector_of_opaque(token) {
            return introspector.identify(token, now).await;
        }
        match self.authenticator.validate(token, now) {
            Ok(identified) => Ok(identified.into()),
            Err(Unaccepted::Token(error)) => self.identify_elsewhere(token, error, now).await,
            Err(Unaccepted::KeysOutdated { issuer, .. } | Unaccepted::KeysUnknown { issuer }) => {
                self.identify_by_newer_keys(token, issuer).await
            }
        }
    }

    /// The endpoint that is asked about tokens that say nothing of themselves.
    fn introspector_of_opaque(&self, token: &str) -> Option<&Arc<Introspector>> {
        if self.introspectors.is_empty() || is_shaped_like_jwt(token) {
            return None;
        }
        self.introspectors
            .iter()
            .find(|introspector| token.starts_with(introspector.token_prefix()))
    }

    /// A token that says whose it is: its issuer may be one that is asked.
    async fn identify_elsewhere(
        &self,
        token: &str,
        error: TokenError,
        now: Now,
    ) -> Result<Recognized, Rejection> {
        if !matches!(error, TokenError::IssuerUnknown { .. }) || self.introspectors.is_empty() {
            return Err(error.into());
        }
        let Some(issuer) = Authenticator::claimed_issuer(token) else {
            return Err(error.into());
        };
        let named = self.introspectors.iter().find(|it| it.issuer() == issuer);
        match named {
            Some(introspector) => introspector.identify(token, now).await,
            None => Err(error.into()),
        }
    }

    /// Waits for keys that were asked for after the token came.
    async fn identify_by_newer_keys(
        &self,
        token: &str,
        issuer: String,
    ) -> Result<Recognized, Rejection> {
        let Some(keeper) = self.keepers.get(&issuer) else {
            return Err(Rejection::KeysUnavailable(issuer));
        };
        let validated = keeper
            .with_newer_keys(|| match self.authenticator.validate(token, Now::read()) {
                Ok(identified) => Some(Ok(identified)),
                Err(Unaccepted::Token(error)) => Some(Err(error)),
                Err(Unaccepted::KeysOutdated { .. } | Unaccepted::KeysUnknown { .. }) => None,
            })
            .await;
        if let Some(validated) = validated {
            return Ok(validated?.into());
        }
        // The issuer has been asked, or could not be.
        match self.authenticator.validate(token, Now::read()) {
            Ok(identified) => Ok(identified.into()),
            Err(Unaccepted::Token(error)) => Err(error.into()),
            Err(Unaccepted::KeysOutdated { error, .. }) if keeper.is_answered() => {
                Err(error.into())
            }
            Err(_) => Err(Rejection::KeysUnavailable(issuer)),
        }
    }
}

/// Three parts with dots between, the first of which is the beginning of an encoded JSON object
/// (`{"`, or `{` and a line break).
fn is_shaped_like_jwt(token: &str) -> bool {
    (token.starts_with("ey") || token.starts_with("ew"))
        && token.bytes().filter(|byte| *byte == b'.').count() == 2
}
