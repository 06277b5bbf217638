//! What an issuer says of a principal beyond who it is.

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

    /// A claim by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// `acr`: how strongly the principal was authenticated.
    pub fn acr(&self) -> Option<&str> {
        self.get("acr")?.as_str()
    }

    /// `amr`: by which methods (RFC 8176).
    pub fn amr(&self) -> impl Iterator<Item = &str> {
        self.members("amr")
    }

    /// What was granted: the words of `scope` (RFC 8693, section 4.2), and `scp`, where some
    /// issuers have them.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let members = self.members("scope").chain(self.members("scp"));
        members.flat_map(|member| member.split(' ').filter(|word| !word.is_empty()))
    }

    /// The texts of a claim: of a list its members, of a text itself. Others have none.
    pub fn members(&self, name: &str) -> impl Iterator<Item = &str> {
        let members = match self.get(name) {
            Some(Value::Array(list)) => list.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        members.iter().filter_map(Value::as_str)
    }
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
        }));
        assert_eq!(claims.acr(), Some("aal2"));
        assert_eq!(claims.amr().collect::<Vec<_>>(), ["pwd", "otp"]);
        let scopes: Vec<_> = claims.scopes().collect();
        assert_eq!(scopes, ["read", "write", "admin"]);
        assert_eq!(claims.members("groups").collect::<Vec<_>>(), ["staff"]);
        assert_eq!(claims.members("level").count(), 0);
        assert_eq!(claims.members("none").count(), 0);
    }
}
