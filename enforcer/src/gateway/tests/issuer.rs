//! An issuer, or anything else that is asked over HTTPS: it answers as it is told to.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::server::TlsStream;

use crate::{
    config::{ClientAuthority, Outbound, ServerTls},
    gateway::{socket::Socket, tls},
};

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// `GET /path HTTP/1.1`.
    pub(crate) line: String,
    /// All of the head.
    pub(crate) head: String,
    pub(crate) body: String,
    /// Of the issuer.
    pub(crate) port: u16,
}

/// What it says to that, byte by byte.
pub(crate) enum Said {
    All(String),
    /// And then nothing, on a connection that stays open.
    Hanging(String),
}

type Answering = dyn Fn(&Question) -> Said + Send + Sync;

/// Answers each question on a connection of its own.
pub(crate) struct Issuer {
    address: SocketAddr,
    questions: Arc<Mutex<Vec<Question>>>,
    folder: tempfile::TempDir,
}

impl Issuer {
    pub(crate) async fn new(answering: impl Fn(&Question) -> Said + Send + Sync + 'static) -> Self {
        Self::start(answering, false).await
    }

    /// One that speaks only to those who show its own certificate, and prove that they have the key.
    pub(crate) async fn with_client_certificates(
        answering: impl Fn(&Question) -> Said + Send + Sync + 'static,
    ) -> Self {
        Self::start(answering, true).await
    }

    async fn start(
        answering: impl Fn(&Question) -> Said + Send + Sync + 'static,
        client_certificates: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, pem: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let certificate = file("ca.pem", issued.cert.pem());
        let server = ServerTls {
            client: client_certificates.then(|| ClientAuthority {
                roots: certificate.clone(),
                revocation_lists: Vec::new(),
                required: true,
            }),
            certificate,
            private_key: file("key.pem", issued.signing_key.serialize_pem()),
        };
        let acceptor = tls::load(&server, &[b"http/1.1"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let questions = Arc::<Mutex<Vec<Question>>>::default();
        let log = Arc::clone(&questions);
        let answering: Arc<Answering> = Arc::new(answering);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                let answering = Arc::clone(&answering);
                tokio::spawn(async move {
                    let shaken = tls::accept(&acceptor, &Socket::new(stream)).await;
                    let Ok(Some(mut stream)) = shaken else {
                        return;
                    };
                    let question = read(&mut stream, address.port()).await;
                    log.lock().unwrap().push(question.clone());
                    match answering(&question) {
                        Said::All(text) => {
                            let _ = stream.write_all(text.as_bytes()).await;
                            let _ = stream.shutdown().await;
                        }
                        Said::Hanging(text) => {
                            let _ = stream.write_all(text.as_bytes()).await;
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            questions,
            folder,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> Uri {
        let port = self.port();
        format!("https://localhost:{port}{path}").parse().unwrap()
    }

    /// Its own certificate, for whoever is to trust it.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The key of that.
    pub(crate) fn private_key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap().clone()
    }

    /// How it can be asked.
    pub(crate) fn outbound(&self) -> Outbound {
        Outbound {
            ca: Some(self.ca()),
            allow_networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            timeout: std::time::Duration::from_millis(500),
            ..Outbound::default()
        }
    }
}

async fn read(stream: &mut TlsStream<Socket>, port: u16) -> Question {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body).await.unwrap();
    Question {
        line: head.lines().next().unwrap_or_default().to_owned(),
        body: String::from_utf8(body).unwrap(),
        head,
        port,
    }
}

/// 200 with this body.
pub(crate) fn ok(body: &str) -> Said {
    ok_with("", body)
}

/// 200 with more header fields and this body.
pub(crate) fn ok_with(fields: &str, body: &str) -> Said {
    let length = body.len();
    Said::All(format!(
        "HTTP/1.1 200 OK\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

pub(crate) fn redirect_to(location: &str) -> Said {
    Said::All(format!(
        "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    ))
}

pub(crate) fn status(code: u16) -> Said {
    Said::All(format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n"))
}

impl Question {
    /// The path that was asked for.
    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}
