//! Whether a canary was cut as it should be. Pure.

use std::time::Duration;

use crate::{
    channel::{CanaryEnd, CanaryReport},
    clock::BootInstant,
};

/// How late the reset may be: what a busy machine takes to run a process.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody could play the client.
    #[error("no gateway serves")]
    NoGateway,
    /// There is no listener for it.
    #[error("no socket for it: {0}")]
    Socket(String),
    /// The gateway did not answer.
    #[error("the gateway did not say in time how it went")]
    Silent,
    /// The gateway could not connect, or its socket could not be bound.
    #[error("its session was not opened")]
    NotOpened,
    /// Nothing passed while it should.
    #[error("no payload passed before the limit")]
    NoPayload,
    /// The kernel let payload through that was sent after the limit.
    #[error("payload passed that was sent {} ms after the limit", .0.as_millis())]
    PayloadAfterLimit(Duration),
    /// It was not reset.
    #[error("the connection was not reset")]
    NotReset,
    /// It ended too soon.
    #[error("the connection ended {} ms before its reset was due", .0.as_millis())]
    TooEarly(Duration),
    /// It was reset too late.
    #[error("the connection was reset {} ms late", .0.as_millis())]
    TooLate(Duration),
}

impl Failure {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoGateway => "no_gateway",
            Self::Socket(_) => "no_socket",
            Self::Silent => "no_report",
            Self::NotOpened => "not_opened",
            Self::NoPayload => "no_payload",
            Self::PayloadAfterLimit(_) => "payload_after_limit",
            Self::NotReset => "not_reset",
            Self::TooEarly(_) => "reset_early",
            Self::TooLate(_) => "reset_late",
        }
    }
}

/// How late the reset was, which was due at `reset_at`.
pub(super) fn judge(
    limit: BootInstant,
    reset_at: BootInstant,
    report: &CanaryReport,
) -> Result<Duration, Failure> {
    let Some(last_sent_at) = report.last_sent_at.filter(|_| report.passed_both_ways) else {
        return Err(Failure::NoPayload);
    };
    if last_sent_at >= limit {
        let late = last_sent_at.saturating_duration_since(limit);
        return Err(Failure::PayloadAfterLimit(late));
    }
    let ended_at = match report.end {
        Some(CanaryEnd::Reset(at)) => at,
        Some(CanaryEnd::Closed(_)) | None => return Err(Failure::NotReset),
    };
    if ended_at < reset_at {
        let early = reset_at.saturating_duration_since(ended_at);
        return Err(Failure::TooEarly(early));
    }
    let late = ended_at.saturating_duration_since(reset_at);
    if late > RESET_TIMEOUT {
        return Err(Failure::TooLate(late));
    }
    Ok(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant::from_nanos(millis * 1_000_000)
    }

    fn verdict(report: &CanaryReport) -> Result<u128, &'static str> {
        let judged = judge(at(1_000), at(1_250), report);
        judged
            .map(|late| late.as_millis())
            .map_err(|failure| failure.code())
    }

    const GOOD: CanaryReport = CanaryReport {
        passed_both_ways: true,
        last_sent_at: Some(BootInstant::from_nanos(998_000_000)),
        end: Some(CanaryEnd::Reset(BootInstant::from_nanos(1_253_000_000))),
    };

    #[test]
    fn a_cut_at_the_limit_and_a_reset_soon_after_it_was_due_is_right() {
        assert_eq!(verdict(&GOOD), Ok(3));
    }

    #[test]
    fn everything_else_has_its_code() {
        let with = |change: fn(&mut CanaryReport)| {
            let mut report = GOOD;
            change(&mut report);
            verdict(&report)
        };
        assert_eq!(with(|it| it.last_sent_at = None), Err("no_payload"));
        assert_eq!(with(|it| it.passed_both_ways = false), Err("no_payload"));
        assert_eq!(
            with(|it| it.last_sent_at = Some(at(1_000))),
            Err("payload_after_limit")
        );
        assert_eq!(with(|it| it.end = None), Err("not_reset"));
        assert_eq!(
            with(|it| it.end = Some(CanaryEnd::Closed(at(1_251)))),
            Err("not_reset")
        );
        assert_eq!(
            with(|it| it.end = Some(CanaryEnd::Reset(at(1_249)))),
            Err("reset_early")
        );
        assert_eq!(
            with(|it| it.end = Some(CanaryEnd::Reset(at(2_251)))),
            Err("reset_late")
        );
    }
}
