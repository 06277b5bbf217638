//! The file as it is written: the keys that exist and the types they take, nothing else.
//!
//! Values keep their position where a later step may find fault with them.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    duration::RawDuration,
    monitoring::{RawAlerts, RawCanary, RawDetector, RawMetrics, RawTraces},
};
use crate::policy::ClaimValue;

/// A table of named sections; the names keep their position.
pub(super) type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    #[serde(default)]
    pub(super) daemon: RawDaemon,
    #[serde(default)]
    pub(super) audit: RawAudit,
    #[serde(default)]
    pub(super) listeners: Named<RawListener>,
    #[serde(default)]
    pub(super) identity: RawIdentity,
    pub(super) assertion: Option<RawAssertion>,
    #[serde(default)]
    pub(super) policies: Named<RawPolicy>,
    #[serde(default)]
    pub(super) routes: Vec<Spanned<RawRoute>>,
    #[serde(default)]
    pub(super) metrics: RawMetrics,
    #[serde(default)]
    pub(super) canary: RawCanary,
    #[serde(default)]
    pub(super) detectors: Named<RawDetector>,
    #[serde(default)]
    pub(super) alerts: RawAlerts,
    pub(super) traces: Option<RawTraces>,
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
    #[serde(default)]
    pub(super) watch: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    pub(super) keep: Option<Spanned<RawDuration>>,
    pub(super) max_size: Option<Spanned<String>>,
    pub(super) heads_file: Option<PathBuf>,
    pub(super) heads_interval: Option<Spanned<RawDuration>>,
    #[serde(default)]
    pub(super) exports: Named<RawExport>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExport {
    pub(super) json_file: Option<PathBuf>,
    pub(super) syslog: Option<Spanned<String>>,
    pub(super) otlp: Option<Spanned<String>>,
    pub(super) outbound: Option<Spanned<RawOutbound>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) address: Spanned<String>,
    pub(super) protocol: Option<Spanned<String>>,
    pub(super) identity: Option<Spanned<String>>,
    pub(super) principal: Option<Spanned<String>>,
    pub(super) trust_domain: Option<Spanned<String>>,
    pub(super) token_cookie: Option<Spanned<String>>,
    pub(super) allowed_origins: Option<Spanned<Vec<Spanned<String>>>>,
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
    #[serde(default)]
    pub(super) introspection: Vec<Spanned<RawIntrospection>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJwtIssuer {
    pub(super) issuer: Spanned<String>,
    pub(super) audience: Spanned<OneOrMany>,
    pub(super) jwks_file: Option<Spanned<PathBuf>>,
    pub(super) public_key_file: Option<Spanned<PathBuf>>,
    pub(super) secret_file: Option<Spanned<PathBuf>>,
    pub(super) jwks_url: Option<Spanned<String>>,
    pub(super) discovery: Option<Spanned<bool>>,
    pub(super) refresh_interval: Option<Spanned<RawDuration>>,
    pub(super) stale_ttl: Option<Spanned<RawDuration>>,
    pub(super) outbound: Option<Spanned<RawOutbound>>,
    pub(super) algorithms: Spanned<Vec<Spanned<String>>>,
    pub(super) certificate_bound: Option<bool>,
    pub(super) leeway: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIntrospection {
    pub(super) issuer: Spanned<String>,
    pub(super) endpoint: Spanned<String>,
    pub(super) audience: Option<Spanned<OneOrMany>>,
    pub(super) token_prefix: Option<Spanned<String>>,
    pub(super) client_id: Spanned<String>,
    pub(super) client_authentication: Option<Spanned<String>>,
    pub(super) client_secret_file: Option<Spanned<PathBuf>>,
    pub(super) active_ttl: Option<Spanned<RawDuration>>,
    pub(super) inactive_ttl: Option<Spanned<RawDuration>>,
    pub(super) stale_ttl: Option<Spanned<RawDuration>>,
    pub(super) recheck_interval: Option<Spanned<RawDuration>>,
    pub(super) default_token_lifetime: Option<Spanned<RawDuration>>,
    pub(super) certificate_bound: Option<bool>,
    pub(super) leeway: Option<Spanned<RawDuration>>,
    pub(super) outbound: Option<Spanned<RawOutbound>>,
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
    pub(super) template: Option<Spanned<String>>,
    pub(super) max_session: Option<Spanned<RawDuration>>,
    pub(super) idle_timeout: Option<Spanned<RawDuration>>,
    pub(super) warn_before: Option<Spanned<RawDuration>>,
    pub(super) farewell: Option<Spanned<RawDuration>>,
    pub(super) activity: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) max_connections: Option<Spanned<i64>>,
    pub(super) max_sessions_per_subject: Option<Spanned<i64>>,
    pub(super) at_session_limit: Option<Spanned<String>>,
    pub(super) bind_network: Option<Spanned<String>>,
    pub(super) bind_network_ipv6: Option<Spanned<String>>,
    #[serde(rename = "match")]
    pub(super) matches: Option<Spanned<RawMatch>>,
    pub(super) require: Option<Spanned<RawRequire>>,
    pub(super) hours: Option<Spanned<RawHours>>,
}

/// Names of claims and values, and a few names of its own.
pub(super) type RawMatch = Named<Spanned<RawClaimValues>>;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequire {
    pub(super) acr: Option<Spanned<OneOrMany>>,
    pub(super) amr: Option<Spanned<OneOrMany>>,
    pub(super) max_age: Option<Spanned<RawDuration>>,
    pub(super) scopes: Option<Spanned<OneOrMany>>,
    pub(super) claims: Option<Named<Spanned<RawClaimValues>>>,
    pub(super) networks: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHours {
    pub(super) time_zone: Spanned<String>,
    pub(super) windows: Spanned<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) listener: Spanned<String>,
    pub(super) protocol: Option<Spanned<String>>,
    pub(super) host: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) upstream: Option<Spanned<String>>,
    pub(super) targets: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) upstream_tls: Option<Spanned<RawUpstreamTls>>,
    pub(super) policy: Option<Spanned<String>>,
    pub(super) policies: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) require: Option<Spanned<RawRequire>>,
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
#[derive(Debug, PartialEq)]
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

/// The values that a claim may have: one, or a list of them.
#[derive(Debug, PartialEq)]
pub(super) struct RawClaimValues(pub(super) Vec<ClaimValue>);

impl<'de> Deserialize<'de> for RawClaimValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawClaimValues;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, true or false, or a list of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawClaimValues, E> {
                Ok(RawClaimValues(vec![ClaimValue::Text(text.to_owned())]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RawClaimValues, E> {
                Ok(RawClaimValues(vec![ClaimValue::Integer(number)]))
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<RawClaimValues, E> {
                Ok(RawClaimValues(vec![ClaimValue::Boolean(flag)]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<RawClaimValues, A::Error> {
                let mut values = Vec::new();
                while let Some(RawClaimValues(value)) = list.next_element()? {
                    values.extend(value);
                }
                Ok(RawClaimValues(values))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
