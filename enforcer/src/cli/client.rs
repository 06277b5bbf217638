//! The client of the admin API.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, runtime::Runtime};

use crate::warden::admin::ApiError;

/// Longest wait for the head of an answer; the daemon gives up on itself earlier.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// Why a daemon gave no answer of use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody listens.
    #[error(
        "the daemon is not running, or not at {socket}: start it with `enforcer run --config FILE`, \
         or name its socket with --socket",
        socket = socket.display()
    )]
    NotRunning { socket: PathBuf, source: io::Error },
    /// The socket's mode or the daemon keeps the user out.
    #[error(
        "user {uid} may not use {socket}: be root or a member of the configured `admin_group`",
        uid = rustix::process::geteuid(), socket = socket.display()
    )]
    Denied { socket: PathBuf },
    /// It listens and doesn't answer.
    #[error("the daemon at {socket} does not answer", socket = socket.display())]
    Silent { socket: PathBuf },
    /// It answered that it can't.
    #[error(transparent)]
    Refused(ApiError),
    /// The exchange broke off.
    #[error("the exchange with the daemon at {socket} failed", socket = socket.display())]
    Broken {
        socket: PathBuf,
        source: anyhow::Error,
    },
}

type Result<T> = std::result::Result<T, ClientError>;

/// A daemon to talk to. Each request has a connection of its own.
pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    pub(super) fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
        })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.exchange(Method::GET, path, Bytes::new())
    }

    /// The answer as it is.
    pub(super) fn get_text(&self, path: &str) -> Result<String> {
        self.runtime.block_on(async {
            let answer = self.request(Method::GET, path, Bytes::new()).await?;
            let body = self.successful(answer).await?.into_body();
            let body = self.collect(body).await?;
            String::from_utf8(body.into()).map_err(|error| self.broken(error.into()))
        })
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error.into()))?;
        self.exchange(Method::POST, path, body.into())
    }

    /// Whether somebody listens.
    pub(super) fn is_running(&self) -> bool {
        let connected = std::os::unix::net::UnixStream::connect(&self.socket);
        connected.is_ok()
    }

    /// Hands `take` the lines of the answer as they come, whole ones, several at a time.
    ///
    /// An error of `take` ends the exchange and is returned as it is.
    pub(super) fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let answer = self.request(Method::GET, path, Bytes::new()).await?;
            let mut body = self.successful(answer).await?.into_body();
            let mut partial = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.broken(error.into()))?;
                if let Some(data) = frame.data_ref() {
                    partial.extend_from_slice(data);
                    let border = partial.iter().rposition(|byte| *byte == b'\n');
                    let whole = border.map_or(0, |border| border + 1);
                    take(&partial[..whole])?;
                    partial.drain(..whole);
                }
            }
            Ok(())
        })
    }

    fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        self.runtime.block_on(async {
            let answer = self.request(method, path, body).await?;
            let body = self.successful(answer).await?.into_body();
            let body = self.collect(body).await?;
            serde_json::from_slice(&body).map_err(|error| self.broken(error.into()))
        })
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.not_connected(error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, HeaderValue::from_static("enforcer"))
            .body(Full::new(body))
            .map_err(|error| self.broken(error.into()))?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Its errors reach the sender.
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(|error| self.broken(error.into())),
            Err(_) => Err(ClientError::Silent {
                socket: self.socket.clone(),
            }),
        }
    }

    async fn successful(&self, answer: Response<Incoming>) -> Result<Response<Incoming>> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status == StatusCode::FORBIDDEN {
            return Err(self.denied());
        }
        let body = self.collect(answer.into_body()).await?;
        Err(match serde_json::from_slice(&body) {
            Ok(refusal) => ClientError::Refused(refusal),
            Err(_) => self.broken(anyhow::anyhow!("the daemon answered {status}")),
        })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes> {
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(self.broken(error.into())),
        }
    }

    fn not_connected(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket, source }
            }
            io::ErrorKind::PermissionDenied => self.denied(),
            _ => self.broken(source.into()),
        }
    }

    fn denied(&self) -> ClientError {
        ClientError::Denied {
            socket: self.socket.clone(),
        }
    }

    fn broken(&self, source: anyhow::Error) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        audit::{AuditLog, AuditSettings, DATABASE_NAME, Event, Record},
        clock::WallInstant,
        warden::admin::{
            AdminCommand, AdminServer, RevokeOutcome, RevokeRequest, Selector, SessionInfo,
            Settings,
        },
    };

    fn server(folder: &Path) -> (AdminServer, mpsc::Receiver<AdminCommand>) {
        let settings = Settings {
            socket: folder.join("admin.sock"),
            group: None,
            audit_log: folder.join(DATABASE_NAME),
            history: folder.join("configurations"),
        };
        let (commands, core) = mpsc::channel(1);
        (AdminServer::start(settings, commands).unwrap(), core)
    }

    #[test]
    fn a_daemon_that_is_not_there_is_told_from_one_that_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let client = Client::new(&socket).unwrap();
        let missing = client.get::<Vec<SessionInfo>>("/v1/sessions").unwrap_err();
        assert!(
            matches!(missing, ClientError::NotRunning { .. }),
            "{missing}"
        );
        assert!(missing.to_string().contains(&*socket.to_string_lossy()));

        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let dead = client.get::<Vec<SessionInfo>>("/v1/sessions").unwrap_err();
        assert!(matches!(dead, ClientError::NotRunning { .. }), "{dead}");
        assert!(!client.is_running());

        let (_server, core) = server(folder.path());
        drop(core);
        assert!(client.is_running());
        let stopping = client.get::<Vec<SessionInfo>>("/v1/sessions").unwrap_err();
        assert!(
            matches!(&stopping, ClientError::Refused(error) if error.code == "unavailable"),
            "{stopping}"
        );
    }

    #[test]
    fn requests_reach_the_core_as_they_were_meant() {
        let folder = tempfile::tempdir().unwrap();
        let (_server, mut core) = server(folder.path());
        let answering = std::thread::spawn(move || match core.blocking_recv().unwrap() {
            AdminCommand::Revoke {
                selector, reply, ..
            } => {
                assert_eq!(selector, Selector::All);
                let outcome = RevokeOutcome {
                    sessions: 2,
                    connections: 5,
                    durable: false,
                };
                reply.send(outcome).unwrap();
            }
            other => panic!("{other:?}"),
        });
        let client = Client::new(&folder.path().join("admin.sock")).unwrap();
        let request = RevokeRequest::new(Selector::All, None);
        let outcome: RevokeOutcome = client.post("/v1/revoke", &request).unwrap();
        assert_eq!((outcome.sessions, outcome.connections), (2, 5));
        answering.join().unwrap();
    }

    #[test]
    fn lines_arrive_whole() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::open(AuditSettings::within(folder.path())).unwrap();
        for second in 0..20_000 {
            let record = Record::new(WallInstant::from_unix_seconds(second), Event::Violation);
            log.sink().write(record);
        }
        let written = log.close().sequence;
        assert!(written >= 20_000, "{written}");
        let (_server, _core) = server(folder.path());
        let client = Client::new(&folder.path().join("admin.sock")).unwrap();
        let mut received = 0;
        client
            .lines("/v1/audit", |lines| {
                assert!(lines.is_empty() || lines.ends_with(b"\n"));
                received += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                Ok(())
            })
            .unwrap();
        assert_eq!(received, written);

        let left = client
            .lines("/v1/audit", |_| Err(io::ErrorKind::BrokenPipe.into()))
            .unwrap_err();
        assert!(super::super::output::reader_left(&left));
    }
}
