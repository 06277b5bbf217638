//! Clients' certificates on HTTP listeners, and assertions to upstreams.

use super::*;

/// Changes the good file and returns what is wrong with it then.
fn faults(changes: &[(&str, &str)]) -> Vec<Problem> {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    parse(&text).map_or_else(problems, |_| Vec::new())
}

#[track_caller]
fn expect(changes: &[(&str, &str)], what: &str, help: &str) {
    let faults = faults(changes);
    let [fault] = &faults[..] else {
        panic!("{faults:#?}");
    };
    assert!(fault.what.contains(what), "{fault:?}");
    assert!(fault.help.contains(help), "{fault:?}");
}

const HTTP: &str = "protocol = \"http\"";
const CLIENT_CA: &str = ", client_ca = \"ca.pem\"";

#[test]
fn an_http_listener_may_know_its_clients_by_certificates() {
    let text = GOOD
        .replace(
            HTTP,
            "protocol = \"http\"\nidentity = \"token_or_certificate\"\nprincipal = \"spiffe\"\ntrust_domain = \"a.org\"",
        )
        .replace(
            CLIENT_CA,
            ", client_ca = \"ca.pem\", client_certificate = \"optional\", client_crl = [\"a.crl\"]",
        );
    let config = parse(&text).unwrap();
    let listener = &config.listeners["public"];
    let domain = TrustDomain::new("a.org").unwrap();
    let by_either = RequestIdentity::TokenOrCertificate(CertificateName::Spiffe(domain));
    assert_eq!(listener.identity, by_either);
    let folder = Path::new("/etc/enforcer");
    let authority = ClientAuthority {
        roots: folder.join("ca.pem"),
        revocation_lists: vec![folder.join("a.crl")],
        required: false,
    };
    assert_eq!(listener.tls.client, Some(authority));
}

#[test]
fn without_tokens_there_need_be_no_issuer() {
    let start = GOOD.find("[[identity.jwt]]").unwrap();
    let end = GOOD.find("[policies.sensitive]").unwrap();
    let text = format!("{}{}", &GOOD[..start], &GOOD[end..]);
    assert!(parse(&text).is_err());
    let text = text.replace(HTTP, "identity = \"certificate\"");
    let listener = &parse(&text).unwrap().listeners["public"];
    let identity = RequestIdentity::Certificate(CertificateName::Any);
    assert_eq!(listener.identity, identity);
}

#[test]
fn certificates_that_nobody_shows_are_no_identity() {
    expect(
        &[(HTTP, "identity = \"certificate\""), (CLIENT_CA, "")],
        "without `client_ca` could not tell",
        "add `client_ca`",
    );
    expect(
        &[
            (HTTP, "identity = \"token_or_certificate\""),
            (CLIENT_CA, ""),
        ],
        "no client shows a certificate",
        "add `client_ca`",
    );
    expect(
        &[
            (HTTP, "identity = \"certificate\""),
            (
                CLIENT_CA,
                ", client_ca = \"ca.pem\", client_certificate = \"optional\"",
            ),
        ],
        "none can be optional",
        "token_or_certificate",
    );
    expect(
        &[(HTTP, "principal = \"san_uri\"")],
        "`principal` has no effect",
        "identity = \"certificate\"",
    );
    let spiffe = |more: &str| format!("identity = \"certificate\"\nprincipal = \"spiffe\"\n{more}");
    expect(
        &[(HTTP, &spiffe(""))],
        "speak for the workloads of any trust domain",
        "add `trust_domain",
    );
    expect(
        &[(HTTP, &spiffe("trust_domain = \"spiffe://a.org\""))],
        "`spiffe://a.org` is not the name of a trust domain",
        "without `spiffe://`",
    );
    expect(
        &[(HTTP, "identity = \"certificate\"\ntrust_domain = \"a.org\"")],
        "`trust_domain` has no effect",
        "add that",
    );
    expect(
        &[(CLIENT_CA, ", client_crl = [\"a.crl\"]")],
        "`client_crl` has no effect",
        "add `client_ca`",
    );
    expect(
        &[(CLIENT_CA, ", client_certificate = \"optional\"")],
        "`client_certificate` has no effect",
        "add `client_ca`",
    );
}

const ASSERTION: &str = "[assertion]\nissuer = \"https://gateway\"\nprivate_key = \"sign.pem\"\n\n\
    [policies.sensitive]";
const POLICIES: &str = "[policies.sensitive]";
const FORWARD: &str = "upstream_pool = \"session\"";
const FOR_BILLING: &str = "upstream_pool = \"session\"\nassertion_audience = \"billing\"";

#[test]
fn an_assertion_has_a_key_and_an_audience() {
    let text = GOOD
        .replacen(POLICIES, ASSERTION, 1)
        .replacen(FORWARD, FOR_BILLING, 1);
    let config = parse(&text).unwrap();
    let assertion = config.assertion.unwrap();
    assert_eq!(assertion.ttl, Duration::from_secs(60));
    assert!(assertion.former_keys.is_empty());
    let audiences: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.assertion_audience.as_deref())
        .collect();
    assert_eq!(audiences, [Some("billing"), None]);

    expect(
        &[(FORWARD, FOR_BILLING)],
        "no key to sign an assertion with",
        "[assertion]",
    );
    expect(
        &[
            (POLICIES, ASSERTION),
            (FORWARD, "assertion_audience = \" \""),
        ],
        "`assertion_audience` is empty",
        "billing",
    );
    for ttl in ["1s", "2h"] {
        let ttl = format!("private_key = \"sign.pem\"\nttl = \"{ttl}\"");
        expect(
            &[(POLICIES, ASSERTION), ("private_key = \"sign.pem\"", &ttl)],
            "`ttl` is shorter than 5 s or longer than 1 h",
            "60s",
        );
    }
}
