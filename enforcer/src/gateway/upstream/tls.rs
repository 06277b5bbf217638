//! TLS towards upstreams: roots, names, client certificates. Loaded before the process is sealed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::{HttpVersion, TlsOpening, Upstream, UpstreamTls},
    gateway::{
        http::http2,
        postgres,
        socket::Socket,
        tls::{PemError, read_certificates, read_private_key, read_roots},
    },
};

/// Why an upstream's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamTlsError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{0} is no name that a certificate can be verified for")]
    ServerName(String),
    #[error("certificate {0} and its key do not fit")]
    ClientCertificate(PathBuf, #[source] rustls::Error),
    #[error("the system has no root certificates; name a `ca` file")]
    NoNativeRoots,
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// The system's root certificates, read once.
#[derive(Debug, Default)]
pub(crate) struct NativeRoots(Option<Arc<RootCertStore>>);

impl NativeRoots {
    fn load(&mut self) -> Result<Arc<RootCertStore>, UpstreamTlsError> {
        if let Some(roots) = &self.0 {
            return Ok(Arc::clone(roots));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(UpstreamTlsError::NoNativeRoots);
        }
        Ok(Arc::clone(self.0.insert(Arc::new(roots))))
    }
}

/// How to verify a server, and what to show it: by the roots in `ca`, else by the system's.
pub(crate) fn client_config(
    ca: Option<&Path>,
    client_certificate: Option<&(PathBuf, PathBuf)>,
    native: &mut NativeRoots,
) -> Result<ClientConfig, UpstreamTlsError> {
    let roots = match ca {
        Some(path) => Arc::new(read_roots(path)?),
        None => native.load()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => builder
            .with_client_auth_cert(read_certificates(certificate)?, read_private_key(key)?)
            .map_err(|error| UpstreamTlsError::ClientCertificate(certificate.clone(), error)),
    }
}

/// How to speak TLS with one upstream.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    version: HttpVersion,
    opening: TlsOpening,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn load(
        config: &UpstreamTls,
        upstream: &Upstream,
        native: &mut NativeRoots,
    ) -> Result<Self, UpstreamTlsError> {
        let certificate = config.client_certificate.as_ref();
        let mut client = client_config(config.ca.as_deref(), certificate, native)?;
        let protocol = match (config.opening, upstream.version) {
            (TlsOpening::SslRequest, _) => postgres::ALPN,
            (TlsOpening::AtOnce, HttpVersion::Http1) => b"http/1.1",
            (TlsOpening::AtOnce, HttpVersion::Http2) => http2::ALPN,
        };
        client.alpn_protocols = vec![protocol.to_vec()];
        let name = config.server_name.as_deref().unwrap_or(&upstream.host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| UpstreamTlsError::ServerName(name.to_owned()))?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            name,
            version: upstream.version,
            opening: config.opening,
        })
    }

    pub(super) async fn connect(&self, mut socket: Socket) -> io::Result<TlsStream<Socket>> {
        if self.opening == TlsOpening::SslRequest {
            postgres::request_tls(&mut socket).await?;
        }
        let stream = self.connector.connect(self.name.clone(), socket).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(http2::ALPN);
        if self.version == HttpVersion::Http2 && !agreed {
            let message = "it does not speak HTTP/2";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Ok(stream)
    }
}
