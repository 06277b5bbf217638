//! `enforcer connect`: the client's half of a tunnel.
//!
//! ```text
//!   psql --> 127.0.0.1:5432 --> enforcer connect ==TLS, HTTP/2, CONNECT==> gateway --> db:5432
//! ```
//!
//! It runs as an ordinary user on any machine, and knows nothing of the daemon but its protocol.

mod address;
mod client;
mod events;
mod failure;
mod gateway;
mod keeper;
mod relay;
mod say;
mod token;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::net::sockopt::set_socket_linger;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

pub use self::address::{Address, InvalidAddress};
pub(crate) use self::failure::Failure;
use self::{
    client::Client,
    gateway::{Gateway, Tunnel, Verdict},
    relay::{Until, relay},
    say::Voice,
    token::TokenSource,
};

/// After a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest wait for the gateway to say why it cut the connection.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `connect`.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// The gateway: an HTTP listener of enforcer's.
    #[arg(long, value_name = "HOST:PORT")]
    pub gateway: Address,
    /// Where the local end is.
    #[command(flatten)]
    pub local: LocalEnd,
    /// Where the token is.
    #[command(flatten)]
    pub token: TokenArgs,
    /// TLS towards the gateway.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print warnings only.
    #[arg(long, short)]
    pub quiet: bool,
    /// Where the tunnel leads, as the gateway's route allows it.
    #[arg(value_name = "TARGET:PORT")]
    pub target: Address,
}

/// The local end: exactly one of the fields is set.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct LocalEnd {
    /// Listen here. Each connection gets a tunnel of its own.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// One tunnel, on standard input and output, as for ssh's ProxyCommand.
    #[arg(long)]
    pub stdio: bool,
}

/// Where the bearer token is: at most one of the fields is set, and none only where a certificate
/// is shown.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct TokenArgs {
    /// Read the token from this file, anew for each renewal.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present_any = ["token_env", "token_command", "client_certificate"]
    )]
    pub token_file: Option<PathBuf>,
    /// Read the token from this environment variable.
    #[arg(long, value_name = "VARIABLE")]
    pub token_env: Option<String>,
    /// Run this command (by `sh -c`), which prints the token; anew for each renewal.
    #[arg(long, value_name = "COMMAND")]
    pub token_command: Option<String>,
}

/// TLS towards the gateway.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Trust these root certificates (PEM) instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The name to verify in the gateway's certificate, instead of the host of `--gateway`.
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub server_name: Option<ServerName<'static>>,
    /// Show this certificate (PEM chain).
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    pub client_key: Option<PathBuf>,
}

fn server_name(text: &str) -> Result<ServerName<'static>, &'static str> {
    ServerName::try_from(text.to_owned()).map_err(|_| "expected a host name or an address")
}

impl TokenArgs {
    fn source(self) -> TokenSource {
        let file = self.token_file.map(TokenSource::File);
        file.or(self.token_env.map(TokenSource::Environment))
            .or(self.token_command.map(TokenSource::Command))
            .unwrap_or(TokenSource::Certificate)
    }
}

/// Connects until the tunnel ends, or, with a listener, until a signal.
pub(super) fn run(args: ConnectArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(async {
        let voice = Voice { quiet: args.quiet };
        let gateway = Gateway::new(args.gateway, args.tls)?;
        let client = Client::new(gateway, args.token.source(), args.target.clone(), voice);
        match args.local.listen {
            Some(address) => listen(&client, address, &args.target).await?,
            None => pipe(&client).await?,
        }
        Ok(ExitCode::SUCCESS)
    });
    // Somebody may still hold standard input open.
    runtime.shutdown_background();
    result
}

async fn listen(client: &Arc<Client>, address: SocketAddr, target: &Address) -> Result<()> {
    client.check().await?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Listen(address, error))?;
    let local = listener.local_addr().context("the local address")?;
    if !local.ip().is_loopback() {
        let text = format!("whoever reaches {local} is taken for you");
        client.voice.warn(text);
    }
    let gateway = client.gateway.address();
    let text = format!("listening on {local}, for {target} by way of {gateway}");
    client.voice.tell(text);
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle signals")?;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(carry(Arc::clone(client), stream))),
                Err(error) => {
                    client.voice.warn(format!("cannot accept: {error}"));
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// Serves one local connection. Until it has ended well, whatever closes it resets it: the end of
/// this process must not look like the target's.
async fn carry(client: Arc<Client>, stream: TcpStream) {
    let mut tunnel = match open_for(&client, &stream).await {
        Ok(tunnel) => tunnel,
        Err(failure) => return client.voice.warn(explain(&failure)),
    };
    let mut stream = stream;
    let (read, write) = stream.split();
    let result = relay(read, write, &mut tunnel, Until::Both).await;
    if result.is_ok() {
        // Fails only for a socket that is gone.
        let _ = set_socket_linger(&stream, None);
    }
    drop(stream);
    match finish(&tunnel, result).await {
        // Said once, for all tunnels.
        Ok(()) | Err(Failure::SessionOver(_)) => {}
        Err(failure) => client.voice.warn(explain(&failure)),
    }
}

async fn open_for(client: &Arc<Client>, stream: &TcpStream) -> Result<Tunnel, Failure> {
    set_socket_linger(stream, Some(Duration::ZERO)).map_err(std::io::Error::from)?;
    stream.set_nodelay(true)?;
    client.open().await
}

/// Serves standard input and output.
async fn pipe(client: &Arc<Client>) -> Result<(), Failure> {
    let mut tunnel = client.open().await?;
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    let result = relay(input, output, &mut tunnel, Until::Target).await;
    finish(&tunnel, result).await
}

/// What came of a tunnel. If the whole connection broke off, and not the tunnel's stream alone, it
/// may be for the end of the session.
async fn finish(tunnel: &Tunnel, result: Result<(), Failure>) -> Result<(), Failure> {
    match &result {
        Err(Failure::Broken(error)) if !error.is_reset() => {
            let verdict = tokio::time::timeout(VERDICT_TIMEOUT, tunnel.line.verdict()).await;
            match verdict {
                Ok(Verdict::SessionOver(reason)) => Err(Failure::SessionOver(reason)),
                _ => result,
            }
        }
        _ => result,
    }
}

/// A failure and its causes, on one line.
fn explain(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
