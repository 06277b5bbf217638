//! What one configuration changes of another, in words.

use std::{collections::BTreeMap, time::Duration};

use super::{Config, Route};
use crate::policy::{ActivityKind, Limits, Mode, Policy};

/// What `new` changes of `old`, one thing each; empty if they mean the same.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if old.daemon != new.daemon {
        found.push("daemon changed".to_owned());
    }
    if old.audit != new.audit {
        found.push("audit changed".to_owned());
    }
    named(
        "listener",
        &old.listeners,
        &new.listeners,
        &mut found,
        |_, _| None,
    );
    let issuers = |config: &Config| -> BTreeMap<_, _> {
        let issuers = config.identity.jwt.iter();
        issuers
            .map(|issuer| (issuer.issuer.clone(), issuer.clone()))
            .collect()
    };
    let before = found.len();
    named(
        "issuer",
        &issuers(old),
        &issuers(new),
        &mut found,
        |_, _| None,
    );
    if found.len() == before && old.identity != new.identity {
        found.push("identity changed".to_owned());
    }
    named("policy", &old.policies, &new.policies, &mut found, policy);
    let routes = |config: &Config| -> BTreeMap<_, _> {
        let routes = config.routes.iter();
        routes
            .map(|route| (route_name(route), route.clone()))
            .collect()
    };
    named("route", &routes(old), &routes(new), &mut found, |_, _| None);
    if old.tunnels != new.tunnels {
        found.push("tunnels changed".to_owned());
    }
    if old.assertion != new.assertion {
        found.push("assertion changed".to_owned());
    }
    if old.monitoring != new.monitoring {
        found.push("monitoring changed".to_owned());
    }
    found
}

/// A route as people call it.
pub(crate) fn route_name(route: &Route) -> String {
    let host = route.host.as_deref().unwrap_or("*");
    format!("{} {host}{}", route.listener, route.path)
}

/// `in_words` says what has changed of one, where more can be said than that it has.
fn named<T: PartialEq>(
    kind: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    found: &mut Vec<String>,
    in_words: impl Fn(&T, &T) -> Option<String>,
) {
    for (name, before) in old {
        match new.get(name) {
            None => found.push(format!("{kind} `{name}` removed")),
            Some(after) if after == before => {}
            Some(after) => found.push(match in_words(before, after) {
                Some(words) => format!("{kind} `{name}`: {words}"),
                None => format!("{kind} `{name}` changed"),
            }),
        }
    }
    let added = new.keys().filter(|name| !old.contains_key(*name));
    found.extend(added.map(|name| format!("{kind} `{name}` added")));
}

fn policy(old: &Policy, new: &Policy) -> Option<String> {
    let (old, new) = (values(&old.limits), values(&new.limits));
    let pairs = old.into_iter().zip(new);
    let changed: Vec<_> = pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((key, old), (_, new))| format!("{key} {old} to {new}"))
        .collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}

/// The limits as the file has them.
fn values(limits: &Limits) -> [(&'static str, String); 6] {
    let duration = |duration: Duration| humantime::format_duration(duration).to_string();
    [
        ("max_session", duration(limits.max_session)),
        (
            "idle_timeout",
            limits
                .idle_timeout
                .map_or_else(|| "none".to_owned(), duration),
        ),
        ("warn_before", duration(limits.warn_before)),
        ("farewell", duration(limits.farewell)),
        (
            "activity",
            match limits.activity {
                ActivityKind::Application => "application",
                ActivityKind::Payload => "payload",
            }
            .to_owned(),
        ),
        (
            "mode",
            match limits.mode {
                Mode::Enforce => "enforce",
                Mode::Observe => "observe",
            }
            .to_owned(),
        ),
    ]
}
