//! A warden, an upstream and clients.

use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use ipnet::IpNet;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use crate::{
    channel::{Refusal, Request, SessionUsage, SessionView, ToGateway, ToWarden, Transport},
    clock::{Now, WallInstant, boot_now, wall_now},
    config::{
        CertificateName, ClientAuthority, Identity, JwtIssuer, KeySource, PostgresRoute,
        RequestIdentity, Route, ServerTls, TargetPattern, TokenCookie, TunnelRoute,
        Upstream as UpstreamConfig,
    },
    gateway::{
        Server, Service, Target,
        export::Receivers,
        http::{
            http2,
            route::{RouteTable, tests::route},
        },
        identity::Identifier,
        postgres::{self, Login, PostgresService},
        start::{Started, StartedListener},
        tcp::TcpService,
        tls,
        tunnel::Tunnels,
        upstream::{Upstream, tls::NativeRoots},
        webhook::Webhooks,
    },
    metrics::Counters,
    policy::{PolicySet, Requirements, plain},
    session::{Credential, EndReason, SessionId, SessionKey},
};

/// Where tokens may come from browsers.
pub(super) const COOKIE: &str = "__Host-token";
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// A gateway and all that it talks to.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) warden: Arc<Warden>,
    pub(super) handover: PathBuf,
    pub(super) server: Server,
    connector: TlsConnector,
    /// The same, for HTTP/2.
    connector2: TlsConnector,
    _folder: tempfile::TempDir,
}

/// Plays the warden: opens what it is asked to, and remembers everything.
pub(super) struct Warden {
    transport: Mutex<Option<Arc<Transport>>>,
    heard: Mutex<Vec<ToWarden>>,
    sessions: Mutex<HashMap<SessionKey, SessionView>>,
    /// How the next `Open`s are refused.
    pub(super) refuse: Mutex<Option<Refusal>>,
    /// Life of the sessions that it opens.
    pub(super) max_session: Mutex<Duration>,
}

impl Warden {
    pub(super) fn heard(&self) -> Vec<ToWarden> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until the gateway has said something.
    pub(super) async fn hears(&self, wanted: impl Fn(&ToWarden) -> bool) -> ToWarden {
        for _ in 0..500 {
            if let Some(message) = self.heard().into_iter().find(&wanted) {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never heard among {:?}", self.heard());
    }

    /// How often the gateway has told of activity.
    pub(super) fn touches(&self) -> usize {
        let heard = self.heard();
        let touches = heard
            .iter()
            .filter(|it| matches!(it, ToWarden::Touch { .. }));
        touches.count()
    }

    pub(super) fn only_session(&self) -> SessionView {
        let sessions = self.sessions.lock().unwrap();
        assert_eq!(sessions.len(), 1);
        sessions.values().next().unwrap().clone()
    }

    pub(super) async fn say(&self, message: ToGateway) {
        let transport = self.transport.lock().unwrap().clone().unwrap();
        transport.send(&message).await.unwrap();
    }

    pub(super) async fn warn(&self, after: Duration) {
        let session = self.only_session().id;
        let limit = boot_now().saturating_add(after);
        let reason = EndReason::Idle;
        self.say(ToGateway::Warning {
            session,
            reason,
            limit,
        })
        .await;
    }

    /// Says that the session's limits have changed, although they are what they were.
    pub(super) async fn calm(&self) {
        let session = self.only_session();
        self.say(ToGateway::Changed { session }).await;
    }

    pub(super) async fn farewell(&self, after: Duration) {
        let session = self.only_session().id;
        let limit = boot_now().saturating_add(after);
        let reason = EndReason::Deadline;
        self.say(ToGateway::Farewell {
            session,
            reason,
            limit,
        })
        .await;
    }

    pub(super) async fn end(&self) {
        let session = self.only_session().id;
        let reason = EndReason::Revoked;
        self.say(ToGateway::Ended { session, reason }).await;
    }

    /// Closes the channel, as a dying warden does.
    pub(super) fn die(&self) {
        let transport = self.transport.lock().unwrap().take().unwrap();
        rustix::net::shutdown(&*transport, rustix::net::Shutdown::Both).unwrap();
    }

    fn view(&self, credential: &Credential, policies: Vec<String>) -> SessionView {
        let mut sessions = self.sessions.lock().unwrap();
        let id = SessionId::from_u64(sessions.len() as u64 + 1).unwrap();
        let max_session = *self.max_session.lock().unwrap();
        let view = sessions
            .entry(credential.key)
            .or_insert_with(|| SessionView {
                id,
                started_at: wall_now(),
                deadline: boot_now().saturating_add(max_session),
                idle_timeout: Some(Duration::from_secs(300)),
                warn_before: Duration::from_secs(5),
                enforced: true,
                token_expires_at: credential.expires_at,
                policies: Vec::new(),
            });
        for policy in policies {
            if !view.policies.contains(&policy) {
                view.policies.push(policy);
            }
        }
        view.clone()
    }

    fn found(&self, request: Request, credential: &Credential) -> ToGateway {
        let session = self.sessions.lock().unwrap().get(&credential.key).cloned();
        match session {
            Some(session) => ToGateway::Found {
                request,
                usage: SessionUsage {
                    connections: 1,
                    deadline: Now::read().wall_at(session.deadline),
                    idle_at: None,
                },
                session,
            },
            None => ToGateway::Refused {
                request,
                refusal: Refusal::NoSession,
            },
        }
    }

    async fn serve(self: Arc<Self>, transport: Arc<Transport>) {
        while let Ok(Some((message, _))) = transport.recv::<ToWarden>().await {
            self.heard.lock().unwrap().push(message.clone());
            let answer = match message {
                ToWarden::Open {
                    request,
                    credential,
                    policies,
                    ..
                } => {
                    let refuse = *self.refuse.lock().unwrap();
                    Some(match refuse {
                        Some(refusal) => ToGateway::Refused { request, refusal },
                        None => ToGateway::Opened {
                            request,
                            session: self.view(&credential, policies),
                        },
                    })
                }
                ToWarden::Renew {
                    request,
                    session,
                    credential,
                } => {
                    let mut sessions = self.sessions.lock().unwrap();
                    let view = sessions
                        .values_mut()
                        .find(|view| view.id == session)
                        .unwrap();
                    view.token_expires_at = credential.expires_at;
                    let session = view.clone();
                    Some(ToGateway::Opened { request, session })
                }
                ToWarden::Find {
                    request,
                    credential,
                    ..
                } => Some(self.found(request, &credential)),
                ToWarden::Bind { request, .. } => Some(ToGateway::Bound { request }),
                ToWarden::End { session, cause } => Some(ToGateway::Farewell {
                    session,
                    reason: cause.into(),
                    limit: boot_now().saturating_add(Duration::from_millis(100)),
                }),
                _ => None,
            };
            if let Some(answer) = answer {
                let _ = transport.send(&answer).await;
            }
        }
    }
}

/// A policy for every name in the routes.
fn policies(routes: &[Route], tunnels: &[TunnelRoute]) -> PolicySet {
    let names = routes.iter().flat_map(|route| route.policies.clone());
    let names = names.chain(tunnels.iter().flat_map(|tunnel| tunnel.policies.clone()));
    let policies = names.map(|name| (name, plain().into())).collect();
    PolicySet::new(&policies, routes, tunnels)
}

impl World {
    /// A world with one HTTP listener and these routes, all to the same upstream.
    pub(super) async fn new(upstream: SocketAddr, routes: Vec<Route>) -> Self {
        Self::serving(upstream, routes, Vec::new(), Service::Http, Vec::new()).await
    }

    /// A world whose one HTTP listener leads to these targets, and nowhere else.
    pub(super) async fn tunnels(targets: &[TargetPattern]) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let tunnels = vec![TunnelRoute {
            listener: "public".to_owned(),
            targets: targets.to_vec(),
            policies: vec!["default".to_owned()],
            require: Requirements::default(),
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(5),
        }];
        Self::serving(nowhere, Vec::new(), tunnels, Service::Http, Vec::new()).await
    }

    /// A world whose one HTTP listener takes everybody for a proxy.
    pub(super) async fn behind_proxies(upstream: SocketAddr, route: Route) -> Self {
        let everybody = vec!["0.0.0.0/0".parse().unwrap()];
        Self::serving(upstream, vec![route], Vec::new(), Service::Http, everybody).await
    }

    /// A world with one TCP listener. Clients show the server's own certificate.
    pub(super) async fn tcp(upstream: SocketAddr) -> Self {
        let service = Service::Tcp(TcpService {
            subject: CertificateName::Any,
            route: 0,
        });
        let routes = vec![route("public", None, "/")];
        Self::serving(upstream, routes, Vec::new(), service, Vec::new()).await
    }

    /// A world with one PostgreSQL listener. Clients show the server's own certificate.
    pub(super) async fn postgres(
        upstream: SocketAddr,
        identity: RequestIdentity,
        settings: PostgresRoute,
    ) -> Self {
        let service = Service::Postgres(PostgresService { route: 0 });
        let route = Route {
            postgres: Some(settings),
            ..route("public", None, "/")
        };
        let (routes, none) = (vec![route], Vec::new());
        Self::identifying(upstream, routes, none, service, identity, Vec::new()).await
    }

    async fn serving(
        upstream: SocketAddr,
        routes: Vec<Route>,
        tunnels: Vec<TunnelRoute>,
        service: Service,
        proxies: Vec<IpNet>,
    ) -> Self {
        let identity = RequestIdentity::Token;
        Self::identifying(upstream, routes, tunnels, service, identity, proxies).await
    }

    async fn identifying(
        upstream: SocketAddr,
        routes: Vec<Route>,
        tunnels: Vec<TunnelRoute>,
        service: Service,
        shown: RequestIdentity,
        proxies: Vec<IpNet>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = file("cert.pem", issued.cert.pem().as_bytes());
        let acceptor = tls::load(
            &ServerTls {
                client: (service != Service::Http).then(|| ClientAuthority {
                    roots: certificate.clone(),
                    revocation_lists: Vec::new(),
                    required: true,
                }),
                certificate,
                private_key: file("key.pem", issued.signing_key.serialize_pem().as_bytes()),
            },
            match service {
                Service::Postgres(_) => &[postgres::ALPN],
                _ => &[http2::ALPN, b"http/1.1"],
            },
        )
        .unwrap();
        let identity = Identity {
            introspection: Vec::new(),
            jwt: vec![JwtIssuer {
                issuer: "https://idp".to_owned(),
                audience: vec!["api".to_owned()],
                keys: KeySource::SecretFile(file("secret", SECRET)),
                algorithms: vec![jsonwebtoken::Algorithm::HS256],
                certificate_bound: false,
                leeway: Duration::from_secs(30),
            }],
        };
        let identifier = Identifier::load(&identity, &mut NativeRoots::default()).unwrap();
        let routes: Vec<Route> = routes
            .into_iter()
            .map(|route| Route {
                upstream: UpstreamConfig {
                    host: upstream.ip().to_string(),
                    port: upstream.port(),
                    ..route.upstream
                },
                ..route
            })
            .collect();
        let targets = routes
            .iter()
            .map(|route| Target {
                forward_token: route.forward_token,
                assertion_audience: None,
                counters: Arc::default(),
                upstream: Upstream::load(route, &mut NativeRoots::default()).unwrap(),
                login: route.postgres.as_ref().map(|it| Login::load(it).unwrap()),
            })
            .collect();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handover = folder.path().join("handover.sock");
        let (ours, theirs) = UnixSeqpacket::pair().unwrap();
        let server = Server::start(Started {
            receivers: Receivers::default(),
            channel: theirs.into(),
            handover: UnixSeqpacketListener::bind(&handover).unwrap().into(),
            listeners: vec![StartedListener {
                name: "public".to_owned(),
                socket: listener.into(),
                acceptor,
                service: service.clone(),
                identity: shown,
                cookie: Some(TokenCookie {
                    name: COOKIE.to_owned(),
                    origins: vec!["https://app.example".to_owned()],
                }),
                proxies,
            }],
            user: "nobody".to_owned(),
            pre_authentication_timeout: Duration::from_secs(10),
            identifier,
            assertions: None,
            revoked: Vec::new(),
            routes: RouteTable::new(&routes).unwrap(),
            policies: policies(&routes, &tunnels),
            targets,
            tunnels: Tunnels::of(&tunnels),
            metrics: None,
            counters: Counters::default(),
            traces: None,
            webhooks: Webhooks::default(),
        })
        .unwrap();

        let transport = Arc::new(Transport::new(OwnedFd::from(ours)).unwrap());
        let warden = Arc::new(Warden {
            transport: Mutex::new(Some(Arc::clone(&transport))),
            heard: Mutex::default(),
            sessions: Mutex::default(),
            refuse: Mutex::default(),
            max_session: Mutex::new(Duration::from_secs(60)),
        });
        tokio::spawn(Arc::clone(&warden).serve(transport));
        warden.hears(|message| *message == ToWarden::Ready).await;

        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let client = match service {
            Service::Http => client.with_no_client_auth(),
            Service::Tcp(_) | Service::Postgres(_) => {
                let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
                let chain = vec![issued.cert.der().clone()];
                client.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let mut client2 = client.clone();
        client2.alpn_protocols = vec![http2::ALPN.to_vec()];
        Self {
            address,
            warden,
            handover,
            server,
            connector: TlsConnector::from(Arc::new(client)),
            connector2: TlsConnector::from(Arc::new(client2)),
            _folder: folder,
        }
    }

    /// A world with one route for everything.
    pub(super) async fn simple(upstream: SocketAddr) -> Self {
        Self::new(upstream, vec![route("public", None, "/")]).await
    }

    pub(super) async fn connect(&self) -> Client {
        self.connect_through(b"").await
    }

    /// A client whose connection starts with what a proxy says.
    pub(super) async fn connect_through(&self, announcement: &[u8]) -> Client {
        let mut tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.write_all(announcement).await.unwrap();
        self.begin_tls(tcp).await
    }

    /// A client on a connection that has come to the start of TLS.
    pub(super) async fn begin_tls(&self, tcp: TcpStream) -> Client {
        let name = ServerName::try_from("localhost").unwrap();
        Client {
            stream: self.connector.connect(name, tcp).await.unwrap(),
            read: Vec::new(),
        }
    }
}

impl World {
    /// A TLS connection that has agreed on HTTP/2, and nothing else yet.
    pub(super) async fn connect2(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.connector2.connect(name, tcp).await.unwrap()
    }

    /// A client that has agreed on this protocol.
    pub(super) async fn connect_with_alpn(&self, protocol: &[u8]) -> Client {
        let mut config = ClientConfig::clone(self.connector.config());
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Client {
            stream: connector.connect(name, tcp).await.unwrap(),
            read: Vec::new(),
        }
    }
}

/// A token of this `jti`, valid for so many seconds.
pub(super) fn token(jti: &str, valid_for: i64) -> String {
    let now = wall_now().as_unix_seconds();
    let claims = serde_json::json!({
        "iss": "https://idp",
        "aud": "api",
        "sub": "alice",
        "jti": jti,
        "iat": now,
        "exp": now + valid_for,
    });
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

/// A client, close to the bytes.
pub(super) struct Client {
    pub(super) stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["code"].as_str().unwrap().to_owned()
    }
}

impl Client {
    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(super) async fn get(&mut self, path: &str, token: &str) -> Answer {
        self.write(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
        self.answer().await
    }

    /// Reads a response, whose body has a length.
    pub(super) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let body = self.exactly(length).await;
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    pub(super) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.read_some().await.unwrap() > 0, "closed in a head");
        }
    }

    /// Reads a line.
    pub(super) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return String::from_utf8(self.read.drain(..=end).collect()).unwrap();
            }
            assert!(self.read_some().await.unwrap() > 0, "closed in a line");
        }
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.read_some().await.unwrap() > 0, "closed in a body");
        }
        self.read.drain(..length).collect()
    }

    /// Reads to the end: what came, and whether the end was an orderly one.
    pub(super) async fn rest(&mut self) -> (Vec<u8>, bool) {
        let end = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                match self.read_some().await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        });
        let orderly = end.await.expect("the connection stays open");
        (std::mem::take(&mut self.read), orderly)
    }

    async fn read_some(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let length = self.stream.read(&mut buffer).await?;
        self.read.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// An upstream that answers each request with its head, and remembers how many connections came.
pub(super) struct EchoUpstream {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<Mutex<usize>>,
}

impl EchoUpstream {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counter.lock().unwrap() += 1;
                tokio::spawn(async move {
                    while let Some(head) = read_head(&mut stream).await {
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":1\"\r\nContent-Length: {}\r\n\r\n{head}",
                            head.len()
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self {
            address,
            connections,
        }
    }
}

/// Reads one request head, byte by byte.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// An expiry that a token of [`token`] has.
pub(super) fn expiry(message: &ToWarden) -> Option<WallInstant> {
    match message {
        ToWarden::Open { credential, .. } | ToWarden::Renew { credential, .. } => {
            Some(credential.expires_at)
        }
        _ => None,
    }
}
