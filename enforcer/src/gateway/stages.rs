//! The stages of a connection, each a value that proves that it ran.
//!
//! ```text
//!   Accepted --TLS--> Client
//!                       | each request
//!                       v
//!                  Authenticated ------------> Bound ------------> forwarded
//!              a valid credential    the session is in the map, the socket is
//!                                    bound, the route's policy applies
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, header};
use tokio::{net::TcpStream, sync::watch};

use crate::{
    authn::{Authenticator, certificate},
    channel::Refusal,
    clock::{BootInstant, WallInstant, boot_now},
    config::CertificateName,
    gateway::{
        link::Link,
        rejection::Rejection,
        sessions::{Phase, SessionHandle, SessionState},
        socket::Socket,
    },
    session::{Credential, EndReason, Principal, SessionId, SessionKey},
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
    binding: Mutex<Option<Binding>>,
    bound: watch::Sender<Option<SessionHandle>>,
}

#[derive(Clone, Debug)]
struct Binding {
    /// The credential that opened the session here.
    credential: Arc<Credential>,
    /// Keys of the credentials that have renewed it since.
    renewed_by: Vec<SessionKey>,
    session: SessionHandle,
}

impl Client {
    pub(crate) fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            binding: Mutex::new(None),
            bound: watch::Sender::new(None),
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

    fn binding(&self) -> MutexGuard<'_, Option<Binding>> {
        self.binding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proof that a request carries a valid token, or that a connection's client has shown a valid
/// certificate.
#[derive(Debug)]
pub(crate) struct Authenticated {
    credential: Arc<Credential>,
}

impl Authenticated {
    /// By the bearer token of the request (RFC 6750, section 2.1).
    pub(crate) fn by_token(
        authenticator: &Authenticator,
        headers: &HeaderMap,
        now: WallInstant,
    ) -> Result<Self, Rejection> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let field = fields.next().ok_or(Rejection::MissingToken)?;
        if fields.next().is_some() {
            return Err(Rejection::SeveralTokens);
        }
        let field = field.to_str().map_err(|_| Rejection::MissingToken)?;
        let token = match field.trim().split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Rejection::MissingToken),
        };
        let credential = authenticator.validate(token, now)?;
        Ok(Self { credential })
    }

    /// By the client's certificate, which the handshake has verified.
    pub(crate) fn by_certificate(
        certificate: &[u8],
        subject: CertificateName,
        now: WallInstant,
    ) -> Result<Self, Rejection> {
        let credential = certificate::credential(certificate, subject, now)?;
        Ok(Self {
            credential: Arc::new(credential),
        })
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.credential.principal
    }
}

/// Proof that a request's session is in the map, that the client's socket is bound to it, and
/// that the policy of the request's route applies to it.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    session: SessionHandle,
    credential: Arc<Credential>,
    client: SocketAddr,
    local: SocketAddr,
}

impl Bound {
    /// Asks the warden for what is not established yet.
    pub(crate) async fn establish(
        link: &Link,
        client: &Client,
        authenticated: Authenticated,
        policy: &str,
    ) -> Result<Self, Rejection> {
        let credential = authenticated.credential;
        let binding = client.binding().clone();
        let session = match binding {
            None => open(link, client, &credential, policy).await?,
            Some(binding) => join(link, client, binding, &credential, policy).await?,
        };
        Ok(Self {
            session,
            credential,
            client: client.peer(),
            local: client.local(),
        })
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
        &self.credential.principal
    }
}

async fn open(
    link: &Link,
    client: &Client,
    credential: &Arc<Credential>,
    policy: &str,
) -> Result<SessionHandle, Refusal> {
    let session = link.open(client, credential, policy).await?;
    client.socket().serve(&session);
    *client.binding() = Some(Binding {
        credential: Arc::clone(credential),
        renewed_by: Vec::new(),
        session: session.clone(),
    });
    client.bound.send_replace(Some(session.clone()));
    Ok(session)
}

async fn join(
    link: &Link,
    client: &Client,
    mut binding: Binding,
    credential: &Arc<Credential>,
    policy: &str,
) -> Result<SessionHandle, Refusal> {
    let needed = binding.needs(&binding.session.state(), credential, policy, boot_now())?;
    if needed.renewal {
        match link.renew(binding.session.id(), credential).await {
            Ok(_) if binding.knows(credential) => {}
            Ok(_) => {
                binding.renewed_by.push(credential.key);
                *client.binding() = Some(binding.clone());
            }
            // The session lives on under the limits that it has.
            Err(Refusal::Unavailable) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    if needed.policy {
        let joined = link.open(client, credential, policy).await?;
        if joined.id() != binding.session.id() {
            return Err(Refusal::AnotherSession);
        }
    }
    Ok(binding.session)
}

/// What a request needs the warden for, on a connection that has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needed {
    renewal: bool,
    policy: bool,
}

impl Binding {
    fn knows(&self, credential: &Credential) -> bool {
        self.credential.key == credential.key || self.renewed_by.contains(&credential.key)
    }

    /// A newer token of the same principal and client, where tokens don't name their session.
    fn is_succeeded_by(&self, credential: &Credential) -> bool {
        !self.credential.names_session
            && !credential.names_session
            && self.credential.principal == credential.principal
            && self.credential.authorized_party == credential.authorized_party
    }

    fn needs(
        &self,
        state: &SessionState,
        credential: &Credential,
        policy: &str,
        now: BootInstant,
    ) -> Result<Needed, Refusal> {
        let newer = credential.expires_at > state.view.token_expires_at;
        // At the limit the warden decides whether a newer token still came in time.
        if state.is_over(now) || (state.is_halted(now) && !newer) {
            return Err(Refusal::SessionEnded(match state.phase {
                Phase::Ended(reason) | Phase::Farewell { reason, .. } => reason,
                Phase::Alive | Phase::Warned => EndReason::Deadline,
            }));
        }
        let belongs = self.knows(credential) || (newer && self.is_succeeded_by(credential));
        if !belongs {
            return Err(Refusal::AnotherSession);
        }
        Ok(Needed {
            renewal: newer,
            policy: !state.view.policies.iter().any(|applied| applied == policy),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::sessions::{
        SessionTable,
        tests::{at, view},
    };

    fn credential(sid: Option<&str>, jti: &str, expires_at: i64) -> Credential {
        let principal = Principal {
            issuer: "i".to_owned(),
            subject: "s".to_owned(),
        };
        Credential {
            key: match sid {
                Some(sid) => SessionKey::from_sid(&principal, sid),
                None => SessionKey::from_token_id(&principal, jti),
            },
            names_session: sid.is_some(),
            principal,
            authorized_party: None,
            authenticated_at: None,
            expires_at: WallInstant::from_unix_seconds(expires_at),
        }
    }

    fn needs(
        first: Credential,
        then: &Credential,
        policy: &str,
        now: u64,
    ) -> Result<Needed, Refusal> {
        let binding = Binding {
            credential: Arc::new(first),
            renewed_by: Vec::new(),
            session: SessionTable::default().opened(view(100)),
        };
        binding.needs(&SessionState::new(view(100)), then, policy, at(now))
    }

    const NOTHING: Needed = Needed {
        renewal: false,
        policy: false,
    };

    #[test]
    fn the_same_token_needs_nothing() {
        let token = credential(None, "a", 1000);
        assert_eq!(needs(token.clone(), &token, "default", 0), Ok(NOTHING));
        let other_policy = needs(token.clone(), &token, "strict", 0).unwrap();
        assert!(other_policy.policy && !other_policy.renewal);
    }

    #[test]
    fn a_newer_token_renews_and_an_older_one_does_not() {
        let first = || credential(Some("x"), "a", 1000);
        let renewal = |expires_at| {
            needs(
                first(),
                &credential(Some("x"), "b", expires_at),
                "default",
                0,
            )
            .unwrap()
            .renewal
        };
        assert!(renewal(1001));
        assert!(!renewal(1000));
        assert!(!renewal(999));
    }

    #[test]
    fn without_a_named_session_the_principals_newer_token_renews() {
        let first = || credential(None, "a", 1000);
        let newer = credential(None, "b", 1001);
        assert!(needs(first(), &newer, "default", 0).unwrap().renewal);
        for other in [
            credential(None, "b", 1000),
            credential(Some("x"), "b", 1001),
            Credential {
                authorized_party: Some("app".to_owned()),
                ..newer.clone()
            },
            Credential {
                principal: Principal {
                    issuer: "i".to_owned(),
                    subject: "t".to_owned(),
                },
                ..newer.clone()
            },
        ] {
            assert_eq!(
                needs(first(), &other, "default", 0),
                Err(Refusal::AnotherSession)
            );
        }
        let named = credential(Some("x"), "a", 1000);
        assert_eq!(
            needs(named, &newer, "default", 0),
            Err(Refusal::AnotherSession)
        );
    }

    #[test]
    fn nothing_is_served_at_the_deadline() {
        let token = credential(None, "a", 1000);
        assert_eq!(
            needs(token.clone(), &token, "default", 100),
            Err(Refusal::SessionEnded(EndReason::Deadline))
        );
    }
}
