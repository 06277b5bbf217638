//! Paths, as routes are matched on them.
//!
//! A policy must not be escaped by writing a path differently, so a path is matched in one
//! canonical form: every percent-encoded byte decoded, empty segments gone. What upstreams are
//! known to disagree about is refused: dot segments, written or encoded, and anything that is
//! not a path at all. An encoded slash or backslash is a slash to some upstreams and a letter to
//! others; such a path has a second form, and both must lead to the same route.

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("the path does not start with a slash")]
    NotAbsolute,
    #[error("a percent sign without two hexadecimal digits")]
    Encoding,
    #[error("a control character")]
    Control,
    #[error("a backslash")]
    Backslash,
    #[error("a dot segment")]
    DotSegment,
}

/// A path in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatchPath {
    literal: Vec<u8>,
    split: Option<Vec<u8>>,
}

impl MatchPath {
    /// The canonical form of the path of a request target, or of a route.
    pub(crate) fn parse(path: &str) -> Result<Self, PathError> {
        let bytes = path.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        let mut literal = Vec::with_capacity(bytes.len());
        let mut split = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let [first, tail @ ..] = rest {
            rest = tail;
            let decoded = match *first {
                b'%' => {
                    let (high, low) = match tail {
                        [high, low, ..] => (hex(*high)?, hex(*low)?),
                        _ => return Err(PathError::Encoding),
                    };
                    rest = &tail[2..];
                    high << 4 | low
                }
                b'\\' => return Err(PathError::Backslash),
                byte if byte.is_ascii_control() => return Err(PathError::Control),
                byte => byte,
            };
            match decoded {
                0 => return Err(PathError::Control),
                b'/' | b'\\' if *first == b'%' => {
                    literal.extend_from_slice(if decoded == b'/' { b"%2F" } else { b"%5C" });
                    push(&mut split, b'/');
                }
                byte => {
                    push(&mut literal, byte);
                    push(&mut split, byte);
                }
            }
        }
        for segment in split.split(|byte| *byte == b'/') {
            // What follows a semicolon is a parameter to some upstreams, which drop it.
            let name = segment.split(|byte| *byte == b';').next();
            if matches!(name, Some(b"." | b"..")) {
                return Err(PathError::DotSegment);
            }
        }
        let split = (split != literal).then_some(split);
        Ok(Self { literal, split })
    }

    /// The forms that an upstream may see in it: one, or two.
    pub(crate) fn forms(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.literal[..]).chain(self.split.as_deref())
    }
}

fn push(path: &mut Vec<u8>, byte: u8) {
    if byte != b'/' || path.last() != Some(&b'/') {
        path.push(byte);
    }
}

fn hex(digit: u8) -> Result<u8, PathError> {
    let value = char::from(digit).to_digit(16).ok_or(PathError::Encoding)?;
    Ok(value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forms(path: &str) -> Vec<String> {
        let parsed = MatchPath::parse(path).unwrap();
        parsed
            .forms()
            .map(|form| String::from_utf8_lossy(form).into_owned())
            .collect()
    }

    #[test]
    fn one_path_has_one_form() {
        assert_eq!(forms("/admin/x"), ["/admin/x"]);
        assert_eq!(forms("/%61dmin//x/"), ["/admin/x/"]);
        assert_eq!(forms("//admin"), ["/admin"]);
        assert_eq!(forms("/a%2fb"), ["/a%2Fb", "/a/b"]);
        assert_eq!(forms("/a%5Cb"), ["/a%5Cb", "/a/b"]);
        assert_eq!(forms("/%252e%252e/x"), ["/%2e%2e/x"]);
        assert_eq!(forms("/a...b/..."), ["/a...b/..."]);
    }

    #[test]
    fn what_upstreams_disagree_about_is_refused() {
        for path in [
            "/..",
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/./a",
            "/a/..;x=1/b",
            "/a%2f..%2fb",
            "/a/..%5cb",
        ] {
            assert_eq!(MatchPath::parse(path), Err(PathError::DotSegment), "{path}");
        }
        assert_eq!(MatchPath::parse("/a%00"), Err(PathError::Control));
        assert_eq!(MatchPath::parse("/a\u{7f}"), Err(PathError::Control));
        assert_eq!(MatchPath::parse("/a\\b"), Err(PathError::Backslash));
        assert_eq!(MatchPath::parse("/a%"), Err(PathError::Encoding));
        assert_eq!(MatchPath::parse("/a%g0"), Err(PathError::Encoding));
        assert_eq!(MatchPath::parse("/a%+1"), Err(PathError::Encoding));
        assert_eq!(MatchPath::parse("*"), Err(PathError::NotAbsolute));
        assert_eq!(MatchPath::parse(""), Err(PathError::NotAbsolute));
    }

    proptest! {
        #[test]
        fn encoding_unreserved_bytes_changes_nothing(path in "/[a-z0-9/_~-]{0,40}", which in any::<u64>()) {
            let encoded: String = path
                .bytes()
                .enumerate()
                .map(|(index, byte)| match byte {
                    b'/' => "/".to_owned(),
                    byte if which >> (index % 64) & 1 == 1 => format!("%{byte:02x}"),
                    byte => char::from(byte).to_string(),
                })
                .collect();
            prop_assert_eq!(MatchPath::parse(&path), MatchPath::parse(&encoded));
        }

        #[test]
        fn no_form_holds_a_dot_segment(path in "/[./%2eEfF5cC;a]{0,24}") {
            if let Ok(parsed) = MatchPath::parse(&path) {
                for form in parsed.forms() {
                    prop_assert!(form.split(|byte| *byte == b'/').all(|part| part != b"." && part != b".."));
                }
            }
        }
    }
}
