//! The limits of a policy.

use std::time::Duration;

use toml::Spanned;

use super::{
    super::{
        duration::{RawDuration, Zero},
        raw::RawPolicy,
    },
    settings::Recorder,
};
use crate::policy::{
    ActivityKind, AtSessionLimit, Limits, Mode, NetworkBinding, SessionsPerSubject,
};

/// A session is announced as expiring for a minute, but not for more than the last fifth of the
/// shortest life it can have.
const DEFAULT_WARN_BEFORE: Duration = Duration::from_secs(60);
/// Time for a farewell to reach the client, within the same fifth.
const DEFAULT_FAREWELL: Duration = Duration::from_millis(250);
const LAST_PART: u32 = 5;
/// A client's own network: its addresses change within it.
const DEFAULT_IPV6_BINDING: u8 = 64;
/// More than any limit is for.
const MOST: u32 = 1_000_000;

pub(super) fn convert(
    recorder: &mut Recorder<'_, '_>,
    name: &Spanned<String>,
    raw: &RawPolicy,
) -> Option<Limits> {
    let max_session = max_session(recorder, name, raw);
    let idle_timeout = idle_timeout(recorder, raw, max_session);
    let last_part = idle_timeout.or(max_session).map(|life| life / LAST_PART);
    let warn_before = lead(
        recorder,
        ("warn_before", &raw.warn_before),
        max_session,
        DEFAULT_WARN_BEFORE.min(last_part.unwrap_or_default()),
        "every session would count as expiring from its start",
    );
    let farewell = lead(
        recorder,
        ("farewell", &raw.farewell),
        max_session,
        DEFAULT_FAREWELL.min(last_part.unwrap_or_default()),
        "every session would be sent off at its start",
    );
    let activity = [
        ("application", ActivityKind::Application),
        ("payload", ActivityKind::Payload),
    ];
    let activity = word(recorder, "activity", raw.activity.as_ref(), activity);
    let mode = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let mode = word(recorder, "mode", raw.mode.as_ref(), mode);
    let max_connections = number(recorder, "max_connections", raw.max_connections.as_ref());
    let sessions_per_subject = sessions_per_subject(recorder, raw);
    let bind_network = bind_network(recorder, raw);
    Some(Limits {
        max_session: max_session?,
        idle_timeout,
        warn_before,
        farewell,
        activity,
        mode,
        max_connections,
        sessions_per_subject,
        bind_network,
    })
}

fn max_session(
    recorder: &mut Recorder<'_, '_>,
    name: &Spanned<String>,
    raw: &RawPolicy,
) -> Option<Duration> {
    let template = recorder.template();
    if raw.max_session.is_none() && template.is_none_or(|it| it.max_session.is_none()) {
        let what = match template {
            Some(template) => format!(
                "key `max_session` is missing: the template `{}` sets none",
                template.name
            ),
            None => "key `max_session` is missing".to_owned(),
        };
        // A template that does not exist has been reported.
        if template.is_some() || raw.template.is_none() {
            recorder
                .draft
                .report(name, what, "add `max_session = \"8h\"`");
        }
        return None;
    }
    let given = raw.max_session.as_ref().and_then(|value| {
        let duration = recorder
            .draft
            .duration("max_session", value, Zero::Refused)?;
        Some((duration, value))
    });
    if raw.max_session.is_some() && given.is_none() {
        return None;
    }
    let template = template.and_then(|template| template.max_session);
    recorder.or_template("max_session", given, template, shown)
}

fn idle_timeout(
    recorder: &mut Recorder<'_, '_>,
    raw: &RawPolicy,
    max_session: Option<Duration>,
) -> Option<Duration> {
    let given = raw.idle_timeout.as_ref().and_then(|value| {
        let duration = shorter(
            recorder,
            ("idle_timeout", value),
            Zero::Refused,
            max_session,
            "it would never apply",
        )?;
        Some((duration, value))
    });
    let template = recorder.template();
    let of_template = template.and_then(|template| template.idle_timeout);
    if let (Some(template), Some(idle_timeout), Some(max_session), None, Some(at)) = (
        template,
        of_template,
        max_session,
        &raw.idle_timeout,
        &raw.max_session,
    ) && idle_timeout >= max_session
    {
        recorder.draft.report(
            at,
            format!(
                "`max_session` is not longer than the `idle_timeout` of the template `{}` ({}), \
                 which would never apply",
                template.name,
                shown(&idle_timeout)
            ),
            "write a shorter `idle_timeout` too, or raise `max_session`",
        );
    }
    recorder.or_template("idle_timeout", given, of_template, shown)
}

/// How long before the end something is said.
fn lead(
    recorder: &mut Recorder<'_, '_>,
    (key, value): (&str, &Option<Spanned<RawDuration>>),
    max_session: Option<Duration>,
    default: Duration,
    why: &str,
) -> Duration {
    let given = value
        .as_ref()
        .and_then(|value| shorter(recorder, (key, value), Zero::Allowed, max_session, why));
    let duration = given.unwrap_or(default);
    recorder.note(key, shown(&duration), value.as_ref());
    duration
}

fn word<T: Copy + PartialEq, const N: usize>(
    recorder: &mut Recorder<'_, '_>,
    key: &str,
    value: Option<&Spanned<String>>,
    words: [(&str, T); N],
) -> T {
    let meaning = recorder.draft.word(key, value, words);
    let chosen = words.iter().find(|(_, it)| *it == meaning);
    recorder.note(key, chosen.map_or("", |(word, _)| word), value);
    meaning
}

fn sessions_per_subject(
    recorder: &mut Recorder<'_, '_>,
    raw: &RawPolicy,
) -> Option<SessionsPerSubject> {
    let key = "max_sessions_per_subject";
    let max = number(recorder, key, raw.max_sessions_per_subject.as_ref());
    let then = raw.at_session_limit.as_ref();
    if raw.max_sessions_per_subject.is_none() {
        without_effect(recorder, "at_session_limit", then, key);
        return None;
    }
    let words = [
        ("refuse", AtSessionLimit::Refuse),
        ("end_oldest", AtSessionLimit::EndOldest),
    ];
    let then = word(recorder, "at_session_limit", then, words);
    max.map(|max| SessionsPerSubject { max, then })
}

fn bind_network(recorder: &mut Recorder<'_, '_>, raw: &RawPolicy) -> Option<NetworkBinding> {
    let Some(value) = &raw.bind_network else {
        let ipv6 = raw.bind_network_ipv6.as_ref();
        without_effect(recorder, "bind_network_ipv6", ipv6, "bind_network");
        return None;
    };
    let ipv4 = prefix(recorder, "bind_network", value, 32, 24);
    let ipv6 = match &raw.bind_network_ipv6 {
        Some(value) => prefix(recorder, "bind_network_ipv6", value, 128, 56),
        None => Some(DEFAULT_IPV6_BINDING),
    };
    let (ipv4, ipv6) = (ipv4?, ipv6?);
    recorder.note("bind_network", format!("/{ipv4}"), Some(value));
    let at = raw.bind_network_ipv6.as_ref();
    recorder.note("bind_network_ipv6", format!("/{ipv6}"), at);
    Some(NetworkBinding { ipv4, ipv6 })
}

/// The length of a prefix, with its slash.
fn prefix(
    recorder: &mut Recorder<'_, '_>,
    key: &str,
    value: &Spanned<String>,
    longest: u8,
    example: u8,
) -> Option<u8> {
    let text = value.get_ref();
    let length = text
        .strip_prefix('/')
        .and_then(|length| length.parse().ok());
    let length = length.filter(|length| (1..=longest).contains(length));
    if length.is_none() {
        recorder.draft.report(
            value,
            format!(
                "`{key}` is not the length of a prefix: `{}`",
                text.escape_debug()
            ),
            format!(
                "write a length from \"/1\" to \"/{longest}\" such as `{key} = \"/{example}\"`"
            ),
        );
    }
    length
}

fn number(recorder: &mut Recorder<'_, '_>, key: &str, value: Option<&Spanned<i64>>) -> Option<u32> {
    let value = value?;
    let number = u32::try_from(*value.get_ref()).ok();
    let Some(number) = number.filter(|number| (1..=MOST).contains(number)) else {
        let what = format!("`{key}` cannot be {}", value.get_ref());
        let help =
            format!("write a number from 1 to {MOST}; without `{key}` there is no such limit");
        recorder.draft.report(value, what, help);
        return None;
    };
    recorder.note(key, number, Some(value));
    Some(number)
}

fn without_effect<T>(
    recorder: &mut Recorder<'_, '_>,
    key: &str,
    value: Option<&Spanned<T>>,
    needed: &str,
) {
    if let Some(value) = value {
        recorder.draft.report(
            value,
            format!("`{key}` has no effect without `{needed}`"),
            format!("add `{needed}`, or remove it"),
        );
    }
}

/// A duration that must be shorter than `max_session`.
fn shorter(
    recorder: &mut Recorder<'_, '_>,
    (key, value): (&str, &Spanned<RawDuration>),
    zero: Zero,
    max_session: Option<Duration>,
    why: &str,
) -> Option<Duration> {
    let duration = recorder.draft.duration(key, value, zero)?;
    match max_session {
        Some(max_session) if duration >= max_session => {
            let longest = shown(&max_session);
            recorder.draft.report(
                value,
                format!("`{key}` is not shorter than `max_session` ({longest}): {why}"),
                format!("write a duration below {longest}, or raise `max_session`"),
            );
            None
        }
        _ => Some(duration),
    }
}

fn shown(duration: &Duration) -> String {
    humantime::format_duration(*duration).to_string()
}
