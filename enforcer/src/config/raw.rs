//! The file as it is written: the keys that exist and the types they take, nothing else.
//!
//! Values keep their position where a later step may find fault with them.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::duration::RawDuration;

/// A table of named sections; the names keep their position.
pub(super) type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    #[serde(default)]
    pub(super) daemon: RawDaemon,
    #[serde(default)]
    pub(super) listeners: Named<RawListener>,
    #[serde(default)]
    pub(super) identity: RawIdentity,
    pub(super) assertion: Option<RawAssertion>,
    #[serde(default)]
    pub(super) policies: Named<RawPolicy>,
    #[serde(default)]
    pub(super) routes: Vec<Spanned<RawRoute>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDaemon {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) runtime_dir: Option<Spanned<PathBuf>>,
    pub(super) bpf_dir: Option<PathBuf>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) admin_group: Option<Spanned<String>>,
    pub(super) pre_authentication_timeout: Option<Spanned<RawDuration>>,
    pub(super) max_sessions: Option<Spanned<i64>>,
    pub(super) max_connections: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) address: Spanned<String>,
    pub(super) protocol: Option<Spanned<String>>,
    pub(super) identity: Option<Spanned<String>>,
    pub(super) principal: Option<Spanned<String>>,
    pub(super) proxy_protocol: Option<RawProxies>,
    pub(super) tls: RawServerTls,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProxies {
    pub(super) from: Spanned<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServerTls {
    pub(super) certificate: Spanned<PathBuf>,
    pub(super) private_key: Spanned<PathBuf>,
    pub(super) client_ca: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) client_crl: Vec<Spanned<PathBuf>>,
    pub(super) client_certificate: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIdentity {
    #[serde(default)]
    pub(super) jwt: Vec<Spanned<RawJwtIssuer>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJwtIssuer {
    pub(super) issuer: Spanned<String>,
    pub(super) audience: Spanned<OneOrMany>,
    pub(super) jwks_file: Option<Spanned<PathBuf>>,
    pub(super) public_key_file: Option<Spanned<PathBuf>>,
    pub(super) secret_file: Option<Spanned<PathBuf>>,
    pub(super) algorithms: Spanned<Vec<Spanned<String>>>,
    pub(super) certificate_bound: Option<bool>,
    pub(super) leeway: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutbound {
    pub(super) ca: Option<Spanned<PathBuf>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) private_key: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) allow_networks: Vec<Spanned<String>>,
    pub(super) connect_timeout: Option<Spanned<RawDuration>>,
    pub(super) timeout: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAssertion {
    pub(super) issuer: Spanned<String>,
    pub(super) private_key: Spanned<PathBuf>,
    #[serde(default)]
    pub(super) former_keys: Vec<Spanned<PathBuf>>,
    pub(super) ttl: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) max_session: Spanned<RawDuration>,
    pub(super) idle_timeout: Option<Spanned<RawDuration>>,
    pub(super) warn_before: Option<Spanned<RawDuration>>,
    pub(super) farewell: Option<Spanned<RawDuration>>,
    pub(super) activity: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) listener: Spanned<String>,
    pub(super) host: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) upstream: Spanned<String>,
    pub(super) upstream_tls: Option<Spanned<RawUpstreamTls>>,
    pub(super) policy: Spanned<String>,
    pub(super) forward_token: Option<Spanned<bool>>,
    pub(super) assertion_audience: Option<Spanned<String>>,
    pub(super) login: Option<Spanned<RawLogin>>,
    pub(super) forward_identity: Option<Spanned<bool>>,
    pub(super) upstream_pool: Option<Spanned<String>>,
    pub(super) proxy_protocol: Option<Spanned<String>>,
    pub(super) connect_timeout: Option<Spanned<RawDuration>>,
    pub(super) response_timeout: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstreamTls {
    pub(super) ca: Option<Spanned<PathBuf>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) private_key: Option<Spanned<PathBuf>>,
    pub(super) server_name: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLogin {
    pub(super) user: Option<Spanned<String>>,
    pub(super) user_from: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
}

/// One string, or a list of them.
#[derive(Debug)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
