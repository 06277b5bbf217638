//! Asking an issuer for its keys.

use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;

use crate::{
    authn::{KeyFault, KeySet},
    config::{self, JwtIssuer, KeyLocation, PublishedKeys},
    gateway::outbound::{Answer, Outbound, OutboundError},
};

/// Longest configuration document.
const LONGEST_DOCUMENT: usize = 64 * 1024;
/// Longest JWK set.
const LONGEST_SET: usize = 256 * 1024;

/// Why an issuer's keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("`{0}`: {1}")]
    Unanswered(Uri, OutboundError),
    #[error("`{0}` answers {1}")]
    Status(Uri, StatusCode),
    #[error("`{0}` is no configuration document: {1}")]
    Document(Uri, serde_json::Error),
    #[error("`{0}` is the configuration of another issuer: `{1}`")]
    AnotherIssuer(Uri, String),
    #[error("`{0}` names a key set that is not asked for: `{1}` {2}")]
    KeySetUrl(Uri, String, &'static str),
    #[error("`{0}` {1}")]
    Keys(Uri, KeyFault),
}

/// Keys, and for how long they are good as their answer says.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) keys: KeySet,
    pub(super) max_age: Option<Duration>,
}

/// What an issuer says of itself (OpenID Connect Discovery, section 3).
#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Asks for the keys, and before that for where they are if the issuer is to say so.
pub(super) async fn fetch(
    rules: &JwtIssuer,
    settings: &PublishedKeys,
    outbound: &Outbound,
) -> Result<Published, FetchError> {
    let url = match &settings.location {
        KeyLocation::Jwks(url) => url.clone(),
        KeyLocation::Discovery(url) => discover(rules, url, outbound).await?,
    };
    let answer = get(&url, outbound, LONGEST_SET).await?;
    let max_age = max_age(&answer.headers);
    match KeySet::parse(rules, &answer.body) {
        Ok(keys) => Ok(Published { keys, max_age }),
        Err(fault) => Err(FetchError::Keys(url, fault)),
    }
}

async fn discover(rules: &JwtIssuer, url: &Uri, outbound: &Outbound) -> Result<Uri, FetchError> {
    let answer = get(url, outbound, LONGEST_DOCUMENT).await?;
    let document: Document = serde_json::from_slice(&answer.body)
        .map_err(|error| FetchError::Document(url.clone(), error))?;
    // Else whoever can answer there could sign for anybody.
    if document.issuer != rules.issuer {
        return Err(FetchError::AnotherIssuer(url.clone(), document.issuer));
    }
    config::parse_outbound_url(&document.jwks_uri)
        .map_err(|fault| FetchError::KeySetUrl(url.clone(), document.jwks_uri, fault))
}

async fn get(url: &Uri, outbound: &Outbound, longest: usize) -> Result<Answer, FetchError> {
    let answer = outbound
        .get(url, longest)
        .await
        .map_err(|error| FetchError::Unanswered(url.clone(), error))?;
    if answer.status != StatusCode::OK {
        return Err(FetchError::Status(url.clone(), answer.status));
    }
    Ok(answer)
}

/// How long an answer may be kept (RFC 9111, section 5.2.2). Neither the server's clock nor ours
/// matters.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(header::CACHE_CONTROL).iter();
    let directives = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase());
    directives
        .filter_map(|directive| match directive.as_str() {
            "no-store" | "no-cache" => Some(Duration::ZERO),
            directive => {
                let seconds = directive.strip_prefix("max-age=")?.trim_matches('"');
                seconds.parse().ok().map(Duration::from_secs)
            }
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_that_an_answer_names_counts() {
        let named = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::CACHE_CONTROL, field.parse().unwrap());
            }
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&["public, max-age=300"]), Some(300));
        assert_eq!(named(&["Max-Age=\"300\"", "max-age=60"]), Some(60));
        assert_eq!(named(&["max-age=300, No-Cache"]), Some(0));
        assert_eq!(named(&["no-store"]), Some(0));
        assert_eq!(named(&["max-age=-1", "max-age=soon", "s-maxage=9"]), None);
    }
}
