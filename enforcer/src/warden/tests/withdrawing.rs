//! Withdrawn keys and revoked certificates.

use super::*;

#[test]
fn a_key_that_its_issuer_withdrew_ends_what_it_signed() {
    let mut bench = Bench::new();
    let [old, new] = [1, 2].map(|byte| KeyThumbprint::from_bytes([byte; 32]));
    let signed = |subject: &str, by| Credential {
        signing_key: by,
        ..credential(subject, 30)
    };
    let mut open = |cookie, subject: &str, by| {
        bench.connect(cookie, abi::Role::Client);
        bench.open(cookie, &signed(subject, by)).unwrap().id
    };
    let fallen = open(7, "alice", Some(old));
    let standing = open(8, "bob", Some(new));
    let unsigned = open(9, "carol", None);
    let mut withdraw = |issuer: &str, as_of| {
        let message = ToWarden::IssuerKeys {
            issuer: issuer.to_owned(),
            keys: vec![new],
            as_of,
        };
        bench.core.on_message(GATEWAY, message, Now::read());
        [fallen, standing, unsigned].map(|id| bench.core.book.get(id).is_some())
    };
    let early = BootInstant::from_nanos(1);
    assert_eq!(withdraw("iss", early), [true; 3]);
    assert_eq!(withdraw("another", Now::read().boot), [true; 3]);
    assert_eq!(withdraw("iss", Now::read().boot), [false, true, true]);
    bench.connect(10, abi::Role::Client);
    let again = bench.open(10, &signed("alice", Some(old)));
    let reason = EndReason::KeyWithdrawn;
    assert_eq!(again, Err(Refusal::SessionEnded(reason)));
}

#[test]
fn a_revoked_certificate_ends_the_sessions_that_stand_on_it_and_carries_no_other() {
    let mut bench = Bench::new();
    let ids = [1_u8, 2, 3].map(|serial| CertificateId::new(b"authority", &[serial]));
    let open = |bench: &mut Bench, cookie, subject: &str, chain: &[CertificateId]| {
        bench.connect(cookie, abi::Role::Client);
        let mut credential = credential(subject, 30);
        credential.certificate = (!chain.is_empty()).then(|| ShownCertificate {
            chain: chain.to_vec(),
            expires_at: credential.expires_at,
        });
        bench.open(cookie, &credential).map(|view| view.id)
    };
    let revoke = |bench: &mut Bench, anew, certificates: &[CertificateId]| {
        let certificates = certificates.to_vec();
        let message = ToWarden::RevokedCertificates { anew, certificates };
        bench.core.on_message(GATEWAY, message, Now::read());
    };
    let fallen = [
        open(&mut bench, 7, "alice", &ids[..1]).unwrap(),
        // Her authority's.
        open(&mut bench, 8, "bella", &[ids[2], ids[0]]).unwrap(),
    ];
    let standing = [
        open(&mut bench, 9, "bob", &ids[1..2]).unwrap(),
        open(&mut bench, 10, "carol", &[]).unwrap(),
    ];
    revoke(&mut bench, true, &ids[..1]);
    assert!(fallen.iter().all(|id| bench.core.book.get(*id).is_none()));
    assert!(standing.iter().all(|id| bench.core.book.get(*id).is_some()));
    let revoked = Err(Refusal::SessionEnded(EndReason::CertificateRevoked));
    assert_eq!(open(&mut bench, 11, "dave", &ids[..1]), revoked);
    revoke(&mut bench, false, &ids[1..2]);
    assert_eq!(open(&mut bench, 12, "erin", &ids[..1]), revoked);
    assert_eq!(open(&mut bench, 13, "erin", &ids[1..2]), revoked);
    // It was only on hold.
    revoke(&mut bench, true, &ids[1..2]);
    assert!(open(&mut bench, 14, "frank", &ids[..1]).is_ok());
}

#[test]
fn an_issuer_without_keys_ends_all_that_it_signed() {
    let mut bench = Bench::new();
    let [one, other] = [1, 2].map(|byte| KeyThumbprint::from_bytes([byte; 32]));
    let mut open = |cookie, subject: &str, signing_key| {
        bench.connect(cookie, abi::Role::Client);
        let credential = Credential {
            signing_key,
            ..credential(subject, 30)
        };
        bench.open(cookie, &credential).unwrap().id
    };
    let fallen = [open(7, "alice", Some(one)), open(8, "bob", Some(other))];
    let unsigned = open(9, "carol", None);
    let message = ToWarden::IssuerKeys {
        issuer: "iss".to_owned(),
        keys: Vec::new(),
        as_of: Now::read().boot,
    };
    bench.core.on_message(GATEWAY, message, Now::read());
    assert!(fallen.iter().all(|id| bench.core.book.get(*id).is_none()));
    assert!(bench.core.book.get(unsigned).is_some());
}
