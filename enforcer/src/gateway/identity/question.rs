//! One question about a token (RFC 7662, section 2), and what its answer means.

use std::{fs, io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::{HeaderValue, Request, StatusCode, header};

use crate::{
    authn::{
        TokenError,
        introspected::{self, Active, Introspected},
    },
    clock::wall_now,
    config::{ClientProof, Introspection},
    gateway::outbound::{Outbound, OutboundError},
};

/// Longest answer.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Why an issuer has no answer. Its fault, or the configuration's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the endpoint answers {0}: `client_id` or its secret is wrong")]
    Unauthorized(StatusCode),
    #[error("the endpoint answers {0}")]
    Status(StatusCode),
    #[error("the answer cannot be read")]
    Senseless,
    #[error("the question cannot be written")]
    Unwritable(#[from] http::Error),
    #[error("too many questions wait for an answer")]
    Busy,
}

impl Unanswered {
    /// Whether questions about other tokens would come to the same: nobody is there, or has the time.
    /// All else may be about this one.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Outbound(error) => !matches!(error, OutboundError::TooLong(_)),
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unauthorized(_) | Self::Senseless | Self::Unwritable(_) | Self::Busy => false,
        }
    }
}

/// What each question carries to say who asks.
pub(super) struct Credentials {
    authorization: Option<HeaderValue>,
    /// More fields of the form.
    form: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads the client's secret.
    pub(super) fn load(rules: &Introspection) -> io::Result<Self> {
        let id = rules.client.id.clone();
        Ok(match &rules.client.proof {
            ClientProof::SecretBasic(path) => Self {
                authorization: Some(basic(&id, &secret(path)?)?),
                form: Vec::new(),
            },
            ClientProof::SecretPost(path) => Self {
                authorization: None,
                form: vec![("client_id", id), ("client_secret", secret(path)?)],
            },
            ClientProof::Tls => Self {
                authorization: None,
                form: vec![("client_id", id)],
            },
        })
    }
}

/// The file's text without a final line break.
fn secret(path: &Path) -> io::Result<String> {
    let mut text = fs::read_to_string(path)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// RFC 6749, section 2.3.1: both are encoded as in a form first.
fn basic(id: &str, secret: &str) -> io::Result<HeaderValue> {
    let [id, secret] = [id, secret].map(|text| byte_serialize(text.as_bytes()).collect::<String>());
    let field = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let mut value = HeaderValue::try_from(field)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks about a token. An error of the token's is an answer, too.
pub(super) async fn put(
    rules: &Introspection,
    outbound: &Outbound,
    credentials: &Credentials,
    token: &str,
) -> Result<Result<Active, TokenError>, Unanswered> {
    let request = write(rules, credentials, token)?;
    let answer = outbound.send(request, LONGEST_ANSWER).await?;
    match answer.status {
        StatusCode::OK => match introspected::read(&answer.body, token, rules, wall_now()) {
            Ok(active) => Ok(Ok(active)),
            Err(Introspected::Token(error)) => Ok(Err(error)),
            Err(Introspected::Senseless) => Err(Unanswered::Senseless),
        },
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(Unanswered::Unauthorized(status))
        }
        status => Err(Unanswered::Status(status)),
    }
}

fn write(
    rules: &Introspection,
    credentials: &Credentials,
    token: &str,
) -> http::Result<Request<Bytes>> {
    let mut form = Serializer::new(String::new());
    form.append_pair("token", token)
        .append_pair("token_type_hint", "access_token")
        .extend_pairs(&credentials.form);
    let mut request = Request::post(&rules.endpoint)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    if let Some(authorization) = &credentials.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Bytes::from(form.finish()))
}
