//! Every way in which a request can fail, and the one table of what is answered.

use std::{fmt::Write as _, net::SocketAddr};

use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    authn::{CertificateError, ConfirmationError, TokenError},
    channel::{Refusal, RefusedRequest},
    gateway::{
        http::{head::HeadFault, path::PathError, route::AmbiguousPath},
        postgres::{LoginRefused, packet::PacketFault, scanner::Violation},
        proxy::HeaderFault,
        tunnel::{InvalidTarget, Target, TargetNotAllowed},
        websocket,
    },
    policy::Denied,
    session::Principal,
};

const REALM: &str = "enforcer";
/// For `Allow`, where routes decide what else.
pub(crate) const FORWARDED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request (or a connection) is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("this port speaks TLS")]
    PlainHttp,
    #[error("HTTP/2: {0}")]
    Http2(String),
    #[error("too many control frames of HTTP/2")]
    Flood,
    #[error("too many requests were given up")]
    GivenUp,
    #[error("the PROXY protocol header: {0}")]
    ProxyHeader(#[from] HeaderFault),
    #[error(transparent)]
    Head(#[from] HeadFault),
    #[error("the host is malformed or missing")]
    Host,
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    AmbiguousPath(#[from] AmbiguousPath),
    #[error("the method {0} is not served")]
    Method(http::Method),
    #[error("the method {0} is not for this endpoint")]
    EndpointMethod(http::Method, &'static str),
    #[error("a request of another site")]
    CrossSite,
    #[error(transparent)]
    InvalidTarget(#[from] InvalidTarget),
    #[error(transparent)]
    TargetNotAllowed(#[from] TargetNotAllowed),
    #[error("the name of the target {0} cannot be resolved: {1}")]
    TargetUnresolved(Target, std::io::Error),
    #[error("the target {0} cannot be reached: {1}")]
    TargetUnreachable(Target, std::io::Error),
    #[error("no connection to the target {0} in time")]
    TargetTimeout(Target),
    #[error("several Authorization fields")]
    SeveralTokens,
    #[error("a bearer token is needed")]
    MissingToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the keys of the issuer `{0}` are not known at present")]
    KeysUnavailable(String),
    #[error("the issuer `{0}` cannot be asked about the token at present")]
    IntrospectionUnavailable(String),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{0}")]
    Confirmation(ConfirmationError, Principal),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("this listener speaks TLS only")]
    PlainPostgres,
    #[error(transparent)]
    Packet(#[from] PacketFault),
    #[error(transparent)]
    PostgresMessage(#[from] Violation),
    #[error("no open connection has this cancel key")]
    UnknownCancelKey,
    #[error("the upstream refused the login")]
    UpstreamRefusedLogin(#[source] LoginRefused),
    #[error("no route leads there")]
    NoRoute,
    #[error("the WebSocket handshake is malformed: {0}")]
    WebSocketHandshake(&'static str),
    #[error("only version 13 of the WebSocket protocol is served")]
    WebSocketVersion,
    #[error("the client's WebSocket: {0}")]
    WebSocket(websocket::frame::Violation),
    #[error("the upstream takes no WebSocket")]
    NoWebSocket,
    #[error("the upstream cannot be reached")]
    UpstreamUnreachable(#[source] std::io::Error),
    #[error("no connection to the upstream in time")]
    UpstreamConnectTimeout,
    #[error("no response from the upstream in time")]
    UpstreamTimeout,
    #[error("the upstream closed the connection without a response")]
    UpstreamClosed,
    #[error("what the upstream says makes no sense")]
    UpstreamInvalid(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the request was not sent to its end")]
    Incomplete,
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// Whose fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    Client,
    Upstream,
    Issuer,
    Us,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: StatusCode,
    /// Stable: for programs, and the reason in the audit log.
    pub(crate) code: &'static str,
    pub(crate) blame: Blame,
    /// With HTTP/1.1 the connection cannot be used for another request.
    pub(crate) close: bool,
}

const fn verdict(status: StatusCode, code: &'static str, blame: Blame) -> Verdict {
    Verdict {
        status,
        code,
        blame,
        close: false,
    }
}

impl Rejection {
    /// The table.
    pub(crate) fn verdict(&self) -> Verdict {
        use Blame::{Client, Issuer, Upstream, Us};
        use StatusCode as S;
        let open = match self {
            Self::Tls(_) => verdict(S::BAD_REQUEST, "tls_failed", Client),
            Self::ProxyHeader(_) => verdict(S::BAD_REQUEST, "invalid_proxy_header", Client),
            Self::PlainHttp => verdict(S::BAD_REQUEST, "plain_http", Client),
            Self::Http2(_) => verdict(S::BAD_REQUEST, "http2_violation", Client),
            Self::Flood => verdict(S::TOO_MANY_REQUESTS, "http2_flood", Client),
            Self::GivenUp => verdict(S::TOO_MANY_REQUESTS, "too_many_given_up", Client),
            Self::Head(HeadFault::TooLarge | HeadFault::TooManyHeaders) => verdict(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_too_large",
                Client,
            ),
            Self::Head(_) => verdict(S::BAD_REQUEST, "bad_request", Client),
            Self::Host => verdict(S::BAD_REQUEST, "invalid_host", Client),
            Self::Path(_) => verdict(S::BAD_REQUEST, "invalid_path", Client),
            Self::AmbiguousPath(_) => verdict(S::BAD_REQUEST, "ambiguous_path", Client),
            Self::Method(method) if *method == http::Method::CONNECT => {
                verdict(S::NOT_IMPLEMENTED, "method_not_implemented", Client)
            }
            Self::Method(_) => verdict(S::METHOD_NOT_ALLOWED, "method_not_allowed", Client),
            Self::EndpointMethod(..) => {
                verdict(S::METHOD_NOT_ALLOWED, "method_not_allowed", Client)
            }
            Self::InvalidTarget(_) => verdict(S::BAD_REQUEST, "invalid_target", Client),
            Self::TargetNotAllowed(_) => verdict(S::FORBIDDEN, "target_not_allowed", Client),
            // The client chose the target: these go to the audit log.
            Self::TargetUnresolved(..) => verdict(S::BAD_GATEWAY, "target_unresolved", Client),
            Self::TargetUnreachable(..) => verdict(S::BAD_GATEWAY, "target_unreachable", Client),
            Self::TargetTimeout(_) => verdict(S::GATEWAY_TIMEOUT, "target_timeout", Client),
            Self::CrossSite => verdict(S::FORBIDDEN, "cross_site", Client),
            Self::SeveralTokens => verdict(S::BAD_REQUEST, "invalid_request", Client),
            Self::MissingToken => verdict(S::UNAUTHORIZED, "missing_token", Client),
            Self::Token(error) => verdict(S::UNAUTHORIZED, error.code(), Client),
            Self::KeysUnavailable(_) => verdict(S::SERVICE_UNAVAILABLE, "keys_unavailable", Issuer),
            Self::IntrospectionUnavailable(_) => {
                verdict(S::SERVICE_UNAVAILABLE, "introspection_unavailable", Issuer)
            }
            Self::Confirmation(error, _) => verdict(S::UNAUTHORIZED, error.code(), Client),
            Self::Certificate(error) => verdict(S::FORBIDDEN, error.code(), Client),
            Self::Refused(Refusal::SessionEnded(_)) => {
                verdict(S::UNAUTHORIZED, "session_ended", Client)
            }
            Self::Refused(Refusal::SessionTooOld) => {
                verdict(S::UNAUTHORIZED, "session_too_old", Client)
            }
            Self::Refused(refusal @ (Refusal::OutsideHours | Refusal::AnotherNetwork)) => {
                verdict(S::FORBIDDEN, refusal.code(), Client)
            }
            Self::Refused(refusal @ (Refusal::TooManyConnections | Refusal::TooManySessions)) => {
                verdict(S::TOO_MANY_REQUESTS, refusal.code(), Client)
            }
            Self::Denied(denied @ Denied::Authentication { .. }) => {
                verdict(S::UNAUTHORIZED, denied.code(), Client)
            }
            Self::Denied(denied) => verdict(S::FORBIDDEN, denied.code(), Client),
            Self::Refused(Refusal::NoSession) => verdict(S::UNAUTHORIZED, "no_session", Client),
            Self::Refused(Refusal::AnotherSession) => {
                verdict(S::MISDIRECTED_REQUEST, "another_session", Client)
            }
            Self::Refused(Refusal::Capacity) => verdict(S::SERVICE_UNAVAILABLE, "capacity", Us),
            Self::Refused(Refusal::Unavailable) => {
                verdict(S::SERVICE_UNAVAILABLE, "unavailable", Us)
            }
            Self::Refused(Refusal::UnbindableSocket) => {
                verdict(S::INTERNAL_SERVER_ERROR, "unbindable_socket", Us)
            }
            Self::Refused(Refusal::UnknownPolicy) => {
                verdict(S::INTERNAL_SERVER_ERROR, "unknown_policy", Us)
            }
            Self::PlainPostgres => verdict(S::BAD_REQUEST, "plain_postgres", Client),
            Self::Packet(_) => verdict(S::BAD_REQUEST, "invalid_startup", Client),
            Self::PostgresMessage(_) => verdict(S::BAD_REQUEST, "invalid_message", Client),
            Self::UnknownCancelKey => verdict(S::NOT_FOUND, "unknown_cancel_key", Client),
            Self::UpstreamRefusedLogin(_) => {
                verdict(S::BAD_GATEWAY, "upstream_refused_login", Upstream)
            }
            Self::NoRoute => verdict(S::NOT_FOUND, "not_found", Client),
            Self::WebSocketHandshake(_) => {
                verdict(S::BAD_REQUEST, "invalid_websocket_handshake", Client)
            }
            Self::WebSocketVersion => verdict(S::UPGRADE_REQUIRED, "websocket_version", Client),
            Self::WebSocket(_) => verdict(S::BAD_REQUEST, "websocket_violation", Client),
            Self::NoWebSocket => verdict(S::NOT_IMPLEMENTED, "websocket_not_served", Client),
            Self::UpstreamUnreachable(_) => {
                verdict(S::BAD_GATEWAY, "upstream_unreachable", Upstream)
            }
            Self::UpstreamConnectTimeout => {
                verdict(S::GATEWAY_TIMEOUT, "upstream_connect_timeout", Upstream)
            }
            Self::UpstreamTimeout => verdict(S::GATEWAY_TIMEOUT, "upstream_timeout", Upstream),
            Self::UpstreamClosed => verdict(S::BAD_GATEWAY, "upstream_closed", Upstream),
            Self::UpstreamInvalid(_) => verdict(S::BAD_GATEWAY, "upstream_invalid", Upstream),
            Self::Incomplete => verdict(S::BAD_REQUEST, "incomplete_request", Client),
            Self::Internal(_) => verdict(S::INTERNAL_SERVER_ERROR, "internal", Us),
        };
        // What follows a request that two servers could read differently is not believed.
        let doubtful = open.status == S::BAD_REQUEST;
        let close = self.is_final() || matches!(self, Self::Head(_));
        Verdict {
            close: doubtful || close,
            ..open
        }
    }

    /// No later request on the connection would fare better.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Refused(
                Refusal::SessionEnded(_)
                    | Refusal::AnotherSession
                    | Refusal::AnotherNetwork
                    | Refusal::TooManyConnections
                    | Refusal::UnbindableSocket
            )
        )
    }

    /// The answer without a body, and the body.
    pub(crate) fn response(&self) -> (Response<()>, String) {
        let verdict = self.verdict();
        let body = serde_json::json!({ "code": verdict.code, "message": self.to_string() });
        let mut response = Response::new(());
        *response.status_mut() = verdict.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match verdict.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            }
            StatusCode::FORBIDDEN if matches!(self, Self::Denied(Denied::Scope { .. })) => {
                headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                let methods = match self {
                    Self::EndpointMethod(_, methods) => methods,
                    _ => FORWARDED_METHODS,
                };
                headers.insert(header::ALLOW, HeaderValue::from_static(methods));
            }
            StatusCode::UPGRADE_REQUIRED => {
                let version = HeaderValue::from_static("13");
                headers.insert(header::SEC_WEBSOCKET_VERSION, version);
            }
            _ => {}
        }
        if verdict.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        (response, format!("{body}\n"))
    }

    /// For the audit log.
    pub(crate) fn record(
        &self,
        client: SocketAddr,
        listener: &str,
        cookie: u64,
        principal: Option<Principal>,
    ) -> RefusedRequest {
        RefusedRequest {
            code: self.verdict().code.to_owned(),
            detail: self.to_string(),
            client,
            listener: listener.to_owned(),
            cookie,
            principal: principal.or_else(|| self.principal().cloned()),
        }
    }

    /// Whose token it is that is sound, but not now, or not from here.
    fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Token(TokenError::NotYetValid { principal, .. }) => Some(principal),
            // Whose token it is that somebody else has.
            Self::Confirmation(_, principal) => Some(principal),
            _ => None,
        }
    }

    /// RFC 6750, section 3, and RFC 9470 for a better authentication. A request without a token is
    /// told nothing about errors.
    fn challenge(&self) -> HeaderValue {
        let mut challenge = format!("Bearer realm=\"{REALM}\"");
        if !matches!(self, Self::MissingToken) {
            let error = match self {
                Self::Denied(denied) => denied.code(),
                _ => "invalid_token",
            };
            let description = description(&self.to_string());
            // Writing to a string does not fail.
            let _ = write!(
                challenge,
                ", error=\"{error}\", error_description=\"{description}\""
            );
        }
        if let Self::Denied(denied) = self {
            challenge.push_str(&needed(denied));
        }
        HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

/// What would be enough, as parameters of a challenge. The configuration takes no value that would
/// break out of its quotes.
fn needed(denied: &Denied) -> String {
    match denied {
        Denied::Scope { scopes, .. } => format!(", scope=\"{}\"", scopes.join(" ")),
        Denied::Authentication {
            acr_values,
            max_age,
            ..
        } => {
            let mut needed = String::new();
            if !acr_values.is_empty() {
                needed = format!(", acr_values=\"{}\"", acr_values.join(" "));
            }
            if let Some(max_age) = max_age {
                // Writing to a string does not fail.
                let _ = write!(needed, ", max_age=\"{}\"", max_age.as_secs());
            }
            needed
        }
        Denied::Network { .. } | Denied::Hours { .. } | Denied::Claim { .. } => String::new(),
    }
}

/// The characters that `error_description` may hold.
fn description(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '"' | '\\' => '\'',
            ' '..='~' => character,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{policy::Source, session::EndReason};

    #[test]
    fn a_missing_token_is_told_no_error() {
        let (response, body) = Rejection::MissingToken.response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenge = &response.headers()[header::WWW_AUTHENTICATE];
        assert_eq!(challenge, "Bearer realm=\"enforcer\"");
        assert_eq!(
            body,
            "{\"code\":\"missing_token\",\"message\":\"a bearer token is needed\"}\n"
        );
    }

    #[test]
    fn an_ended_session_is_an_invalid_token_and_the_end_of_the_connection() {
        let rejection = Rejection::Refused(Refusal::SessionEnded(EndReason::Idle));
        let (response, body) = rejection.response();
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"enforcer\", error=\"invalid_token\", \
             error_description=\"the session has ended (idle)\""
        );
        assert_eq!(response.headers()[header::CONNECTION], "close");
        assert!(body.contains("session_ended"));
    }

    #[test]
    fn refusals_of_the_warden_have_their_status() {
        for (refusal, status, close) in [
            (Refusal::SessionTooOld, 401, false),
            (Refusal::NoSession, 401, false),
            (Refusal::OutsideHours, 403, false),
            (Refusal::AnotherNetwork, 403, true),
            (Refusal::TooManyConnections, 429, true),
            (Refusal::TooManySessions, 429, false),
            (Refusal::AnotherSession, 421, true),
            (Refusal::Capacity, 503, false),
            (Refusal::Unavailable, 503, false),
            (Refusal::UnbindableSocket, 500, true),
            (Refusal::UnknownPolicy, 500, false),
        ] {
            let (response, _) = Rejection::Refused(refusal).response();
            assert_eq!(response.status(), status, "{refusal}");
            assert_eq!(response.headers().contains_key(header::CONNECTION), close);
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                status == 503
            );
        }
    }

    #[test]
    fn a_better_authentication_is_asked_for_by_its_parameters() {
        let denied = Denied::Authentication {
            by: Source::Policy("admin".to_owned()),
            wanted: "authentication of class aal2 or aal3".to_owned(),
            acr_values: vec!["aal2".to_owned(), "aal3".to_owned()],
            max_age: Some(Duration::from_secs(300)),
        };
        let (response, body) = Rejection::Denied(denied).response();
        assert_eq!(response.status(), 401);
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"enforcer\", error=\"insufficient_user_authentication\", \
             error_description=\"the policy `admin` asks for authentication of class aal2 or \
             aal3\", acr_values=\"aal2 aal3\", max_age=\"300\""
        );
        assert!(body.contains("\"code\":\"insufficient_user_authentication\""));
        assert!(!response.headers().contains_key(header::CONNECTION));
    }

    #[test]
    fn a_missing_scope_is_named_and_other_refusals_are_not_challenges() {
        let denied = Denied::Scope {
            by: Source::Route,
            missing: "write".to_owned(),
            scopes: vec!["read".to_owned(), "write".to_owned()],
        };
        let (response, _) = Rejection::Denied(denied).response();
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"enforcer\", error=\"insufficient_scope\", \
             error_description=\"the route asks for the scope `write`\", scope=\"read write\""
        );
        let denied = Denied::Network {
            by: Source::Route,
            client: "192.0.2.1".parse().unwrap(),
        };
        let (response, body) = Rejection::Denied(denied).response();
        assert_eq!(response.status(), 403);
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
        assert!(body.contains("\"code\":\"network_not_allowed\""));
    }

    #[test]
    fn a_malformed_request_is_the_last_of_its_connection() {
        for rejection in [
            Rejection::Host,
            Rejection::SeveralTokens,
            Rejection::Head(HeadFault::TwoFramings),
            Rejection::Head(HeadFault::TooLarge),
        ] {
            let (response, _) = rejection.response();
            assert_eq!(response.headers()[header::CONNECTION], "close");
        }
        let (response, _) = Rejection::NoRoute.response();
        assert!(!response.headers().contains_key(header::CONNECTION));
    }

    #[test]
    fn descriptions_hold_only_what_they_may() {
        assert_eq!(description("a \"b\" \\ \u{e9}\n"), "a 'b' ' ??");
    }
}
