//! `[policies.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use super::{
    draft::Draft,
    duration::{RawDuration, Zero},
    raw::{Named, RawPolicy},
};
use crate::policy::{ActivityKind, Limits, Mode, Policy};

/// A session is announced as expiring for a minute, but not for more than the last fifth of the
/// shortest life it can have.
const DEFAULT_WARN_BEFORE: Duration = Duration::from_secs(60);
/// Time for a farewell to reach the client, within the same fifth.
const DEFAULT_FAREWELL: Duration = Duration::from_millis(250);
const LAST_PART: u32 = 5;

pub(super) fn convert(draft: &mut Draft<'_>, raw: Named<RawPolicy>) -> BTreeMap<String, Policy> {
    if raw.is_empty() {
        draft.report_file(
            "there is no policy",
            "add a section `[policies.standard]` with `max_session`",
        );
    }
    let mut policies = BTreeMap::new();
    for (name, raw) in raw {
        draft.name("policy", &name);
        if let Some(limits) = convert_policy(draft, &raw) {
            policies.insert(name.into_inner(), Policy { limits });
        }
    }
    policies
}

fn convert_policy(draft: &mut Draft<'_>, raw: &RawPolicy) -> Option<Limits> {
    let max_session = draft.duration("max_session", &raw.max_session, Zero::Refused);
    let mut within = |key, value: &Option<Spanned<RawDuration>>, zero, why| {
        let value = value.as_ref()?;
        shorter(draft, key, value, zero, max_session, why)
    };
    let idle_timeout = within(
        "idle_timeout",
        &raw.idle_timeout,
        Zero::Refused,
        "it would never apply",
    );
    let warn_before = within(
        "warn_before",
        &raw.warn_before,
        Zero::Allowed,
        "every session would count as expiring from its start",
    );
    let farewell = within(
        "farewell",
        &raw.farewell,
        Zero::Allowed,
        "every session would be sent off at its start",
    );
    let activity = [
        ("application", ActivityKind::Application),
        ("payload", ActivityKind::Payload),
    ];
    let mode = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let activity = draft.word("activity", raw.activity.as_ref(), activity);
    let mode = draft.word("mode", raw.mode.as_ref(), mode);
    let max_session = max_session?;
    let last_part = idle_timeout.unwrap_or(max_session) / LAST_PART;
    Some(Limits {
        max_session,
        idle_timeout,
        warn_before: warn_before.unwrap_or(DEFAULT_WARN_BEFORE.min(last_part)),
        farewell: farewell.unwrap_or(DEFAULT_FAREWELL.min(last_part)),
        activity,
        mode,
    })
}

/// A duration that must be shorter than `max_session`.
fn shorter(
    draft: &mut Draft<'_>,
    key: &str,
    value: &Spanned<RawDuration>,
    zero: Zero,
    max_session: Option<Duration>,
    why: &str,
) -> Option<Duration> {
    let duration = draft.duration(key, value, zero)?;
    match max_session {
        Some(max_session) if duration >= max_session => {
            let longest = humantime::format_duration(max_session);
            draft.report(
                value,
                format!("`{key}` is not shorter than `max_session` ({longest}): {why}"),
                format!("write a duration below {longest}, or raise `max_session`"),
            );
            None
        }
        _ => Some(duration),
    }
}
