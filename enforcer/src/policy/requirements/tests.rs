use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    clock::WallInstant,
    policy::{ClaimValue, Claims, Purpose, time_zone},
    session::Principal,
};

const NOW: WallInstant = WallInstant::from_unix_seconds(1_767_603_600); // Monday, 09:00 UTC

fn principal() -> Principal {
    Principal {
        issuer: "i".to_owned(),
        subject: "s".to_owned(),
    }
}

fn claims(object: serde_json::Value) -> Claims {
    match object {
        serde_json::Value::Object(object) => Claims::new(object),
        _ => panic!("not an object"),
    }
}

fn outcome(asked: &[Asked<'_>], claims: &Claims, age: Option<u64>) -> Result<(), Denied> {
    let principal = principal();
    let request = Request {
        purpose: Purpose::Route(0),
        principal: &principal,
        claims,
        authenticated_at: age.map(|age| NOW.saturating_sub(Duration::from_secs(age))),
        client: "192.0.2.7".parse().unwrap(),
        now: NOW,
    };
    check(asked, &request)
}

fn asked(requirements: &Requirements) -> Asked<'_> {
    Asked {
        policy: None,
        requirements,
        hours: None,
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn better_authentication_is_asked_for_once_and_for_all() {
    let first = Requirements {
        acr: strings(&["aal1", "aal2", "aal3"]),
        max_age: Some(Duration::from_secs(600)),
        ..Requirements::default()
    };
    let second = Requirements {
        acr: strings(&["aal3", "aal2"]),
        max_age: Some(Duration::from_secs(60)),
        ..Requirements::default()
    };
    let both = [asked(&first), asked(&second)];
    let denied = outcome(&both, &claims(json!({"acr": "aal1"})), Some(10)).unwrap_err();
    let Denied::Authentication {
        acr_values,
        max_age,
        ..
    } = &denied
    else {
        panic!("{denied}");
    };
    assert_eq!(acr_values, &["aal2", "aal3"]);
    assert_eq!(*max_age, Some(Duration::from_secs(60)));
    assert_eq!(
        denied.to_string(),
        "the route asks for authentication of class aal3 or aal2"
    );

    let strong = claims(json!({"acr": "aal2"}));
    assert_eq!(outcome(&both, &strong, Some(60)), Ok(()));
    let stale = outcome(&both, &strong, Some(61)).unwrap_err();
    assert_eq!(
        stale.to_string(),
        "the route asks for authentication within the last 1m"
    );
    assert!(outcome(&both, &strong, None).is_err(), "nothing says when");
}

#[test]
fn one_of_the_methods_is_enough() {
    let requirements = Requirements {
        amr: strings(&["otp", "hwk"]),
        ..Requirements::default()
    };
    let outcome = |amr| outcome(&[asked(&requirements)], &claims(json!({"amr": amr})), None);
    assert_eq!(outcome(json!(["pwd", "hwk"])), Ok(()));
    assert_eq!(outcome(json!("otp")), Ok(()));
    assert_eq!(
        outcome(json!(["pwd"])).unwrap_err().code(),
        "insufficient_user_authentication"
    );
}

#[test]
fn all_scopes_of_all_sources_are_named() {
    let read = Requirements {
        scopes: strings(&["read"]),
        ..Requirements::default()
    };
    let write = Requirements {
        scopes: strings(&["write", "read"]),
        ..Requirements::default()
    };
    let both = [asked(&read), asked(&write)];
    let denied = outcome(&both, &claims(json!({"scope": "read"})), None).unwrap_err();
    assert!(matches!(
        &denied,
        Denied::Scope { missing, scopes, .. } if missing == "write" && *scopes == ["read", "write"]
    ));
    assert_eq!(
        outcome(&both, &claims(json!({"scope": "a write read"})), None),
        Ok(())
    );
    assert_eq!(
        outcome(&both, &claims(json!({"scp": ["read", "write"]})), None),
        Ok(())
    );
}

#[test]
fn what_the_client_cannot_change_is_looked_at_first() {
    let claim = |name: &str, value: &str| {
        let values = vec![ClaimValue::Text(value.to_owned())];
        ClaimConditions::new(BTreeMap::from([(name.to_owned(), values)]))
    };
    let windows = vec!["tue 00:00-24:00".parse().unwrap()];
    let closed = Hours::new(time_zone("UTC").unwrap(), windows).unwrap();
    let mut requirements = Requirements {
        networks: vec!["198.51.100.0/24".parse().unwrap()],
        claims: claim("department", "it"),
        scopes: strings(&["admin"]),
        acr: strings(&["aal3"]),
        ..Requirements::default()
    };
    let mut held = json!({});
    let mut hours = Some(&closed);
    let code = |requirements: &Requirements, hours, held: &serde_json::Value| {
        let asked = Asked {
            policy: Some("p"),
            requirements,
            hours,
        };
        outcome(&[asked], &claims(held.clone()), None).map_err(|denied| denied.code())
    };
    assert_eq!(
        code(&requirements, hours, &held),
        Err("network_not_allowed")
    );
    requirements.networks.push("192.0.2.0/24".parse().unwrap());
    assert_eq!(code(&requirements, hours, &held), Err("outside_hours"));
    hours = None;
    assert_eq!(code(&requirements, hours, &held), Err("claim_not_allowed"));
    held["department"] = json!(["sales", "it"]);
    assert_eq!(code(&requirements, hours, &held), Err("insufficient_scope"));
    held["scope"] = json!("admin");
    let authentication = Err("insufficient_user_authentication");
    assert_eq!(code(&requirements, hours, &held), authentication);
    held["acr"] = json!("aal3");
    assert_eq!(code(&requirements, hours, &held), Ok(()));
}
