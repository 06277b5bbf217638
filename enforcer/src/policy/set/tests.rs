use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::policy::{
    Because, ClaimConditions, ClaimValue, Match,
    limits::tests::{limits, plain},
    time_zone,
};

const NOW: WallInstant = WallInstant::from_unix_seconds(1_767_603_600); // Monday, 09:00 UTC

fn claims(object: Value) -> Claims {
    match object {
        Value::Object(object) => Claims::new(object),
        _ => panic!("not an object"),
    }
}

fn claim(name: &str, values: &[ClaimValue]) -> ClaimConditions {
    ClaimConditions::new(BTreeMap::from([(name.to_owned(), values.to_vec())]))
}

fn text(text: &str) -> ClaimValue {
    ClaimValue::Text(text.to_owned())
}

fn policy(matches: Option<Match>) -> Policy {
    Policy {
        matches,
        ..Policy::from(plain())
    }
}

fn set(policies: &[(&str, Policy)], named: &[&str]) -> PolicySet {
    let policies = policies.iter().cloned();
    let policies = policies.map(|(name, policy)| (name.to_owned(), policy));
    let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
    let require = Requirements::default();
    PolicySet::of(&policies.collect(), [(&named[..], &require)], [])
}

struct Who {
    principal: Principal,
    claims: Claims,
    client: IpAddr,
}

impl Who {
    fn new(subject: &str, claims: Claims, client: &str) -> Self {
        Self {
            principal: Principal {
                issuer: "https://idp".to_owned(),
                subject: subject.to_owned(),
            },
            claims,
            client: client.parse().unwrap(),
        }
    }

    fn request(&self, purpose: Purpose) -> Request<'_> {
        Request {
            purpose,
            principal: &self.principal,
            claims: &self.claims,
            authenticated_at: None,
            client: self.client,
            now: NOW,
        }
    }
}

#[test]
fn policies_apply_by_route_claim_issuer_subject_and_network() {
    let networks = vec![
        "10.0.0.0/8".parse().unwrap(),
        "2001:db8::/32".parse().unwrap(),
    ];
    let matching = |matches| policy(Some(matches));
    let set = set(
        &[
            ("base", policy(None)),
            ("unused", policy(None)),
            (
                "contractors",
                matching(Match {
                    claims: claim("groups", &[text("contractors"), text("interns")]),
                    ..Match::default()
                }),
            ),
            (
                "weak",
                matching(Match {
                    claims: claim("acr", &[text("aal1")]),
                    ..Match::default()
                }),
            ),
            (
                "level",
                matching(Match {
                    claims: claim("level", &[ClaimValue::Integer(3)]),
                    ..Match::default()
                }),
            ),
            (
                "issuer",
                matching(Match {
                    issuers: vec!["https://idp".to_owned()],
                    networks: networks.clone(),
                    ..Match::default()
                }),
            ),
            (
                "bob",
                matching(Match {
                    subjects: vec!["bob".to_owned()],
                    ..Match::default()
                }),
            ),
            (
                "inside",
                matching(Match {
                    networks,
                    ..Match::default()
                }),
            ),
        ],
        &["base"],
    );
    let applying = |who: &Who, purpose| set.decide(&who.request(purpose)).unwrap().policies;
    let alice = Who::new("alice", claims(json!({"groups": ["staff"]})), "192.0.2.1");
    assert_eq!(applying(&alice, Purpose::Route(0)), ["base"]);
    assert!(applying(&alice, Purpose::Endpoint).is_empty());
    let intern = claims(json!({"groups": ["staff", "interns"], "acr": "aal1", "level": 3}));
    let intern = Who::new("bob", intern, "2001:db8::1");
    let all = [
        "base",
        "bob",
        "contractors",
        "inside",
        "issuer",
        "level",
        "weak",
    ];
    assert_eq!(applying(&intern, Purpose::Route(0)), all);
    assert_eq!(set.names(&intern.request(Purpose::Endpoint)), all[1..]);

    let explained = set.explain(&alice.request(Purpose::Route(0)));
    let because = |name| {
        let outcome = explained.policies.iter().find(|it| it.name == name);
        outcome.unwrap().because.clone()
    };
    assert_eq!(because("base"), Because::Route);
    assert_eq!(because("unused"), Because::NotNamed);
    let Because::Mismatch(mismatch) = because("contractors") else {
        panic!("{:?}", because("contractors"));
    };
    let reason = "the claim `groups` is not `contractors` or `interns`";
    assert_eq!(mismatch.to_string(), reason);
}

#[test]
fn what_observed_policies_ask_for_is_noted_and_refuses_nothing() {
    let mut observed = policy(None);
    observed.limits.mode = Mode::Observe;
    observed.require.scopes = vec!["admin".to_owned()];
    let set = set(
        &[("base", policy(None)), ("trial", observed)],
        &["base", "trial"],
    );
    let alice = Who::new("alice", Claims::default(), "192.0.2.1");
    let permit = set.decide(&alice.request(Purpose::Route(0))).unwrap();
    assert_eq!(permit.policies, ["base", "trial"]);
    assert_eq!(permit.observed.unwrap().code(), "insufficient_scope");
}

fn conditions() -> impl Strategy<Value = Match> {
    let value = prop_oneof![
        "[a-c]".prop_map(ClaimValue::Text),
        (0..3_i64).prop_map(ClaimValue::Integer),
        any::<bool>().prop_map(ClaimValue::Boolean),
    ];
    let values = prop::collection::vec(value, 1..3);
    let claims = prop::collection::btree_map("groups|acr|scope", values, 0..3);
    let networks = prop::sample::subsequence(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"], 0..3);
    let subjects = prop::sample::subsequence(vec!["alice", "bob"], 0..2);
    let issuers = prop::sample::subsequence(vec!["https://idp", "https://other"], 0..2);
    let strings = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    (claims, networks, subjects, issuers).prop_map(move |(claims, networks, subjects, issuers)| {
        Match {
            issuers: strings(issuers),
            subjects: strings(subjects),
            networks: networks.into_iter().map(|it| it.parse().unwrap()).collect(),
            claims: ClaimConditions::new(claims),
        }
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let hours = prop::option::weighted(
        0.2,
        prop::sample::select(vec!["mon 00:00-24:00", "tue-sun 00:00-24:00"]),
    );
    let scopes = prop::sample::subsequence(vec!["a", "b"], 0..2);
    let matches = prop::option::of(
        conditions().prop_filter("asks for something", |it| *it != Match::default()),
    );
    (limits(), matches, scopes, hours).prop_map(|(limits, matches, scopes, window)| Policy {
        limits,
        matches,
        require: Requirements {
            scopes: scopes.into_iter().map(str::to_owned).collect(),
            ..Requirements::default()
        },
        hours: window.map(|window| {
            let windows = vec![window.parse().unwrap()];
            crate::policy::Hours::new(time_zone("UTC").unwrap(), windows).unwrap()
        }),
    })
}

fn held() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        "[a-c]( [a-c])?".prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    let list = prop::collection::vec(value.clone(), 0..3).prop_map(Value::from);
    let claims = prop::collection::btree_map("groups|acr|scope", prop_oneof![value, list], 0..4);
    claims.prop_map(|claims| claims.into_iter().collect())
}

proptest! {
    #[test]
    fn explanations_agree_with_decisions(
        policies in prop::collection::vec(policies(), 1..12),
        held in held(),
        subject in "alice|bob",
        client in prop::sample::select(vec!["10.1.2.3", "10.2.2.3", "192.0.2.1", "2001:db8::1"]),
        route: bool,
    ) {
        let policies: Vec<_> = policies
            .into_iter()
            .enumerate()
            .map(|(number, policy)| (format!("p{number}"), policy))
            .collect();
        let policies: Vec<_> = policies.iter().map(|(name, it)| (name.as_str(), it.clone())).collect();
        let set = set(&policies, &["p0"]);
        let who = Who::new(&subject, claims(held), client);
        let request = who.request(if route { Purpose::Route(0) } else { Purpose::Endpoint });
        let explained = set.explain(&request);
        let decided = set.decide(&request);
        prop_assert_eq!(&explained.decision, &decided);
        let applying: Vec<_> = explained.policies.iter().filter(|it| it.applies()).collect();
        let names: Vec<_> = applying.iter().map(|it| it.name.to_owned()).collect();
        prop_assert_eq!(&names, &set.names(&request));
        if let Ok(permit) = decided {
            prop_assert_eq!(&permit.policies, &names);
        }
    }
}
