//! Names of issuers and subjects, which go to logs, messages and headers.

/// Longest name, in bytes.
const LONGEST: usize = 1024;

/// What is wrong with a name, if anything.
pub(super) fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > LONGEST {
        Some("it is too long")
    } else if name.contains(char::is_control) {
        Some("it has control characters")
    } else {
        None
    }
}
