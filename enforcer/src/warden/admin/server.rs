//! The socket and the thread that serves it.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    AdminCommand, ApiError, Peer,
    peer::Access,
    routes::{Api, refuse},
};

/// Connections that are served at a time.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause when the process has run out of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long answers may go on when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the API is and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The socket; one that is there is replaced.
    pub socket: PathBuf,
    /// Its members may use it, besides root.
    pub group: Option<String>,
    /// The audit log that it shows.
    pub audit_log: PathBuf,
    /// The folder of the configurations that were applied.
    pub history: PathBuf,
}

/// Why there is no admin API.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket can't be made.
    #[error("cannot listen on {path}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The configured group does not exist.
    #[error("`admin_group` names `{0}`, a group that does not exist: create it or name another")]
    UnknownGroup(String),
    /// The user database can't be read.
    #[error("cannot look up the group `{group}`")]
    Lookup {
        /// The group.
        group: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The server can't be started.
    #[error("cannot start the admin server")]
    Start(#[source] io::Error),
}

/// The running server; dropping it stops it.
#[derive(Debug)]
pub struct AdminServer {
    stop: watch::Sender<()>,
    thread: JoinHandle<()>,
    socket: PathBuf,
}

impl AdminServer {
    /// Makes the socket and starts to serve it; commands go to `commands`.
    ///
    /// # Errors
    /// If the socket can't be made, the group is unknown or the thread can't be started.
    pub fn start(
        settings: Settings,
        commands: mpsc::Sender<AdminCommand>,
    ) -> Result<Self, AdminError> {
        let access = access(settings.group.as_deref())?;
        let listener = listen(&settings.socket, access).map_err(|source| AdminError::Listen {
            path: settings.socket.clone(),
            source,
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Start)?;
        let (stop, stopped) = watch::channel(());
        let api = Api {
            commands,
            audit_log: settings.audit_log,
            history: settings.history,
            stop: stopped,
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || runtime.block_on(serve(listener, access, api)))
            .map_err(AdminError::Start)?;
        Ok(Self {
            stop,
            thread,
            socket: settings.socket,
        })
    }

    /// Removes the socket, lets answers that are under way finish, for a second at most, and ends
    /// the thread.
    pub fn stop(self) {
        // A socket that is gone already is as good.
        let _ = fs::remove_file(&self.socket);
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the admin server had panicked");
        }
    }
}

fn access(group: Option<&str>) -> Result<Access, AdminError> {
    let Some(name) = group else {
        return Ok(Access::Root);
    };
    match Access::group(name) {
        Ok(Some(access)) => Ok(access),
        Ok(None) => Err(AdminError::UnknownGroup(name.to_owned())),
        Err(source) => Err(AdminError::Lookup {
            group: name.to_owned(),
            source,
        }),
    }
}

/// Makes the socket under another name, so that it has its owner and mode when it appears, and
/// replaces in one step what a dead daemon left.
fn listen(socket: &Path, access: Access) -> io::Result<StdListener> {
    let mut draft = socket.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&draft)?;
    match access {
        Access::Root => fs::set_permissions(&draft, Permissions::from_mode(0o600))?,
        Access::Group(group) => {
            chown(&draft, None, Some(group.as_raw()))?;
            fs::set_permissions(&draft, Permissions::from_mode(0o660))?;
        }
    }
    listener.set_nonblocking(true)?;
    fs::rename(&draft, socket)?;
    Ok(listener)
}

async fn serve(listener: StdListener, access: Access, api: Api) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin API is off");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = api.stop.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, place)) => {
                let api = api.clone();
                connections.spawn(async move {
                    match Peer::of(&stream) {
                        Ok(peer) => converse(stream, peer, access, api).await,
                        Err(error) => {
                            tracing::warn!(%error, "an admin client cannot be identified");
                        }
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin API cannot accept");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, finished).await.is_err() {
        tracing::warn!("admin requests were still under way when the server stopped");
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// One connection carries one request: an idle client takes no place.
async fn converse(stream: UnixStream, peer: Peer, access: Access, api: Api) {
    let allowed = access.allows(peer);
    if !allowed {
        tracing::warn!(
            uid = peer.uid,
            pid = peer.pid,
            "an admin client was refused"
        );
    }
    let service = service_fn(|request| {
        let api = &api;
        async move {
            if allowed {
                api.answer(peer, request).await
            } else {
                let message = format!("user {} is neither root nor an administrator", peer.uid);
                Ok(refuse(&ApiError::forbidden(message)))
            }
        }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, uid = peer.uid, "an admin client left");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_may_not_ask_is_refused_before_anything_is_asked() {
        let (commands, mut core) = mpsc::channel(1);
        let (_stop, stop) = watch::channel(());
        let api = Api {
            commands,
            audit_log: PathBuf::new(),
            history: PathBuf::new(),
            stop,
        };
        let (mut client, server) = UnixStream::pair().unwrap();
        let peer = Peer {
            uid: 54_321,
            gid: 54_321,
            pid: None,
        };
        let request = b"POST /v1/unload HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        converse(server, peer, Access::Root, api).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(
            answer.contains(r#"{"code":"forbidden","message":"user 54321 "#),
            "{answer}"
        );
        assert!(core.recv().await.is_none());
    }
}
