//! Certificates made on the spot.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use enforcer::clock::WallInstant;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
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
    serial: SerialNumber,
    /// What who shows its certificates sends along: nothing of a root's.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub private_key: String,
    serial: SerialNumber,
    der: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        Self::named("enforcer's test authority")
    }

    /// A new one with this name.
    pub fn named(name: &str) -> Result<Self> {
        let params = authority(name)?;
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params.self_signed(&key).context("sign the authority")?;
        Ok(Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            serial: SerialNumber::from(0_u64),
            above: Vec::new(),
            issuer: Issuer::new(params, key),
        })
    }

    /// One whose certificate this one has signed.
    pub fn subordinate(&self, name: &str) -> Result<Self> {
        let mut params = authority(name)?;
        let serial = next_serial();
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign an authority")?;
        let above = std::iter::once(certificate.der()).chain(&self.above);
        Ok(Self {
            pem: certificate.pem(),
            above: above.cloned().collect(),
            der: certificate.der().clone(),
            serial,
            issuer: Issuer::new(params, key),
        })
    }

    /// The serial number of its certificate.
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
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
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_after);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate that a workload with this SPIFFE ID shows until a whole second.
    pub fn workload(&self, id: &str, not_after: WallInstant) -> Result<Identity> {
        let mut params = named("workload", Vec::new())?;
        params.subject_alt_names = vec![SanType::URI(id.try_into().context("a SPIFFE ID")?)];
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_after);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A list of these certificates as revoked, PEM, that is to be replaced by `next_update`.
    pub fn revoke(&self, revoked: &[&SerialNumber], next_update: WallInstant) -> Result<String> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: epoch,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: epoch,
            next_update: epoch + since_epoch(next_update),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).context("sign a list")?;
        signed.pem().context("write a list")
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
        let serial = next_serial();
        params.serial_number = Some(serial.clone());
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a certificate")?;
        Ok(Identity {
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
            serial,
            above: self.above.clone(),
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

    /// As `x5t#S256` of a token has it.
    pub fn thumbprint(&self) -> String {
        enforcer::authn::confirmation::thumbprint(&self.der)
    }

    /// Its serial number.
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// For rustls.
    pub fn chain(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::try_from(self.key_der.clone());
        let key = key.map_err(|error| anyhow::anyhow!("the key of a certificate: {error}"))?;
        let chain = std::iter::once(&self.der).chain(&self.above);
        Ok((chain.cloned().collect(), key))
    }
}

fn since_epoch(instant: WallInstant) -> Duration {
    instant.saturating_duration_since(WallInstant::from_unix_seconds(0))
}

fn next_serial() -> SerialNumber {
    static SERIALS: AtomicU64 = AtomicU64::new(1);
    SerialNumber::from(SERIALS.fetch_add(1, Ordering::Relaxed))
}

fn authority(name: &str) -> Result<CertificateParams> {
    let mut params = named(name, Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(name: &str, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("name a certificate")?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
