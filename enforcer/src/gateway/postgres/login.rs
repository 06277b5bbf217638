//! The login to the upstream, up to the first ReadyForQuery.
//!
//! ```text
//!   StartupMessage --> authentication --AuthenticationOk--> settings --ReadyForQuery--> flowing
//!                        |        ^                           |
//!                        v        |                           +-- BackendKeyData: a key of the
//!             the gateway answers (SCRAM-SHA-256),                gateway's goes to the client
//!             or the client does
//! ```

use std::{fmt, io};

use postgres_protocol::{
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    message::frontend,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use x509_parser::prelude::FromDer;

use super::{
    cancel::{CancelKeys, Registration},
    message::{self, authentication, kind},
    messages::{Message, MessageError, Messages},
    packet::{CancelKey, Startup},
};
use crate::{
    config::{self, LoginUser, read_password},
    gateway::{
        http::{headers, route::RouteIndex},
        rejection::Rejection,
        stages::Bound,
        upstream::Stream,
    },
    policy::Denied,
};

/// Start-up parameters of this kind are the gateway's to set.
const OWN_PARAMETERS: &str = "enforcer.";

/// How to log in to an upstream.
pub(crate) struct Login {
    credentials: Credentials,
    forward_identity: bool,
}

enum Credentials {
    /// What the client answers with.
    Client,
    Gateway {
        user: LoginUser,
        password: Option<Vec<u8>>,
    },
}

/// Why there is no login.
#[derive(Debug)]
pub(super) enum Failure {
    Rejected(Rejection),
    /// The upstream said why, and the client has heard it.
    Told(Rejection),
    /// The client has gone.
    BrokenOff(io::Error),
}

/// An upstream that let nobody in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LoginRefused(String);

impl Login {
    /// Reads the password.
    pub(crate) fn load(route: &config::PostgresRoute) -> io::Result<Self> {
        Ok(Self {
            credentials: match &route.login {
                config::Login::Client => Credentials::Client,
                config::Login::Gateway(user, password) => Credentials::Gateway {
                    user: user.clone(),
                    password: password.as_deref().map(read_password).transpose()?,
                },
            },
            forward_identity: route.forward_identity,
        })
    }

    /// The start-up message for the upstream.
    fn startup(&self, client: &Startup, bound: &Bound) -> Startup {
        let principal = bound.principal();
        let user = match &self.credentials {
            Credentials::Client => &client.user,
            Credentials::Gateway { user, .. } => match user {
                LoginUser::Client => &client.user,
                LoginUser::Subject => &principal.subject,
                LoginUser::Fixed(user) => user,
            },
        };
        let clients = client.parameters.iter();
        let mut parameters: Vec<_> = clients
            .filter(|(name, _)| !name.to_ascii_lowercase().starts_with(OWN_PARAMETERS))
            .cloned()
            .collect();
        if !parameters.iter().any(|(name, _)| name == "database") {
            // The upstream would take the name of the user that it sees.
            parameters.push(("database".to_owned(), client.user.clone()));
        }
        if self.forward_identity {
            parameters.extend([
                (
                    "enforcer.subject".to_owned(),
                    headers::encode(&principal.subject),
                ),
                (
                    "enforcer.issuer".to_owned(),
                    headers::encode(&principal.issuer),
                ),
                (
                    "enforcer.session".to_owned(),
                    bound.session_id().to_string(),
                ),
            ]);
        }
        Startup {
            minor: client.spoken_minor(),
            user: user.clone(),
            parameters,
            protocol_options: Vec::new(),
        }
    }
}

/// A login under way.
pub(super) struct LoggingIn<'a, 'keys, C> {
    pub(super) login: &'a Login,
    pub(super) bound: &'a Bound,
    pub(super) route: RouteIndex,
    pub(super) keys: &'keys CancelKeys,
    pub(super) client: &'a mut Messages<C>,
    pub(super) upstream: &'a mut Messages<Stream>,
}

impl<'keys, C: AsyncRead + AsyncWrite + Unpin> LoggingIn<'_, 'keys, C> {
    /// Logs in. The registration is of the key that the client has been given, if the upstream
    /// gave one.
    pub(super) async fn run(
        mut self,
        startup: &Startup,
    ) -> Result<Option<Registration<'keys>>, Failure> {
        let minor = startup.spoken_minor();
        let startup = self.login.startup(startup, self.bound);
        self.send_upstream(&startup.to_bytes()).await?;
        self.authenticate().await?;
        let mut registration = None;
        loop {
            let message = self.next_of_upstream().await?;
            match message.kind() {
                kind::BACKEND_KEY_DATA => {
                    let key = CancelKey::parse(message.body());
                    let key = key.ok_or_else(|| invalid("a key of an impossible length"))?;
                    let made = self.keys.register(self.bound, self.route, key, minor);
                    let made = made.map_err(|_| Rejection::Internal("no random numbers"))?;
                    self.tell_client(&message::key_data(made.key())).await?;
                    registration = Some(made);
                }
                kind::ERROR_RESPONSE => return Err(self.pass_refusal(&message).await),
                kind::PARAMETER_STATUS | kind::NOTICE_RESPONSE => {
                    self.tell_client(message.whole()).await?;
                }
                kind::READY_FOR_QUERY => {
                    self.tell_client(message.whole()).await?;
                    return Ok(registration);
                }
                other => return Err(unexpected(other).into()),
            }
        }
    }

    /// Up to AuthenticationOk, which the client is told.
    async fn authenticate(&mut self) -> Result<(), Failure> {
        let mut scram = None;
        loop {
            let message = self.next_of_upstream().await?;
            match message.kind() {
                // The client has been told what is spoken with it; here it may be less.
                kind::NEGOTIATE_PROTOCOL_VERSION => {}
                kind::NOTICE_RESPONSE => self.tell_client(message.whole()).await?,
                kind::ERROR_RESPONSE => {
                    return Err(match self.login.credentials {
                        Credentials::Client => self.pass_refusal(&message).await,
                        // What the gateway logs in with is not the client's to know.
                        Credentials::Gateway { .. } => refused(describe(&message)).into(),
                    });
                }
                kind::AUTHENTICATION => {
                    let request = message.body().split_first_chunk();
                    let (request, details) =
                        request.ok_or_else(|| invalid("a request for authentication"))?;
                    let request = u32::from_be_bytes(*request);
                    if request == authentication::OK {
                        if matches!(scram, Some(Scram::Running(_))) {
                            return Err(
                                invalid("it did not prove that it knows the password").into()
                            );
                        }
                        return self.tell_client(message.whole()).await;
                    }
                    match &self.login.credentials {
                        Credentials::Client => self.ask_client(request, details, &message).await?,
                        Credentials::Gateway { password, .. } => {
                            let password = password.as_deref();
                            scram = Some(self.answer(request, details, password, scram).await?);
                        }
                    }
                }
                other => return Err(unexpected(other).into()),
            }
        }
    }

    /// Lets the client answer.
    async fn ask_client(
        &mut self,
        request: u32,
        details: &[u8],
        message: &Message,
    ) -> Result<(), Failure> {
        let answered = match request {
            authentication::CLEARTEXT_PASSWORD
            | authentication::MD5_PASSWORD
            | authentication::SASL_CONTINUE => {
                self.tell_client(message.whole()).await?;
                true
            }
            authentication::SASL => {
                // Binding to a channel needs one channel, and here are two.
                let mechanisms = mechanisms(details).filter(|name| *name != SCRAM_SHA_256_PLUS);
                let request = message::ask_for_sasl(mechanisms);
                self.tell_client(&request).await?;
                true
            }
            authentication::SASL_FINAL => {
                self.tell_client(message.whole()).await?;
                false
            }
            other => return Err(refused(Method(other).to_string()).into()),
        };
        if answered {
            let answer = self.client.next().await?;
            let answer = answer
                .ok_or_else(|| Failure::BrokenOff(io::Error::from(io::ErrorKind::UnexpectedEof)))?;
            if answer.kind() != kind::PASSWORD {
                return Err(Rejection::MissingToken.into());
            }
            self.send_upstream(answer.whole()).await?;
        }
        Ok(())
    }

    /// Answers with the gateway's password.
    async fn answer(
        &mut self,
        request: u32,
        details: &[u8],
        password: Option<&[u8]>,
        scram: Option<Scram>,
    ) -> Result<Scram, Failure> {
        match (request, scram) {
            (authentication::SASL, None) => {
                let password = password.ok_or_else(|| {
                    refused("it asks for a password, and `login` has no `password_file`".to_owned())
                })?;
                let (name, binding) = self.mechanism(details)?;
                let scram = ScramSha256::new(password, binding);
                let mut bytes = bytes::BytesMut::new();
                frontend::sasl_initial_response(name, scram.message(), &mut bytes)
                    .map_err(|_| Rejection::Internal("SASL"))?;
                self.send_upstream(&bytes).await?;
                Ok(Scram::Running(Box::new(scram)))
            }
            (authentication::SASL_CONTINUE, Some(Scram::Running(mut scram))) => {
                let details = details.to_vec();
                // Deriving the key takes milliseconds, or as long as the upstream likes.
                let derived =
                    tokio::task::spawn_blocking(move || scram.update(&details).map(|()| scram));
                let derived = derived.await;
                let scram = derived
                    .map_err(|_| Rejection::Internal("SCRAM"))?
                    .map_err(|error| Rejection::UpstreamInvalid(error.into()))?;
                let mut bytes = bytes::BytesMut::new();
                frontend::sasl_response(scram.message(), &mut bytes)
                    .map_err(|_| Rejection::Internal("SASL"))?;
                self.send_upstream(&bytes).await?;
                Ok(Scram::Running(scram))
            }
            (authentication::SASL_FINAL, Some(Scram::Running(mut scram))) => {
                let proof = scram.finish(details);
                proof.map_err(|error| Rejection::UpstreamInvalid(error.into()))?;
                Ok(Scram::Proven)
            }
            (other, _) => Err(refused(Method(other).to_string()).into()),
        }
    }

    /// The strongest of the mechanisms that are offered.
    fn mechanism(&self, details: &[u8]) -> Result<(&'static str, ChannelBinding), Failure> {
        let offers = |wanted| mechanisms(details).any(|name| name == wanted);
        let end_point = self.upstream.stream().peer_certificate();
        match end_point.and_then(end_point_digest) {
            Some(digest) if offers(SCRAM_SHA_256_PLUS) => Ok((
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(digest),
            )),
            Some(_) if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
            _ => Err(refused("it offers SASL without SCRAM-SHA-256".to_owned()).into()),
        }
    }

    async fn next_of_upstream(&mut self) -> Result<Message, Failure> {
        let message = self.upstream.next().await.map_err(|error| match error {
            MessageError::Io(_) => Rejection::UpstreamClosed,
            MessageError::Length(violation) => Rejection::UpstreamInvalid(violation.into()),
        })?;
        Ok(message.ok_or(Rejection::UpstreamClosed)?)
    }

    async fn send_upstream(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let sent = self.upstream.send(bytes).await;
        Ok(sent.map_err(|_| Rejection::UpstreamClosed)?)
    }

    async fn tell_client(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.client.send(bytes).await.map_err(Failure::BrokenOff)
    }

    async fn pass_refusal(&mut self, message: &Message) -> Failure {
        let refusal = refused(describe(message));
        match self.tell_client(message.whole()).await {
            Ok(()) => Failure::Told(refusal),
            Err(failure) => failure,
        }
    }
}

/// How far SCRAM has come.
enum Scram {
    Running(Box<ScramSha256>),
    /// The upstream has proven that it knows the password, too.
    Proven,
}

/// A way to authenticate that is not gone.
struct Method(u32);

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            2 => "Kerberos V5",
            authentication::CLEARTEXT_PASSWORD => "the password in the clear",
            authentication::MD5_PASSWORD => "MD5",
            7 | 8 => "GSSAPI",
            9 => "SSPI",
            authentication::SASL_CONTINUE | authentication::SASL_FINAL => "SASL out of turn",
            other => return write!(f, "it asks for authentication of kind {other}"),
        };
        write!(f, "it asks for {name}: use scram-sha-256 in pg_hba.conf")
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Of a client's message.
impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Io(error) => Self::BrokenOff(error),
            MessageError::Length(violation) => Rejection::from(violation).into(),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Rejection::from(denied).into()
    }
}

fn refused(why: String) -> Rejection {
    Rejection::UpstreamRefusedLogin(LoginRefused(why))
}

fn invalid(what: &'static str) -> Rejection {
    Rejection::UpstreamInvalid(what.into())
}

fn unexpected(kind: u8) -> Rejection {
    let kind = char::from(kind).escape_default().to_string();
    Rejection::UpstreamInvalid(format!("a message of type `{kind}` during the login").into())
}

/// Names that end with a zero byte each; the list ends with an empty one.
fn mechanisms(list: &[u8]) -> impl Iterator<Item = &str> {
    list.split(|byte| *byte == 0)
        .take_while(|name| !name.is_empty())
        .filter_map(|name| std::str::from_utf8(name).ok())
}

/// SQLSTATE and message of an ErrorResponse.
fn describe(error: &Message) -> String {
    let field = |wanted: u8| {
        let mut fields = error.body().split(|byte| *byte == 0);
        let text = fields.find_map(|field| field.strip_prefix(&[wanted]));
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    };
    format!("{}: {}", field(b'C'), field(b'M'))
}

/// `tls-server-end-point` (RFC 5929, section 4.1): the certificate's digest, by the function of its
/// signature. `None` where that has none.
fn end_point_digest(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    use sha2::Digest as _;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let signature = parsed.signature_algorithm.algorithm.to_id_string();
    Some(match &*signature {
        // MD5 and SHA-1 are replaced by SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => sha2::Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => {
            sha2::Sha384::digest(certificate).to_vec()
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => {
            sha2::Sha512::digest(certificate).to_vec()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_point_is_digested_by_its_signatures_function() {
        let issued = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
        let digest = end_point_digest(issued.cert.der()).unwrap();
        assert_eq!(digest.len(), 32);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let params = rcgen::CertificateParams::new(["db".to_owned()]).unwrap();
        let longer = params.self_signed(&key).unwrap();
        assert_eq!(end_point_digest(longer.der()).unwrap().len(), 48);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(["db".to_owned()]).unwrap();
        assert_eq!(
            end_point_digest(params.self_signed(&key).unwrap().der()),
            None
        );
    }

    #[test]
    fn mechanisms_are_told_apart() {
        let list = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let names: Vec<_> = mechanisms(list).collect();
        assert_eq!(names, [SCRAM_SHA_256_PLUS, SCRAM_SHA_256]);
        assert_eq!(mechanisms(b"").count(), 0);
    }
}
