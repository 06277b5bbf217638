//! SPIFFE IDs: names of workloads (SPIFFE-ID, and X509-SVID sections 2 to 5).

use crate::config::TrustDomain;

/// Longest id, in bytes (SPIFFE-ID, section 2.3).
const LONGEST: usize = 2048;
const SCHEME: &str = "spiffe://";

/// The name of the trust domain of a workload's id: `example.org`. `None` if the text is not the id
/// of a workload.
pub(super) fn trust_domain(id: &str) -> Option<&str> {
    let rest = id.strip_prefix(SCHEME)?;
    let (domain, path) = rest.split_once('/')?;
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    let sound = id.len() <= LONGEST
        && TrustDomain::is_name(domain)
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_segment));
    sound.then_some(domain)
}

/// A trust domain, as an issuer: `spiffe://example.org`.
pub(super) fn issuer(domain: &str) -> String {
    format!("{SCHEME}{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_workloads_have_a_domain_and_a_path() {
        for (id, domain) in [
            ("spiffe://example.org/billing", "example.org"),
            ("spiffe://a_b.c-d/ns/Prod/sa/x.y", "a_b.c-d"),
        ] {
            assert_eq!(trust_domain(id), Some(domain));
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2048));
        for bad in [
            "https://example.org/billing",
            "SPIFFE://example.org/billing",
            "spiffe://Example.org/billing",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///billing",
            "spiffe://example.org/billing/",
            "spiffe://example.org//billing",
            "spiffe://example.org/../billing",
            "spiffe://example.org:443/billing",
            "spiffe://user@example.org/billing",
            "spiffe://example.org/bil%6Cing",
            "spiffe://example.org/billing?x",
            "spiffe://example.org/billing#x",
            long.as_str(),
        ] {
            assert_eq!(trust_domain(bad), None, "{bad}");
        }
    }
}
