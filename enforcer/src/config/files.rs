//! The files that a configuration refers to: there, readable, and of use.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    JwtIssuer,
    error::{Problem, reading_help},
};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};

use crate::authn::{
    KeySet, SHORTEST_SECRET, shared_secret,
    signing::{self, SigningKey, SigningKeyFault},
};

/// A file that the configuration refers to.
#[derive(Debug)]
pub(super) struct FileReference {
    /// The line of the reference.
    pub(super) line: usize,
    /// Absolute.
    pub(super) path: PathBuf,
    /// What the file must hold.
    pub(super) content: Content,
}

/// What a file must hold.
#[derive(Debug)]
pub(super) enum Content {
    /// A PEM chain.
    Certificates,
    /// The PEM key of the chain in another file.
    PrivateKeyOf(PathBuf),
    /// PEM certificates of authorities.
    Roots,
    /// PEM lists of certificates that the authorities in another file have revoked.
    RevocationListOf(PathBuf),
    /// The PEM private key that assertions are signed with.
    SigningKey,
    /// The PEM public key of one that signed before.
    FormerKey,
    /// A shared secret.
    Secret,
    /// The keys of a token issuer.
    Keys(Box<JwtIssuer>),
    /// A password.
    Password,
    /// What a client proves itself with: one line of text.
    ClientSecret,
}

/// What is wrong with a file and what to do about it.
struct Fault {
    what: String,
    help: String,
}

impl Fault {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            help: help.into(),
        }
    }
}

/// What is wrong with the file, if anything.
pub(super) fn check(reference: &FileReference) -> Option<Problem> {
    let path = &reference.path;
    let checked = match &reference.content {
        Content::Certificates => certificates(path).map(drop),
        Content::PrivateKeyOf(certificate) => private_key(path, certificate),
        Content::ClientSecret => client_secret(path),
        Content::Roots => roots(path).map(drop),
        Content::Password => password(path),
        Content::RevocationListOf(authorities) => revocation_lists(path, authorities),
        Content::SigningKey => signing(SigningKey::load(path)),
        Content::FormerKey => signing(signing::former_key(path)),
        Content::Secret => secret(path).map(drop),
        Content::Keys(issuer) => KeySet::load(issuer)
            .map(drop)
            .map_err(|error| Fault::new(error.fault.to_string(), error.help())),
    };
    let fault = checked.err()?;
    Some(Problem {
        line: reference.line,
        what: format!("`{}` {}", path.display(), fault.what),
        help: fault.help,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path)
        .map_err(|error| Fault::new(format!("cannot be read: {error}"), reading_help(&error)))
}

/// The password in a file: its bytes without a final line break.
pub(crate) fn read_password(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map(|content| password_in(&content).to_vec())
}

fn password_in(content: &[u8]) -> &[u8] {
    let line = content.strip_suffix(b"\n");
    let line = line.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    line.unwrap_or(content)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Fault::new(
            "holds no PEM certificate",
            "put certificates between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`",
        )),
    }
}

fn private_key(path: &Path, certificate: &Path) -> Result<(), Fault> {
    let pem = read(path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        Fault::new(
            "holds no PEM private key",
            "put the key in PEM, unencrypted, as PKCS#8, PKCS#1 or SEC1",
        )
    })?;
    // A fault of the certificate is reported where the certificate is referred to.
    let Ok(chain) = certificates(certificate) else {
        return Ok(());
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(drop)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Fault::new(
                format!("is not the key of `{}`", certificate.display()),
                "write the key that the certificate was made for",
            ),
            error => Fault::new(
                format!("cannot be used with its certificate: {error}"),
                "write an RSA, ECDSA or Ed25519 key and its certificate",
            ),
        })
}

fn password(path: &Path) -> Result<(), Fault> {
    let content = read(path)?;
    let password = password_in(&content);
    if password.is_empty() || password.contains(&0) {
        return Err(Fault::new(
            "holds no password",
            "put the password there; a final line break does not count",
        ));
    }
    Ok(())
}

fn client_secret(path: &Path) -> Result<(), Fault> {
    let text = read(path)?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    if line.is_empty() || line.iter().any(u8::is_ascii_control) || !line.is_ascii() {
        return Err(Fault::new(
            "holds no secret on one line of ASCII",
            "put the secret there that the issuer gave to this client",
        ));
    }
    Ok(())
}

/// A secret that is shared with whoever verifies what it signs.
fn secret(path: &Path) -> Result<Vec<u8>, Fault> {
    let content = read(path)?;
    let secret = shared_secret(&content).map_err(|fault| {
        let help = format!("share a random secret of at least {SHORTEST_SECRET} bytes");
        Fault::new(fault.to_string(), help)
    })?;
    Ok(secret.to_vec())
}

/// The secret in a file.
///
/// # Errors
/// Why there is none.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    secret(path).map_err(|fault| format!("`{}` {}", path.display(), fault.what))
}

fn roots(path: &Path) -> Result<RootCertStore, Fault> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| {
            Fault::new(
                format!("holds a certificate that cannot be a root: {error}"),
                "put certificates of authorities there",
            )
        })?;
    }
    Ok(store)
}

fn revocation_lists(path: &Path, authorities: &Path) -> Result<(), Fault> {
    let pem = read(path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.ok().filter(|lists| !lists.is_empty()).ok_or_else(|| {
        Fault::new(
            "holds no PEM revocation list",
            "put lists between `-----BEGIN X509 CRL-----` and `-----END X509 CRL-----`; from DER \
             they are made by `openssl crl -inform DER`",
        )
    })?;
    // A fault of the authorities is reported where they are referred to.
    let Ok(roots) = roots(authorities) else {
        return Ok(());
    };
    WebPkiClientVerifier::builder_with_provider(roots.into(), aws_lc_rs::default_provider().into())
        .with_crls(lists)
        .build()
        .map(drop)
        .map_err(|error| {
            Fault::new(
                format!("holds a revocation list that cannot be used: {error}"),
                "put lists of version 2 there (RFC 5280), complete ones and no delta lists",
            )
        })
}

fn signing<T>(loaded: Result<T, SigningKeyFault>) -> Result<(), Fault> {
    loaded
        .map(drop)
        .map_err(|fault| Fault::new(fault.to_string(), fault.help()))
}
