//! Certificates made on the spot.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use enforcer::clock::WallInstant;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::bed::{Bed, DAEMON_IPV4, DAEMON_IPV6};

/// The name that every server here answers to.
pub const SERVER_NAME: &str = "enforcer.test";

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub private_key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut params = named("enforcer's test authority", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params.self_signed(&key).context("sign the authority")?;
        Ok(Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for [`SERVER_NAME`] and every address that the bed's servers have.
    pub fn server(&self) -> Result<Identity> {
        let names = [
            SERVER_NAME.to_owned(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
            DAEMON_IPV4.to_string(),
            DAEMON_IPV6.to_string(),
        ];
        self.sign(
            named(SERVER_NAME, names.into())?,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A certificate that a client shows.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.sign(
            named(name, Vec::new())?,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    /// A certificate that a client shows until a whole second.
    pub fn client_until(&self, name: &str, not_after: WallInstant) -> Result<Identity> {
        let mut params = named(name, Vec::new())?;
        let epoch = WallInstant::from_unix_seconds(0);
        let since_epoch = not_after.saturating_duration_since(epoch);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Trust in this authority alone.
    pub fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).context("trust the authority")?;
        Ok(roots)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a certificate")?;
        Ok(Identity {
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        })
    }
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`, and says where.
    pub fn write(&self, bed: &Bed, name: &str) -> Result<(PathBuf, PathBuf)> {
        Ok((
            bed.write(&format!("{name}.pem"), &self.certificate)?,
            bed.write(&format!("{name}.key"), &self.private_key)?,
        ))
    }

    /// For rustls.
    pub fn chain(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::try_from(self.key_der.clone());
        let key = key.map_err(|error| anyhow::anyhow!("the key of a certificate: {error}"))?;
        Ok((vec![self.der.clone()], key))
    }
}

fn named(name: &str, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("name a certificate")?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
