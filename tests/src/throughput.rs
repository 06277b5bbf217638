//! How much the gateway passes on, against a [forwarder](crate::forwarder) that does nothing but that.
//!
//! Client, forwarder or gateway, and upstream share the machine, so that what one of them costs is
//! missing to the others. Both ways are measured in turns, a few times, and compared by their
//! medians: what else the machine does meanwhile meets both.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Result, ensure};
use enforcer::clock;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_rustls::TlsConnector;

use crate::{
    Scene,
    bed::DAEMON_IPV4,
    certificates::SERVER_NAME,
    config::Route,
    forwarder::{acceptor, forward, serve},
    namespace::Task,
};

/// Bytes of a transfer.
const LENGTH: u64 = 128 * 1024 * 1024;
const TURNS: usize = 7;
const BUFFER: usize = 64 * 1024;
const PLAIN_PORT: u16 = 8444;

/// What is transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From the upstream to the client, in a tunnel.
    TunnelDown,
    /// From the client to the upstream, in a tunnel.
    TunnelUp,
    /// The body of a response.
    Download,
}

impl Transfer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TunnelDown, Self::TunnelUp, Self::Download];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::TunnelDown => "tunnel, to the client",
            Self::TunnelUp => "tunnel, to the target",
            Self::Download => "download",
        }
    }
}

/// Bytes a second, medians.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// What was transferred.
    pub transfer: Transfer,
    /// Through the forwarder.
    pub plain: f64,
    /// Through the gateway.
    pub enforced: f64,
}

/// Prints how much passes, and the ratio.
pub fn measure() -> Result<()> {
    println!(
        "{:<24}{:>14}{:>14}{:>14}",
        "MB/s", "plain TLS", "enforcer", "ratio"
    );
    for Comparison {
        transfer,
        plain,
        enforced,
    } in compare()?
    {
        println!(
            "{:<24}{:>14.0}{:>14.0}{:>14.2}",
            transfer.name(),
            plain / 1e6,
            enforced / 1e6,
            enforced / plain
        );
    }
    Ok(())
}

/// Measures every kind of transfer.
fn compare() -> Result<Vec<Comparison>> {
    let mut scene = Scene::new("throughput")?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let upstream = serve(scene.bed.daemon(), (loopback, 0), answer)?;
    scene.config.routes = vec![
        Route::to(format!("http://{}", upstream.address)),
        Route::tunnel(&["127.0.0.1:*"]),
    ];
    let daemon = scene.start()?;
    let acceptor = acceptor(&scene)?;
    let to = upstream.address;
    let forward = move |stream| forward(stream, acceptor.clone(), to);
    let plain = serve(scene.bed.daemon(), (DAEMON_IPV4, PLAIN_PORT), forward)?;
    let client = Client::new(&scene)?;
    let gateway = scene.client()?.server();
    let compared = Transfer::ALL.map(|transfer| {
        let (mut plainly, mut enforced) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            plainly.push(client.transfer(transfer, plain.address, None)?);
            enforced.push(client.transfer(transfer, gateway, Some(to))?);
        }
        Ok(Comparison {
            transfer,
            plain: median(plainly),
            enforced: median(enforced),
        })
    });
    drop(daemon);
    compared.into_iter().collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The upstream: as much HTTP as one request needs.
async fn answer(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let mut post = false;
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        post |= line.starts_with("POST ");
        if line.trim_end().is_empty() {
            break;
        }
    }
    let mut buffer = vec![0; BUFFER];
    if post {
        let mut left = LENGTH;
        while left > 0 {
            let length = stream.read(&mut buffer).await? as u64;
            ensure!(length > 0, "the upload broke off");
            left = left.saturating_sub(length);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await?;
    } else {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..LENGTH / BUFFER as u64 {
            stream.write_all(&buffer).await?;
        }
    }
    // Until the client goes.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

struct Client {
    runtime: Arc<Runtime>,
    tls: TlsConnector,
    token: String,
}

impl Client {
    fn new(scene: &Scene) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(scene.authority.roots()?)
            .with_no_client_auth();
        Ok(Self {
            runtime: scene.bed.client().runtime(2)?,
            tls: TlsConnector::from(Arc::new(config)),
            token: scene.token("alice")?,
        })
    }

    /// Bytes a second. `target`: where the gateway's tunnel is to lead; without one, the server is
    /// no gateway.
    fn transfer(
        &self,
        transfer: Transfer,
        server: SocketAddr,
        target: Option<SocketAddr>,
    ) -> Result<f64> {
        let (tls, token) = (self.tls.clone(), self.token.clone());
        let transferring = async move {
            let tcp = TcpStream::connect(server).await?;
            tcp.set_nodelay(true)?;
            let stream = tls.connect(ServerName::try_from(SERVER_NAME)?, tcp).await?;
            let mut stream = BufReader::with_capacity(BUFFER, stream);
            if let Some(target) = target.filter(|_| transfer != Transfer::Download) {
                let connect = format!(
                    "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
                     Authorization: Bearer {token}\r\n\r\n"
                );
                stream.write_all(connect.as_bytes()).await?;
                expect_head(&mut stream).await?;
            }
            let began = clock::boot_now();
            let method = if transfer == Transfer::TunnelUp {
                "POST"
            } else {
                "GET"
            };
            let head = format!(
                "{method} / HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            let mut buffer = vec![0; BUFFER];
            if transfer == Transfer::TunnelUp {
                for _ in 0..LENGTH / BUFFER as u64 {
                    stream.write_all(&buffer).await?;
                }
                stream.flush().await?;
                expect_head(&mut stream).await?;
            } else {
                expect_head(&mut stream).await?;
                let mut left = LENGTH;
                while left > 0 {
                    let length = stream.read(&mut buffer).await? as u64;
                    ensure!(length > 0, "the download broke off");
                    left = left.saturating_sub(length);
                }
            }
            let took = clock::boot_now().saturating_duration_since(began);
            Ok(LENGTH as f64 / took.as_secs_f64())
        };
        Task::spawn(&self.runtime, transferring).join()?
    }
}

async fn expect_head(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<()> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the answer is {line:?}");
    while !line.trim_end().is_empty() {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    Ok(())
}
