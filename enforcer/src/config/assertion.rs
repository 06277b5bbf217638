//! `[assertion]`: how upstreams are told who asks, in words that they can verify.

use std::{path::PathBuf, time::Duration};

use toml::Spanned;

use super::{
    draft::Draft,
    duration::Zero,
    files::Content,
    raw::{RawAssertion, RawRoute},
};

/// How upstreams are told who asks, in words that they can verify: a token that the gateway signs.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// Its `iss`.
    pub issuer: String,
    /// PEM private key; its type decides the algorithm.
    pub private_key: PathBuf,
    /// PEM public keys that are published beside it: those that signed before.
    pub former_keys: Vec<PathBuf>,
    /// How long one is valid; default 60 s.
    pub ttl: Duration,
}

const DEFAULT_TTL: Duration = Duration::from_secs(60);
const SHORTEST_TTL: Duration = Duration::from_secs(5);
const LONGEST_TTL: Duration = Duration::from_secs(60 * 60);

pub(super) fn convert(draft: &mut Draft<'_>, raw: &RawAssertion) -> Assertion {
    let issuer = raw.issuer.get_ref();
    if issuer.trim().is_empty() || issuer.trim() != issuer {
        draft.report(
            &raw.issuer,
            "`issuer` is empty or has blanks around it",
            "write the `iss` that upstreams expect, such as `issuer = \"https://gateway.example\"`",
        );
    }
    let ttl = draft.duration_or("ttl", raw.ttl.as_ref(), Zero::Refused, DEFAULT_TTL);
    if let Some(value) = raw
        .ttl
        .as_ref()
        .filter(|_| !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl))
    {
        draft.report(
            value,
            "`ttl` is shorter than 5 s or longer than 1 h",
            "write how long an upstream may believe an assertion, such as `ttl = \"60s\"`",
        );
    }
    Assertion {
        issuer: issuer.clone(),
        private_key: draft.file(&raw.private_key, Content::SigningKey),
        former_keys: raw
            .former_keys
            .iter()
            .map(|path| draft.file(path, Content::FormerKey))
            .collect(),
        ttl,
    }
}

/// Routes whose upstreams expect an assertion; `signed`: there is a key to sign it with.
pub(super) fn check_routes(draft: &mut Draft<'_>, routes: &[Spanned<RawRoute>], signed: bool) {
    // A tunnel's is refused as what has no place there.
    let tunnels = |route: &RawRoute| {
        let protocol = route.protocol.as_ref();
        protocol.is_some_and(|protocol| protocol.get_ref() == "tunnel")
    };
    let routes = routes.iter().map(Spanned::get_ref);
    let audiences = routes
        .filter(|route| !tunnels(route))
        .filter_map(|route| route.assertion_audience.as_ref());
    for audience in audiences {
        if !signed {
            draft.report(
                audience,
                "there is no key to sign an assertion with",
                "add a section `[assertion]` with `issuer` and `private_key`",
            );
        }
        if audience.get_ref().trim().is_empty() {
            draft.report(
                audience,
                "`assertion_audience` is empty: any service could take the assertion for its own",
                "write the `aud` that the upstream expects, such as `assertion_audience = \"billing\"`",
            );
        }
    }
}
