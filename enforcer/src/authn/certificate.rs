//! From a client's certificate to a credential.
//!
//! The handshake has proved that the client holds the key, and that the listener's authority
//! signed the certificate. What is left is who it names, and until when.
//!
//! | credential | certificate |
//! | --- | --- |
//! | issuer | the issuer's distinguished name (RFC 4514); of a SPIFFE ID its trust domain |
//! | subject | the name that the listener looks for |
//! | key | a digest of what the authority signed |
//! | expires at | `notAfter` |
//!
//! A session that has ended stays ended for its key, and so for its certificate: authorities that
//! issue short-lived ones fit best.

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer,
    revocation_list::CertificateRevocationList, x509::X509Name,
};

use super::{distinguished_name, name, spiffe};
use crate::{
    clock::WallInstant,
    config::CertificateName,
    session::{CertificateId, Credential, Principal, SessionKey, ShownCertificate},
};

const SPIFFE_ID: &str = "SPIFFE ID";

/// Why a certificate that the authority signed is not accepted: always the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate as RFC 5280 has it.
    #[error("the certificate is malformed")]
    Malformed,
    /// It has no name of the kind that the listener looks for.
    #[error("the certificate has no {0}")]
    NameMissing(&'static str),
    /// The name is empty, too long or has control characters.
    #[error("the certificate's {kind} is unusable: {why}")]
    NameInvalid {
        /// Which name.
        kind: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `notAfter` is reached.
    #[error("the certificate expired at {at}")]
    Expired {
        /// `notAfter`.
        at: WallInstant,
    },
    /// A resumed TLS session's certificate would not be accepted any more.
    #[error("the certificate is not accepted any more: {0}")]
    NoLongerTrusted(String),
}

impl CertificateError {
    /// The stable code, as in the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "certificate_malformed",
            Self::NameMissing(_) => "certificate_name_missing",
            Self::NameInvalid { .. } => "certificate_name_invalid",
            Self::Expired { .. } => "certificate_expired",
            Self::NoLongerTrusted(_) => "certificate_not_trusted",
        }
    }
}

/// Who a certificate speaks for at `now`. A resumed TLS session was verified earlier: the time is
/// looked at again.
///
/// # Errors
/// Why the certificate is not accepted.
pub fn credential(
    certificate: &[u8],
    wanted: &CertificateName,
    now: WallInstant,
) -> Result<Credential, CertificateError> {
    let certificate = parse(certificate)?;
    let expires_at = not_after(&certificate);
    if now >= expires_at {
        return Err(CertificateError::Expired { at: expires_at });
    }
    let subject = subject_of(&certificate, wanted)?;
    let issuer = match wanted {
        // The domain vouches for its workloads, whichever of its authorities has signed.
        CertificateName::Spiffe(trusted) => {
            let invalid = |why| CertificateError::NameInvalid {
                kind: SPIFFE_ID,
                why,
            };
            let domain = spiffe::trust_domain(&subject)
                .ok_or_else(|| invalid("it is not `spiffe://DOMAIN/PATH`"))?;
            if domain != trusted.as_str() {
                return Err(invalid("it is of another trust domain"));
            }
            spiffe::issuer(domain)
        }
        _ => whole("issuer", certificate.issuer())?,
    };
    Ok(Credential {
        principal: Principal { issuer, subject },
        // Not the signature: of an ECDSA signature anybody can make a second valid one, which must
        // not become a second session.
        key: SessionKey::from_certificate(certificate.tbs_certificate.as_ref()),
        names_session: true,
        authorized_party: None,
        authenticated_at: None,
        expires_at,
        assumed_expiry: false,
        signing_key: None,
        certificate: Some(ShownCertificate {
            chain: vec![id(&certificate)],
            expires_at,
        }),
    })
}

/// What a credential is told of the certificate that it is shown with, and of its `authorities`'.
///
/// # Errors
/// If one is not a certificate.
pub fn shown<'a>(
    certificate: &[u8],
    authorities: impl IntoIterator<Item = &'a [u8]>,
) -> Result<ShownCertificate, CertificateError> {
    let certificate = parse(certificate)?;
    let mut chain = vec![id(&certificate)];
    for authority in authorities {
        chain.push(id(&parse(authority)?));
    }
    Ok(ShownCertificate {
        chain,
        expires_at: not_after(&certificate),
    })
}

/// The certificates of a DER list that are revoked (RFC 5280, section 5).
///
/// # Errors
/// If it is not a list.
pub fn revoked(list: &[u8]) -> Result<Vec<CertificateId>, CertificateError> {
    let (_, list) =
        CertificateRevocationList::from_der(list).map_err(|_| CertificateError::Malformed)?;
    let issuer = list.issuer().as_raw();
    let entries = list.iter_revoked_certificates();
    Ok(entries
        .map(|entry| CertificateId::new(issuer, entry.raw_serial()))
        .collect())
}

fn id(certificate: &X509Certificate<'_>) -> CertificateId {
    CertificateId::new(certificate.issuer().as_raw(), certificate.raw_serial())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    Ok(certificate)
}

fn not_after(certificate: &X509Certificate<'_>) -> WallInstant {
    WallInstant::from_unix_seconds(certificate.validity().not_after.timestamp())
}

fn subject_of(
    certificate: &X509Certificate<'_>,
    wanted: &CertificateName,
) -> Result<String, CertificateError> {
    let (kind, found) = match wanted {
        CertificateName::SubjectCommonName => {
            let kind = "common name";
            let name = certificate.subject().iter_common_name().next();
            let text = name.map(|name| name.as_str()).transpose();
            (kind, text.map_err(|_| CertificateError::Malformed)?)
        }
        CertificateName::Dns => ("alternative DNS name", alternative(certificate, wanted)?),
        CertificateName::Email => (
            "alternative email address",
            alternative(certificate, wanted)?,
        ),
        CertificateName::Uri => ("alternative URI", alternative(certificate, wanted)?),
        CertificateName::Spiffe(_) => (SPIFFE_ID, workload(certificate)?),
        CertificateName::Any => match alternative(certificate, wanted)? {
            Some(name) => ("alternative name", Some(name)),
            None => return whole("subject", certificate.subject()),
        },
    };
    let name = found.ok_or(CertificateError::NameMissing(kind))?;
    usable(kind, name.to_owned())
}

fn alternative<'a>(
    certificate: &'a X509Certificate<'_>,
    wanted: &CertificateName,
) -> Result<Option<&'a str>, CertificateError> {
    Ok(alternatives(certificate, wanted)?.first().copied())
}

fn alternatives<'a>(
    certificate: &'a X509Certificate<'_>,
    wanted: &CertificateName,
) -> Result<Vec<&'a str>, CertificateError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::Malformed)?;
    let names = extension.iter().flat_map(|it| &it.value.general_names);
    let texts = names.filter_map(|name| {
        let (kind, text) = match name {
            GeneralName::DNSName(text) => (CertificateName::Dns, *text),
            GeneralName::RFC822Name(text) => (CertificateName::Email, *text),
            GeneralName::URI(text) => (CertificateName::Uri, *text),
            _ => return None,
        };
        (*wanted == CertificateName::Any || *wanted == kind).then_some(text)
    });
    Ok(texts.collect())
}

/// The one URI of an X509-SVID (X509-SVID, section 2).
fn workload<'a>(certificate: &'a X509Certificate<'_>) -> Result<Option<&'a str>, CertificateError> {
    let uris = alternatives(certificate, &CertificateName::Uri)?;
    match &*uris {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        _ => Err(CertificateError::NameInvalid {
            kind: SPIFFE_ID,
            why: "there are several URIs",
        }),
    }
}

/// A distinguished name, of which something must be left.
fn whole(kind: &'static str, name: &X509Name<'_>) -> Result<String, CertificateError> {
    let text = distinguished_name::text(name).ok_or(CertificateError::Malformed)?;
    if text.is_empty() {
        return Err(CertificateError::NameMissing(kind));
    }
    usable(kind, text)
}

fn usable(kind: &'static str, text: String) -> Result<String, CertificateError> {
    match name::fault(&text) {
        Some(why) => Err(CertificateError::NameInvalid { kind, why }),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;
    use crate::config::TrustDomain;

    fn certificate(common_name: Option<&str>, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Example, Inc.");
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn at(seconds: i64) -> WallInstant {
        WallInstant::from_unix_seconds(seconds)
    }

    fn subject(der: &[u8], name: CertificateName) -> Result<String, CertificateError> {
        credential(der, &name, at(0)).map(|credential| credential.principal.subject)
    }

    #[test]
    fn the_principal_is_the_name_that_the_listener_looks_for() {
        let names = vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::Rfc822Name("alice@example.com".try_into().unwrap()),
            SanType::DnsName("alice.example.com".try_into().unwrap()),
            SanType::URI("spiffe://example.com/alice".try_into().unwrap()),
            SanType::DnsName("second.example.com".try_into().unwrap()),
        ];
        let der = certificate(Some("alice"), names);
        for (name, found) in [
            (CertificateName::Any, "alice@example.com"),
            (CertificateName::SubjectCommonName, "alice"),
            (CertificateName::Dns, "alice.example.com"),
            (CertificateName::Email, "alice@example.com"),
            (CertificateName::Uri, "spiffe://example.com/alice"),
        ] {
            assert_eq!(subject(&der, name).unwrap(), found);
        }
        let issuer = credential(&der, &CertificateName::Any, at(0))
            .unwrap()
            .principal
            .issuer;
        assert_eq!(issuer, "CN=alice,O=Example\\, Inc.");
    }

    #[test]
    fn a_workload_is_vouched_for_by_its_trust_domain() {
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let wanted = CertificateName::Spiffe(TrustDomain::new("example.org").unwrap());
        let named = |names| {
            let der = certificate(Some("ca"), names);
            credential(&der, &wanted, at(0)).map(|it| it.principal)
        };
        let dns = || SanType::DnsName("x.example.org".try_into().unwrap());
        let workload = named(vec![dns(), uri("spiffe://example.org/billing")]).unwrap();
        assert_eq!(workload.issuer, "spiffe://example.org");
        assert_eq!(workload.subject, "spiffe://example.org/billing");
        for (names, code) in [
            (vec![dns()], "certificate_name_missing"),
            (
                vec![uri("https://example.org/x")],
                "certificate_name_invalid",
            ),
            (
                vec![uri("spiffe://example.org/b"), uri("spiffe://example.org/c")],
                "certificate_name_invalid",
            ),
            // Another domain's authority may be among the listener's.
            (
                vec![uri("spiffe://example.com/billing")],
                "certificate_name_invalid",
            ),
        ] {
            assert_eq!(named(names).unwrap_err().code(), code);
        }
    }

    #[test]
    fn without_alternative_names_the_whole_subject_is_the_principal() {
        let der = certificate(Some("alice"), Vec::new());
        let name = subject(&der, CertificateName::Any).unwrap();
        assert_eq!(name, "CN=alice,O=Example\\, Inc.");
        for (name, kind) in [
            (CertificateName::Dns, "alternative DNS name"),
            (CertificateName::Email, "alternative email address"),
            (CertificateName::Uri, "alternative URI"),
        ] {
            let missing = CertificateError::NameMissing(kind);
            assert_eq!(subject(&der, name), Err(missing));
        }
    }

    #[test]
    fn nameless_and_unusable_certificates_are_refused() {
        let nameless = certificate(None, Vec::new());
        let missing = credential(&nameless, &CertificateName::Any, at(0));
        assert_eq!(missing.unwrap_err().code(), "certificate_name_missing");
        let control = certificate(Some("a\nb"), Vec::new());
        let error = subject(&control, CertificateName::SubjectCommonName).unwrap_err();
        assert_eq!(error.code(), "certificate_name_invalid");
        assert_eq!(
            credential(b"no certificate", &CertificateName::Any, at(0)),
            Err(CertificateError::Malformed)
        );
    }

    #[test]
    fn the_end_of_validity_is_the_credentials() {
        let der = certificate(Some("alice"), Vec::new());
        let end = 1_893_456_000;
        let credential = |now| credential(&der, &CertificateName::Any, at(now));
        assert_eq!(credential(end - 1).unwrap().expires_at, at(end));
        let expired = CertificateError::Expired { at: at(end) };
        assert_eq!(credential(end), Err(expired));
    }

    #[test]
    fn another_signature_is_the_same_key_and_another_certificate_is_not() {
        let der = certificate(Some("alice"), Vec::new());
        let key = |der: &[u8]| credential(der, &CertificateName::Any, at(0)).unwrap().key;
        let mut resigned = der.clone();
        *resigned.last_mut().unwrap() ^= 1;
        assert_eq!(key(&der), key(&resigned));
        assert_ne!(key(&der), key(&certificate(Some("alice"), Vec::new())));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = credential(&bytes, &CertificateName::Any, at(0));
        }

        #[test]
        fn a_damaged_certificate_never_panics(at_byte in 0_usize..400, byte: u8) {
            let mut der = certificate(Some("alice"), vec![SanType::DnsName("a".try_into().unwrap())]);
            if let Some(damaged) = der.get_mut(at_byte) {
                *damaged = byte;
            }
            let _ = credential(&der, &CertificateName::Any, at(0));
        }
    }
}
