//! The stages of a connection, each a value that proves that it ran.
//!
//! ```text
//!   Accepted --TLS--> Client
//!                       | each request
//!                       v
//!                  Authenticated --> Permitted --> Bound --> forwarded
//!              a valid credential        |            the session is in the map, the
//!                                        |            socket is bound, its policies apply
//!                           the policies let the request in
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{net::TcpStream, sync::watch};

use crate::{
    authn::{Identified, confirmation::confirm},
    channel::{Kinship, Refusal, SessionUsage},
    clock::{Now, WallInstant, boot_now, wall_now},
    config::CertificateName,
    gateway::{
        binding::Binding,
        client_certificate::ClientCertificate,
        connection::ConnectionContext,
        identity::{Asked, Identifier, Recognized},
        link::Link,
        rejection::Rejection,
        sessions::SessionHandle,
        socket::Socket,
    },
    policy::{self, Claims, Denied, Permit, PolicySet, Purpose},
    session::{Credential, Principal, SessionId},
};

/// A connection that the kernel watches, but nobody knows yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    socket: Socket,
    cookie: u64,
    peer: SocketAddr,
    /// The client, if a proxy at the other end has announced it.
    announced: Option<SocketAddr>,
    local: SocketAddr,
}

impl Accepted {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let socket = Socket::new(stream);
        Ok(Self {
            cookie: socket.cookie()?,
            local: canonical(socket.local_addr()?),
            peer: canonical(peer),
            announced: None,
            socket,
        })
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The other end of the connection.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The other end is a proxy, and this is its client.
    pub(crate) fn announce(&mut self, client: SocketAddr) {
        self.announced = Some(canonical(client));
    }

    /// Who the connection comes from: the client that was announced, or the other end.
    pub(crate) fn client(&self) -> SocketAddr {
        self.announced.unwrap_or(self.peer)
    }
}

/// IPv4 as IPv4, also from a socket that takes both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A client's connection, and the session that it belongs to once there is one.
#[derive(Debug)]
pub(crate) struct Client {
    accepted: Accepted,
    certificate: Option<ClientCertificate>,
    binding: Mutex<Option<Binding>>,
    bound: watch::Sender<Option<SessionHandle>>,
    /// Held by the request that asks for the connection's session.
    opening: tokio::sync::Mutex<()>,
}

impl Client {
    /// It has shown a certificate in the handshake.
    pub(crate) const fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    pub(crate) fn new(accepted: Accepted, certificate: Option<ClientCertificate>) -> Self {
        Self {
            accepted,
            certificate,
            binding: Mutex::new(None),
            bound: watch::Sender::new(None),
            opening: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn cookie(&self) -> u64 {
        self.accepted.cookie
    }

    /// The client's address, as its proxy has announced it if there is one.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.accepted.client()
    }

    /// The client's address, if its proxy has announced it.
    pub(crate) fn announced(&self) -> Option<SocketAddr> {
        self.accepted.announced
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.accepted.local
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.accepted.socket
    }

    /// The handshake has verified a certificate of the client's.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// The session, as soon as there is one.
    pub(crate) async fn session(&self) -> SessionHandle {
        let mut bound = self.bound.subscribe();
        loop {
            if let Some(session) = &*bound.borrow_and_update() {
                return session.clone();
            }
            if bound.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The right to bind the connection, one request at a time; or what it is bound to.
    async fn unbound(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Box<Binding>> {
        if let Some(binding) = self.binding().clone() {
            return Err(Box::new(binding));
        }
        let opening = self.opening.lock().await;
        match self.binding().clone() {
            None => Ok(opening),
            Some(binding) => Err(Box::new(binding)),
        }
    }

    /// The warden has bound the socket to this session, or renewed it, by this credential.
    fn bind(&self, session: &SessionHandle, credential: &Arc<Credential>) {
        let mut binding = self.binding();
        if let Some(binding) = &mut *binding {
            return binding.learn(credential);
        }
        self.socket().serve(session);
        *binding = Some(Binding::new(session.clone(), Arc::clone(credential)));
        self.bound.send_replace(Some(session.clone()));
    }

    fn binding(&self) -> MutexGuard<'_, Option<Binding>> {
        self.binding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proof that a request carries a valid token, or that a connection's client has shown a valid
/// certificate.
#[derive(Debug)]
pub(crate) struct Authenticated {
    identified: Identified,
    /// By the word of the token's issuer, if it had to be asked.
    asked: Option<Asked>,
}

impl Authenticated {
    /// By what the listener takes for identity: the bearer token that the request carries, or the
    /// client's certificate.
    pub(crate) async fn by_request(
        connection: &ConnectionContext,
        token: Option<&str>,
        now: Now,
    ) -> Result<Self, Rejection> {
        let client = &connection.client;
        let identifier = &connection.gateway.identifier;
        if let Some(name) = connection.certificate_name(token) {
            return Self::by_certificate(client, name, now.wall);
        }
        let token = token.ok_or(Rejection::MissingToken)?;
        let Recognized { identified, asked } = identifier.identify(token, now).await?;
        Self { identified, asked }.held_to(identifier, client, now.wall)
    }

    /// By the key that a connection was given to cancel its queries with: whoever has it speaks for
    /// that connection, as long as its session lives.
    pub(crate) fn by_cancel_key(connection: &Bound) -> Self {
        let session = connection.session.state();
        let credential = Credential {
            // The session may have been renewed elsewhere since.
            expires_at: session.view.token_expires_at,
            ..(*connection.identified.credential).clone()
        };
        let identified = Identified {
            credential: credential.into(),
            ..connection.identified.clone()
        };
        Self {
            identified,
            asked: None,
        }
    }

    /// By the client's certificate, which the handshake has verified.
    pub(crate) fn by_certificate(
        client: &Client,
        name: &CertificateName,
        now: WallInstant,
    ) -> Result<Self, Rejection> {
        let certificate = client.certificate.as_ref();
        let certificate =
            certificate.ok_or(Rejection::Internal("a client without a certificate"))?;
        let identified = certificate.identify(name, now)?;
        Ok(Self {
            identified,
            asked: None,
        })
    }

    /// A token is good only with the certificate that it is bound to, and no longer than that.
    fn held_to(
        self,
        identifier: &Identifier,
        client: &Client,
        now: WallInstant,
    ) -> Result<Self, Rejection> {
        let certificate = client.certificate.as_ref();
        confirm(
            &self.identified.claims,
            certificate.map(ClientCertificate::thumbprint),
            identifier.binds_certificates(&self.principal().issuer, self.asked.as_ref()),
        )
        .map_err(|error| Rejection::Confirmation(error, self.principal().clone()))?;
        let identified = match certificate {
            Some(certificate) => certificate.beside(self.identified, now)?,
            None => self.identified,
        };
        Ok(Self { identified, ..self })
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.identified.credential.principal
    }

    /// Asks the policies.
    pub(crate) fn permit(
        self,
        policies: &PolicySet,
        purpose: Purpose,
        client: &Client,
        now: WallInstant,
    ) -> Result<Permitted, Denied> {
        let permit = policies.decide(&self.request(purpose, client, now))?;
        Ok(Permitted {
            identified: self.identified,
            asked: self.asked,
            permit,
        })
    }

    fn request(&self, purpose: Purpose, client: &Client, now: WallInstant) -> policy::Request<'_> {
        let Identified { credential, claims } = &self.identified;
        policy::Request {
            purpose,
            principal: &credential.principal,
            claims,
            authenticated_at: credential.authenticated_at,
            client: client.peer().ip(),
            now,
        }
    }
}

/// Proof that the policies let a request in, or the connection of a TCP listener.
#[derive(Debug)]
pub(crate) struct Permitted {
    identified: Identified,
    asked: Option<Asked>,
    permit: Permit,
}

impl Permitted {
    /// What a policy that only observes would have said.
    pub(crate) fn observed(&self) -> Option<&Denied> {
        self.permit.observed.as_ref()
    }
}

/// Proof that a request's session is in the map, that the client's socket is bound to it, and
/// that the policies of the request apply to it.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    session: SessionHandle,
    identified: Identified,
    client: SocketAddr,
    local: SocketAddr,
}

impl Bound {
    /// Asks the warden for what is not established yet.
    pub(crate) async fn establish(
        link: &Arc<Link>,
        client: &Client,
        permitted: Permitted,
    ) -> Result<Self, Rejection> {
        let Permitted {
            identified,
            asked,
            permit,
        } = permitted;
        let policies = &permit.policies;
        let credential = &identified.credential;
        let session = match client.unbound().await {
            Ok(_opening) => open(link, client, credential, policies).await?,
            Err(binding) => join(link, client, *binding, credential, policies).await?,
        };
        if let Some(asked) = asked {
            asked.follow(link, &session);
        }
        Ok(Self {
            session,
            identified,
            client: client.peer(),
            local: client.local(),
        })
    }

    /// Finds the credential's session if there is one already, and opens none. The policies that
    /// its claims match apply from then on.
    pub(crate) async fn find(
        link: &Arc<Link>,
        client: &Client,
        policies: Option<&PolicySet>,
        authenticated: Authenticated,
        kinship: Kinship,
    ) -> Result<(Self, SessionUsage), Rejection> {
        let request = authenticated.request(Purpose::Endpoint, client, wall_now());
        let matching = policies.map_or_else(Vec::new, |policies| policies.names(&request));
        let Authenticated { identified, asked } = authenticated;
        let credential = &identified.credential;
        let _opening = match client.unbound().await {
            Ok(opening) => Some(opening),
            Err(binding) => {
                let state = binding.session().state();
                binding.admit(&state, credential, boot_now())?;
                None
            }
        };
        let (session, usage) = link.find(client, credential, kinship).await?;
        client.bind(&session, credential);
        if let Some(asked) = asked {
            asked.follow(link, &session);
        }
        let applied = session.state().view.policies;
        if !matching.iter().all(|policy| applied.contains(policy)) {
            link.open(client, credential, &matching).await?;
        }
        let bound = Self {
            session,
            identified,
            client: client.peer(),
            local: client.local(),
        };
        Ok((bound, usage))
    }

    pub(crate) fn session(&self) -> &SessionHandle {
        &self.session
    }

    /// The address of the client whose connection this is about.
    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Where that client connected to.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.session.id()
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.identified.credential.principal
    }

    /// What the issuer says of the principal, in the credential of this request.
    pub(crate) fn claims(&self) -> &Arc<Claims> {
        &self.identified.claims
    }
}

async fn open(
    link: &Link,
    client: &Client,
    credential: &Arc<Credential>,
    policies: &[String],
) -> Result<SessionHandle, Refusal> {
    let session = link.open(client, credential, policies).await?;
    client.bind(&session, credential);
    Ok(session)
}

async fn join(
    link: &Link,
    client: &Client,
    binding: Binding,
    credential: &Arc<Credential>,
    policies: &[String],
) -> Result<SessionHandle, Refusal> {
    let session = binding.session();
    let needed = binding.needs(&session.state(), credential, policies, boot_now())?;
    if needed.renewal {
        match link.renew(session.id(), credential).await {
            Ok(_) => client.bind(session, credential),
            // The session lives on under the limits that it has.
            Err(Refusal::Unavailable) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    if needed.policies {
        let joined = link.open(client, credential, policies).await?;
        if joined.id() != session.id() {
            return Err(Refusal::AnotherSession);
        }
    }
    Ok(session.clone())
}
