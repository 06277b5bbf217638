//! The certificate that a client has shown in the handshake.

use rustls::{ServerConnection, pki_types::CertificateDer};

use crate::{
    authn::{
        CertificateError, Identified,
        certificate::{credential, shown},
        confirmation::thumbprint,
    },
    clock::WallInstant,
    config::CertificateName,
    session::{Credential, ShownCertificate},
};

/// Verified by the handshake.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    der: CertificateDer<'static>,
    thumbprint: String,
    shown: ShownCertificate,
}

impl ClientCertificate {
    /// What was shown, if anything.
    pub(crate) fn shown(tls: &ServerConnection) -> Result<Option<Self>, CertificateError> {
        let Some([der, authorities @ ..]) = tls.peer_certificates() else {
            return Ok(None);
        };
        Ok(Some(Self {
            thumbprint: thumbprint(der),
            shown: shown(der, authorities.iter().map(AsRef::as_ref))?,
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
        wanted: &CertificateName,
        now: WallInstant,
    ) -> Result<Identified, CertificateError> {
        let credential = Credential {
            certificate: Some(self.shown.clone()),
            ..credential(&self.der, wanted, now)?
        };
        Ok(Identified::without_claims(credential))
    }

    /// A token that is shown beside the certificate is good no longer than that.
    pub(crate) fn beside(
        &self,
        identified: Identified,
        now: WallInstant,
    ) -> Result<Identified, CertificateError> {
        let at = self.shown.expires_at;
        if at <= now {
            return Err(CertificateError::Expired { at });
        }
        let credential = Credential {
            certificate: Some(self.shown.clone()),
            ..(*identified.credential).clone()
        };
        Ok(Identified {
            credential: credential.into(),
            ..identified
        })
    }
}
