//! What a gateway that enforces nothing would be: the same TLS stack, the same cipher, tokio's
//! `copy_bidirectional` with buffers of the same size, and no enforcer. It shows what its way costs
//! by itself.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use rustls::ServerConfig;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Scene,
    namespace::{Namespace, Task},
};

/// As many as the gateway has on a machine of two cores, on which figures are taken.
const WORKERS: usize = 2;
/// The gateway's. With tokio's default, a quarter of it, bytes in bulk cost much more.
const BUFFER: usize = 32 * 1024;

/// Something that listens, until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    _runtime: Arc<Runtime>,
}

/// Has `converse` with everybody who connects.
pub(crate) fn serve<F>(
    namespace: &Namespace,
    address: (IpAddr, u16),
    converse: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> Result<Served>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = namespace.runtime(WORKERS)?;
    let listener = Task::spawn(&runtime, TcpListener::bind(address)).join()?;
    let listener = listener.context("listen")?;
    let address = listener.local_addr().context("the local address")?;
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client has seen how it went.
            tokio::spawn(converse(stream));
        }
    });
    Ok(Served {
        address,
        _runtime: runtime,
    })
}

/// TLS as the scene's server has it.
pub(crate) fn acceptor(scene: &Scene) -> Result<TlsAcceptor> {
    let (chain, key) = scene.authority.server()?.chain()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// TLS, and nothing else.
pub(crate) async fn forward(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    to: SocketAddr,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut client = acceptor.accept(stream).await?;
    let mut upstream = TcpStream::connect(to).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}
