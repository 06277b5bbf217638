//! Distinguished names as text (RFC 4514), in which no value can pass for several.

use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    x509::{AttributeTypeAndValue, X509Name},
};

/// The name, its last part first: `CN=alice,O=Example`. `None` if a value is no text.
pub(super) fn text(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let attributes: Option<Vec<_>> = part.iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let kind = attribute.attr_type();
    let kind = match oid2abbrev(kind, oid_registry()) {
        Ok(name) => name.to_owned(),
        Err(_) => kind.to_id_string(),
    };
    Some(format!("{kind}={}", escape(attribute.as_str().ok()?)))
}

/// RFC 4514, section 2.4.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (place, character) in value.chars().enumerate() {
        let special = match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            ' ' => place == 0 || place == last,
            '#' => place == 0,
            _ => false,
        };
        if special {
            escaped.push('\\');
        }
        match character {
            '\0' => escaped.push_str("\\00"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_taken_for_structure_is_escaped() {
        for (value, escaped) in [
            ("alice", "alice"),
            ("a,O=b", "a\\,O=b"),
            ("a+CN=b", "a\\+CN=b"),
            (" a b ", "\\ a b\\ "),
            ("#1", "\\#1"),
            ("1#", "1#"),
            ("a\\,b", "a\\\\\\,b"),
            ("a\0", "a\\00"),
            ("M\u{fc}ller", "M\u{fc}ller"),
            (" ", "\\ "),
            ("", ""),
        ] {
            assert_eq!(escape(value), escaped);
        }
    }
}
