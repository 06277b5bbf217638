//! What an issuer says of a principal beyond who it is.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

/// The claims of a token, or of an introspection's answer, as the issuer's JSON object has them.
/// A certificate has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// The issuer's object.
    pub fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// A claim by its name; where there is none of that name, one within others by its path
    /// (`realm_access.roles`).
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let (outer, path) = name.split_once('.')?;
            path.split('.')
                .try_fold(self.0.get(outer)?, |value, part| value.get(part))
        })
    }

    /// `acr`: how strongly the principal was authenticated.
    pub fn acr(&self) -> Option<&str> {
        self.get("acr")?.as_str()
    }

    /// `amr`: by which methods (RFC 8176).
    pub fn amr(&self) -> impl Iterator<Item = &str> {
        self.members("amr")
    }

    /// What was granted: the words of `scope` (RFC 8693, section 4.2), and of `scp`, where some
    /// issuers have them.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.members("scope").chain(self.members("scp"))
    }

    /// The texts of a claim: of a list its members, of a text itself. Those of `scope` and `scp`
    /// are words with spaces between.
    pub fn members(&self, name: &str) -> impl Iterator<Item = &str> {
        let words = matches!(name, "scope" | "scp");
        self.values(name)
            .filter_map(Value::as_str)
            .flat_map(move |text| {
                let words = words.then(|| text.split(' ').filter(|word| !word.is_empty()));
                let whole = words.is_none().then_some(text);
                words.into_iter().flatten().chain(whole)
            })
    }

    /// Whether a claim is this value, or a list that has it.
    pub fn holds(&self, name: &str, value: &ClaimValue) -> bool {
        match value {
            ClaimValue::Text(text) => self.members(name).any(|member| member == text),
            ClaimValue::Integer(number) => {
                self.values(name).any(|held| held.as_i64() == Some(*number))
            }
            ClaimValue::Boolean(flag) => {
                self.values(name).any(|held| held.as_bool() == Some(*flag))
            }
        }
    }

    /// A claim's value, or its members if it is a list.
    fn values(&self, name: &str) -> impl Iterator<Item = &Value> {
        match self.get(name) {
            Some(Value::Array(list)) => list.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
        .iter()
    }
}

/// A value that a claim may be asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(flag) => flag.fmt(f),
        }
    }
}

/// What a principal's claims must say: each of them one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimConditions(BTreeMap<String, Vec<ClaimValue>>);

impl ClaimConditions {
    /// By the names of the claims.
    pub fn new(conditions: BTreeMap<String, Vec<ClaimValue>>) -> Self {
        Self(conditions)
    }

    /// The first claim that says none of its values, and those.
    pub fn unmet<'a>(&'a self, claims: &Claims) -> Option<(&'a str, &'a [ClaimValue])> {
        self.iter()
            .find(|(name, values)| !values.iter().any(|value| claims.holds(name, value)))
    }

    /// The claims and their values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[ClaimValue])> {
        let conditions = self.0.iter();
        conditions.map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `` `a` or `b` ``
pub(super) fn alternatives(values: &[ClaimValue]) -> String {
    let quoted: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    quoted.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(object: Value) -> Claims {
        match object {
            Value::Object(object) => Claims::new(object),
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn texts_are_read_from_words_and_lists() {
        let claims = claims(json!({
            "acr": "aal2",
            "amr": ["pwd", "otp", 7],
            "scope": "read  write",
            "scp": ["admin"],
            "groups": "staff",
            "level": 3,
            "verified": true,
            "realm_access": {"roles": ["editor"]},
            "https://idp.example/roles": ["a b"],
        }));
        assert_eq!(claims.acr(), Some("aal2"));
        assert_eq!(claims.amr().collect::<Vec<_>>(), ["pwd", "otp"]);
        let scopes: Vec<_> = claims.scopes().collect();
        assert_eq!(scopes, ["read", "write", "admin"]);
        assert_eq!(claims.members("groups").collect::<Vec<_>>(), ["staff"]);
        assert_eq!(claims.members("level").count(), 0);
        assert_eq!(claims.members("none").count(), 0);
        let text = |text: &str| ClaimValue::Text(text.to_owned());
        assert!(claims.holds("scope", &text("read")));
        assert!(claims.holds("realm_access.roles", &text("editor")));
        assert!(!claims.holds("realm_access.roles", &text("admin")));
        assert!(!claims.holds("realm_access.roles.x", &text("editor")));
        assert!(claims.holds("https://idp.example/roles", &text("a b")));
        assert!(!claims.holds("https://idp.example/roles", &text("a")));
        assert!(claims.holds("level", &ClaimValue::Integer(3)));
        assert!(claims.holds("amr", &ClaimValue::Integer(7)));
        assert!(!claims.holds("level", &text("3")));
        assert!(claims.holds("verified", &ClaimValue::Boolean(true)));
        assert!(!claims.holds("verified", &ClaimValue::Boolean(false)));
    }
}
