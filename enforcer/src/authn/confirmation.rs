//! Tokens that are bound to a client's certificate (RFC 8705): of no use to a thief without its
//! key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::policy::Claims;

/// The one confirmation method that is understood: the SHA-256 thumbprint of a certificate.
const THUMBPRINT: &str = "x5t#S256";

/// Why a bound token is not accepted on a connection: always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// Bound to a certificate, and the client has shown none.
    #[error("the token is bound to a certificate, and none was shown")]
    NoCertificate,
    /// Bound to another certificate than the client's.
    #[error("the token is bound to another certificate")]
    AnotherCertificate,
    /// Bound by a method that cannot be checked here, such as a DPoP key.
    #[error("the token is bound in a way that cannot be checked here")]
    Unsupported,
    /// Not bound, where the issuer's tokens must be.
    #[error("the token is not bound to a certificate")]
    Unbound,
}

impl ConfirmationError {
    /// The stable code, as in the audit log.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoCertificate => "certificate_missing",
            Self::AnotherCertificate => "certificate_mismatch",
            Self::Unsupported => "confirmation_unsupported",
            Self::Unbound => "token_unbound",
        }
    }
}

/// The thumbprint of a DER certificate, as `x5t#S256` has it (RFC 8705, section 3.1).
pub fn thumbprint(certificate: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(certificate))
}

/// Whether a token with these claims may be used on a connection whose client has shown the
/// certificate with this thumbprint.
///
/// # Errors
/// Why not.
pub fn confirm(
    claims: &Claims,
    shown: Option<&str>,
    bound_only: bool,
) -> Result<(), ConfirmationError> {
    let Some(confirmation) = claims.get("cnf").filter(|cnf| !cnf.is_null()) else {
        return if bound_only {
            Err(ConfirmationError::Unbound)
        } else {
            Ok(())
        };
    };
    // A method that is not understood may be the stricter one: none is passed over.
    let methods = confirmation.as_object();
    let methods = methods.ok_or(ConfirmationError::Unsupported)?;
    let expected = match (methods.len(), methods.get(THUMBPRINT)) {
        (1, Some(Value::String(expected))) => expected,
        _ => return Err(ConfirmationError::Unsupported),
    };
    match shown {
        None => Err(ConfirmationError::NoCertificate),
        Some(shown) if shown == expected => Ok(()),
        Some(_) => Err(ConfirmationError::AnotherCertificate),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn outcome(cnf: Option<Value>, shown: Option<&str>, bound_only: bool) -> Result<(), &str> {
        let cnf = cnf.map(|cnf| ("cnf".to_owned(), cnf));
        let claims = Claims::new(cnf.into_iter().collect::<Map<_, _>>());
        confirm(&claims, shown, bound_only).map_err(ConfirmationError::code)
    }

    #[test]
    fn a_bound_token_needs_its_certificate() {
        let bound = || Some(json!({"x5t#S256": "abc"}));
        assert_eq!(outcome(bound(), Some("abc"), false), Ok(()));
        assert_eq!(outcome(bound(), Some("abc"), true), Ok(()));
        let other = outcome(bound(), Some("ABC"), false);
        assert_eq!(other, Err("certificate_mismatch"));
        assert_eq!(outcome(bound(), None, false), Err("certificate_missing"));
    }

    #[test]
    fn an_unbound_token_passes_where_it_may() {
        assert_eq!(outcome(None, Some("abc"), false), Ok(()));
        assert_eq!(outcome(None, None, false), Ok(()));
        assert_eq!(outcome(Some(Value::Null), None, true), Err("token_unbound"));
        assert_eq!(outcome(None, Some("abc"), true), Err("token_unbound"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for cnf in [
            json!({"jkt": "abc"}),
            json!({"x5t#S256": "abc", "jkt": "abc"}),
            json!({"x5t#S256": 1}),
            json!({}),
            json!("abc"),
            json!(["abc"]),
        ] {
            let refused = outcome(Some(cnf), Some("abc"), false);
            assert_eq!(refused, Err("confirmation_unsupported"));
        }
    }

    #[test]
    fn the_thumbprint_is_the_digest_of_the_whole_certificate() {
        // The digest of nothing, base64url without padding.
        let empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(thumbprint(b""), empty);
    }
}
