//! What PostgreSQL clients are told: refusals, warnings and farewells. Pure.

use std::time::Duration;

use super::message::{Report, Severity};
use crate::{channel::Refusal, gateway::rejection::Rejection, session::EndReason};

/// A refusal, as an ErrorResponse.
pub(super) fn refusal(rejection: &Rejection) -> Vec<u8> {
    let message = rejection.to_string();
    let detail = format!("enforcer: {}", rejection.verdict().code);
    Report {
        severity: Severity::Fatal,
        code: sqlstate(rejection),
        message: &message,
        detail: Some(&detail),
        hint: match rejection {
            Rejection::PlainPostgres => Some("Connect with sslmode=verify-full."),
            Rejection::MissingToken => Some("Give a token as the password."),
            _ => None,
        },
    }
    .to_bytes()
}

/// SQLSTATE (PostgreSQL's documentation, appendix A).
fn sqlstate(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::MissingToken | Rejection::Token(_) | Rejection::Confirmation(..) => "28P01",
        Rejection::PlainPostgres
        | Rejection::Certificate(_)
        | Rejection::Denied(_)
        | Rejection::Refused(
            Refusal::SessionEnded(_)
            | Refusal::SessionTooOld
            | Refusal::OutsideHours
            | Refusal::AnotherNetwork
            | Refusal::NoSession
            | Refusal::AnotherSession,
        ) => "28000",
        Rejection::Packet(_) | Rejection::PostgresMessage(_) => "08P01",
        Rejection::Refused(
            Refusal::Capacity | Refusal::TooManyConnections | Refusal::TooManySessions,
        ) => "53300",
        Rejection::Refused(Refusal::Unavailable)
        | Rejection::KeysUnavailable(_)
        | Rejection::IntrospectionUnavailable(_) => "57P03",
        Rejection::UpstreamUnreachable(_)
        | Rejection::UpstreamConnectTimeout
        | Rejection::UpstreamTimeout
        | Rejection::UpstreamClosed
        | Rejection::UpstreamInvalid(_) => "08006",
        Rejection::UpstreamRefusedLogin(_) => "08004",
        _ => "XX000",
    }
}

/// The session ends soon, as a NoticeResponse.
pub(super) fn warning(reason: EndReason, left: Duration) -> Vec<u8> {
    let seconds = left.as_secs_f64().ceil();
    Report {
        severity: Severity::Warning,
        code: "01000",
        message: &format!("the session ends in {seconds} s ({reason})"),
        detail: None,
        hint: match reason {
            EndReason::Idle => Some("A query keeps it alive."),
            EndReason::Token => Some("A newer token renews it."),
            _ => None,
        },
    }
    .to_bytes()
}

/// The session ends now, as an ErrorResponse.
pub(super) fn farewell(reason: EndReason) -> Vec<u8> {
    let (code, message) = match reason {
        EndReason::Idle => ("57P05", "terminating connection: the session was idle"),
        EndReason::Token => ("57P01", "terminating connection: the credential expires"),
        _ => ("57P01", "terminating connection: the session has to end"),
    };
    Report {
        severity: Severity::Fatal,
        code,
        message,
        detail: Some(&format!("enforcer: session_ended ({reason})")),
        hint: None,
    }
    .to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn idle_sessions_and_others_end_with_their_codes() {
        for (reason, code) in [
            (EndReason::Idle, "C57P05"),
            (EndReason::Deadline, "C57P01"),
            (EndReason::Token, "C57P01"),
            (EndReason::Revoked, "C57P01"),
            (EndReason::Logout, "C57P01"),
            (EndReason::CertificateRevoked, "C57P01"),
            (EndReason::Unknown, "C57P01"),
        ] {
            let farewell = text(&farewell(reason));
            assert!(farewell.starts_with('E') && farewell.contains("FATAL"));
            assert!(farewell.contains(code), "{reason}: {farewell}");
            assert!(farewell.contains(reason.as_str()), "{farewell}");
        }
    }

    #[test]
    fn a_warning_says_how_long_is_left() {
        let warning = text(&warning(EndReason::Token, Duration::from_millis(1300)));
        assert!(warning.starts_with('N') && warning.contains("WARNING"));
        assert!(warning.contains("ends in 2 s (token)"), "{warning}");
    }

    #[test]
    fn refusals_have_their_codes() {
        for (rejection, code) in [
            (Rejection::MissingToken, "C28P01"),
            (Rejection::PlainPostgres, "C28000"),
            (Rejection::Refused(Refusal::Capacity), "C53300"),
            (Rejection::Refused(Refusal::Unavailable), "C57P03"),
            (Rejection::UpstreamClosed, "C08006"),
            (Rejection::Internal("x"), "CXX000"),
        ] {
            let refusal = text(&refusal(&rejection));
            assert!(refusal.contains(code), "{refusal}");
            assert!(refusal.contains(rejection.verdict().code), "{refusal}");
        }
    }
}
