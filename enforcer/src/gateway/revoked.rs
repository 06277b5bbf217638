//! What authorities have revoked, for the warden: sessions that stand on it end.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use crate::{
    authn::{CertificateError, certificate::revoked},
    channel::ToWarden,
    config::Config,
    gateway::{
        link::Link,
        tls::{PemError, read_revocation_lists},
    },
    session::CertificateId,
};

/// As many as fit into a message.
const AT_ONCE: usize = 1024;

/// Why a revocation list is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevocationListError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("a revocation list cannot be read")]
    List(#[from] CertificateError),
}

/// All certificates on the lists of all listeners.
pub(crate) fn load(config: &Config) -> Result<Vec<CertificateId>, RevocationListError> {
    let authorities = config
        .listeners
        .values()
        .filter_map(|it| it.tls.client.as_ref());
    let paths: BTreeSet<PathBuf> = authorities
        .flat_map(|authority| authority.revocation_lists.iter().cloned())
        .collect();
    let mut certificates = Vec::new();
    for list in read_revocation_lists(&Vec::from_iter(paths))? {
        certificates.extend(revoked(&list)?);
    }
    Ok(certificates)
}

/// Tells the warden, as soon as it listens.
pub(crate) async fn tell(link: Arc<Link>, certificates: Vec<CertificateId>) {
    let (first, others) = certificates.split_at(certificates.len().min(AT_ONCE));
    for (anew, certificates) in
        std::iter::once((true, first)).chain(others.chunks(AT_ONCE).map(|others| (false, others)))
    {
        let certificates = certificates.to_vec();
        link.deliver(ToWarden::RevokedCertificates { anew, certificates })
            .await;
    }
}
