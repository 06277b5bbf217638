//! Which keys are fit to verify signatures with.

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily,
    jwk::{AlgorithmParameters, EllipticCurve},
};

/// Sizes of an RSA modulus that signatures are verified with, in bits (RFC 7518, section 3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Whether it is a sound public key of the type that the algorithm takes.
pub(super) fn is_fit(key: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    match key {
        AlgorithmParameters::RSA(rsa) => {
            algorithm.family() == AlgorithmFamily::Rsa
                && decode(&rsa.n)
                    .is_some_and(|n| n.first() != Some(&0) && RSA_BITS.contains(&bits(&n)))
                && decode(&rsa.e).is_some_and(|e| e.first() != Some(&0) && bits(&e) > 1)
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let verification = match (&ec.curve, algorithm) {
                (EllipticCurve::P256, Algorithm::ES256) => &signature::ECDSA_P256_SHA256_FIXED,
                (EllipticCurve::P384, Algorithm::ES384) => &signature::ECDSA_P384_SHA384_FIXED,
                _ => return false,
            };
            let point = |(x, y): (Vec<u8>, Vec<u8>)| [vec![4], x, y].concat();
            let point = decode(&ec.x).zip(decode(&ec.y)).map(point);
            point.is_some_and(|point| is_sound(verification, &point))
        }
        AlgorithmParameters::OctetKeyPair(okp) => {
            okp.curve == EllipticCurve::Ed25519
                && algorithm == Algorithm::EdDSA
                && decode(&okp.x).is_some_and(|x| is_sound(&signature::ED25519, &x))
        }
        // A shared secret in a set of public keys is a slip, and any other type unknown.
        _ => false,
    }
}

fn is_sound(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, key).is_ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Bits of a big-endian number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros());
    number.len() * 8 - leading as usize
}
