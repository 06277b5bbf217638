//! W3C Trace Context: `traceparent`.

use std::fmt;

use rustix::rand::{GetRandomFlags, getrandom};

/// Which trace, which span of it, and whether it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TraceContext {
    pub(super) trace: u128,
    pub(super) span: u64,
    /// The span that this one is part of.
    pub(super) parent: Option<u64>,
    pub(super) sampled: bool,
}

impl TraceContext {
    /// A new span: of `parent`'s trace, or of one of its own. `None` without random numbers.
    pub(super) fn new(parent: Option<&Self>) -> Option<Self> {
        let mut bytes = [0; 24];
        getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
        let (trace, span) = bytes.split_at(16);
        let span = u64::from_ne_bytes(span.try_into().ok()?).max(1);
        Some(match parent {
            Some(parent) => Self {
                span,
                parent: Some(parent.span),
                ..*parent
            },
            None => Self {
                trace: u128::from_ne_bytes(trace.try_into().ok()?).max(1),
                span,
                parent: None,
                sampled: true,
            },
        })
    }

    /// Reads a header: version 00, or the part of a later one that every version has.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let fits = version != "ff" && (version != "00" || parts.next().is_none());
        hex(version, 2).filter(|_| fits)?;
        let trace = hex(trace, 32).filter(|trace| *trace != 0)?;
        let span = u64::try_from(hex(span, 16)?)
            .ok()
            .filter(|span| *span != 0)?;
        Some(Self {
            trace,
            span,
            parent: None,
            sampled: hex(flags, 2)? & 1 == 1,
        })
    }
}

/// So many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = text.len() == digits && text.bytes().all(plain);
    fits.then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_span_of_a_trace_names_its_parent() {
        let client = TraceContext::parse(GOOD).unwrap();
        assert_eq!(client.to_string(), GOOD);
        let ours = TraceContext::new(Some(&client)).unwrap();
        assert_eq!((ours.trace, ours.parent), (client.trace, Some(client.span)));
        assert_ne!(ours.span, client.span);
        let other = TraceContext::new(None).unwrap();
        assert!(other.sampled && other.trace != ours.trace);
        assert_eq!(TraceContext::parse(&other.to_string()), Some(other));
    }

    #[test]
    fn later_versions_are_read_and_what_is_malformed_is_not() {
        let later = GOOD.replacen("00", "01", 1) + "-more";
        assert!(TraceContext::parse(&later).is_some());
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            &GOOD[..GOOD.len() - 1],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473+-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = TraceContext::parse(&text);
        }
    }
}
