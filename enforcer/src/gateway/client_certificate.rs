//! The certificate that a client has shown in the handshake.

use rustls::{ServerConnection, pki_types::CertificateDer};

use crate::{
    authn::{
        CertificateError, Identified, TokenError,
        certificate::{credential, expires_at},
        confirmation::thumbprint,
    },
    clock::WallInstant,
    config::CertificateName,
    session::Credential,
};

/// Verified by the handshake.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    der: CertificateDer<'static>,
    thumbprint: String,
    expires_at: WallInstant,
}

impl ClientCertificate {
    /// What was shown, if anything.
    pub(crate) fn shown(tls: &ServerConnection) -> Result<Option<Self>, CertificateError> {
        let Some(der) = tls.peer_certificates().and_then(<[_]>::first) else {
            return Ok(None);
        };
        Ok(Some(Self {
            thumbprint: thumbprint(der),
            expires_at: expires_at(der)?,
            der: der.clone().into_owned(),
        }))
    }

    /// As `x5t#S256` of a token has it.
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Who it speaks for.
    pub(crate) fn identify(
        &self,
        wanted: CertificateName,
        now: WallInstant,
    ) -> Result<Identified, CertificateError> {
        credential(&self.der, wanted, now).map(Identified::without_claims)
    }

    /// A token that is shown beside the certificate is of use no longer than that.
    pub(crate) fn bound(
        &self,
        identified: Identified,
        now: WallInstant,
    ) -> Result<Identified, TokenError> {
        if self.expires_at >= identified.credential.expires_at {
            return Ok(identified);
        }
        if self.expires_at <= now {
            return Err(TokenError::Expired {
                at: self.expires_at,
            });
        }
        let credential = Credential {
            expires_at: self.expires_at,
            ..(*identified.credential).clone()
        };
        Ok(Identified {
            credential: credential.into(),
            ..identified
        })
    }
}
