//! TLS towards clients.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject,
    },
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    authn::CertificateError,
    clock::{WallInstant, wall_now},
    config::{ClientAuthority, ServerTls},
    gateway::{rejection::Rejection, socket::Socket},
};

/// A PEM file that is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("{0} holds a certificate that is none")]
    Root(PathBuf, #[source] rustls::Error),
}

/// Why a listener's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerTlsError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("certificate {0} and its key do not fit")]
    Certificate(PathBuf, #[source] rustls::Error),
    #[error("client certificates")]
    Verifier(#[from] VerifierBuilderError),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read = |error| PemError::Read(path.to_owned(), error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if chain.is_empty() {
        return Err(PemError::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

pub(crate) fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| PemError::Read(path.to_owned(), error))
}

pub(crate) fn read_roots(path: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| PemError::Root(path.to_owned(), error))?;
    }
    Ok(roots)
}

/// What a listener shakes hands with.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: TlsAcceptor,
    /// Judges clients' certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// Loads a listener's keys. No early data, ever: its replay would be a request of a session.
pub(crate) fn load(config: &ServerTls, alpn: &[&[u8]]) -> Result<Acceptor, ServerTlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let verifier = match &config.client {
        None => None,
        Some(authority) => Some(load_verifier(authority, provider)?),
    };
    let builder = match &verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let mut server = builder
        .with_single_cert(
            read_certificates(&config.certificate)?,
            read_private_key(&config.private_key)?,
        )
        .map_err(|error| ServerTlsError::Certificate(config.certificate.clone(), error))?;
    server.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    server.max_early_data_size = 0;
    Ok(Acceptor {
        tls: TlsAcceptor::from(Arc::new(server)),
        verifier,
    })
}

/// What authorities have revoked.
pub(crate) fn read_revocation_lists(
    paths: &[PathBuf],
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let mut lists = Vec::new();
    for path in paths {
        let read = |error| PemError::Read(path.clone(), error);
        let parsed = CertificateRevocationListDer::pem_file_iter(path).map_err(read)?;
        lists.extend(parsed.collect::<Result<Vec<_>, _>>().map_err(read)?);
    }
    Ok(lists)
}

/// Fails closed: with revocation lists, a certificate that none of them covers is refused, and so
/// is one whose list is out of date.
fn load_verifier(
    authority: &ClientAuthority,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ServerTlsError> {
    let roots = Arc::new(read_roots(&authority.roots)?);
    let lists = read_revocation_lists(&authority.revocation_lists)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider)
        .with_crls(lists)
        .enforce_revocation_expiration();
    if !authority.required {
        builder = builder.allow_unauthenticated();
    }
    Ok(builder.build()?)
}

/// Shakes hands. `None`: the client left without a word. A client that speaks plain HTTP is told
/// so in its own language.
pub(crate) async fn accept(
    acceptor: &Acceptor,
    socket: &Socket,
) -> Result<Option<TlsStream<Socket>>, Rejection> {
    match socket.first_byte().await.map_err(Rejection::Tls)? {
        None => Ok(None),
        // No TLS record type, but the first letter of every HTTP method.
        Some(b'A'..=b'Z') => Err(Rejection::PlainHttp),
        Some(_) => shake_hands(acceptor, socket).await.map(Some),
    }
}

/// The handshake itself.
pub(crate) async fn shake_hands(
    acceptor: &Acceptor,
    socket: &Socket,
) -> Result<TlsStream<Socket>, Rejection> {
    let stream = acceptor.tls.accept(socket.clone()).await;
    let stream = stream.map_err(Rejection::Tls)?;
    verify_again(acceptor, stream.get_ref().1, wall_now())?;
    Ok(stream)
}

/// A resumed TLS session brings along the certificate that was verified when it began, which may
/// have ended or been revoked since.
fn verify_again(
    acceptor: &Acceptor,
    tls: &ServerConnection,
    now: WallInstant,
) -> Result<(), CertificateError> {
    let (Some(verifier), Some(HandshakeKind::Resumed), Some([certificate, chain @ ..])) = (
        &acceptor.verifier,
        tls.handshake_kind(),
        tls.peer_certificates(),
    ) else {
        return Ok(());
    };
    let seconds = u64::try_from(now.as_unix_seconds()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier
        .verify_client_cert(certificate, chain, now)
        .map(drop)
        .map_err(|error| CertificateError::NoLongerTrusted(error.to_string()))
}

/// Answers a request in the clear with a refusal.
pub(crate) async fn refuse_plain(socket: &Socket, rejection: &Rejection) -> io::Result<()> {
    let (response, body) = rejection.response();
    let answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        response.status(),
        body.len(),
    );
    let mut socket = socket.clone();
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await
}
