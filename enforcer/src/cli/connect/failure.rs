//! Why there is no tunnel, or no more.

use std::{io, process::ExitCode};

use http::StatusCode;

use super::{address::Address, token::TokenError};
use crate::gateway::PemError;

/// The gateway said no (`EX_NOPERM` of `sysexits.h`).
const EXIT_REFUSED: u8 = 77;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("certificates")]
    Pem(#[from] PemError),
    #[error("the system has no root certificates; name a file with `--ca`")]
    NoRoots,
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    #[error("cannot reach the gateway {0}")]
    Unreachable(Address, #[source] io::Error),
    #[error("the gateway {0} did not answer in time")]
    Timeout(Address),
    #[error("the gateway {0} does not speak HTTP/2: is it an HTTP listener of enforcer's?")]
    NotHttp2(Address),
    #[error("the connection to the gateway broke off")]
    Broken(#[source] h2::Error),
    #[error("the tunnel broke off")]
    Local(#[from] io::Error),
    #[error("refused: {0}")]
    Refused(Refused),
    #[error("the session is over: {0}")]
    SessionOver(String),
}

/// An answer other than 200.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({}, {code})", status.as_u16())]
pub(crate) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
}

impl Failure {
    /// How the process ends.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::SessionOver(_) => ExitCode::from(EXIT_REFUSED),
            Self::Refused(refused) if refused.status.is_client_error() => {
                ExitCode::from(EXIT_REFUSED)
            }
            _ => ExitCode::FAILURE,
        }
    }

    /// Another connection, with token and certificate as they are by then, may fare better.
    pub(super) fn is_the_connections(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(refused) => {
                let status = [StatusCode::UNAUTHORIZED, StatusCode::MISDIRECTED_REQUEST];
                status.contains(&refused.status) || refused.code.starts_with("certificate_")
            }
            _ => false,
        }
    }
}

impl Refused {
    /// From the answer's body, as far as it is one of the gateway's.
    pub(super) fn new(status: StatusCode, body: &[u8]) -> Self {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| {
            let text = body[key].as_str()?;
            // It goes to a terminal.
            Some(
                text.chars()
                    .filter(|it| !it.is_control())
                    .collect::<String>(),
            )
        };
        Self {
            status,
            code: text("code").unwrap_or_else(|| "no code".to_owned()),
            message: text("message")
                .or_else(|| status.canonical_reason().map(str::to_owned))
                .unwrap_or_else(|| "the gateway does not say why".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_and_nothing_to_the_terminal() {
        let body = br#"{"code":"session_ended","message":"the session has ended (idle)\u001b[2J"}"#;
        let refused = Refused::new(StatusCode::UNAUTHORIZED, body);
        assert_eq!(
            refused.to_string(),
            "the session has ended (idle)[2J (401, session_ended)"
        );
        assert!(Failure::Refused(refused).is_the_connections());
        let refused = Refused::new(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(refused.to_string(), "Bad Gateway (502, no code)");
    }

    #[test]
    fn a_certificate_is_the_connections_and_a_target_is_not() {
        let refused = |code: &str| {
            let body = format!("{{\"code\":\"{code}\",\"message\":\"no\"}}");
            Failure::Refused(Refused::new(StatusCode::FORBIDDEN, body.as_bytes()))
        };
        assert!(refused("certificate_expired").is_the_connections());
        assert!(!refused("target_not_allowed").is_the_connections());
    }
}
