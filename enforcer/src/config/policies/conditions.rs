//! `match`, `require` and `hours`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::tz::TimeZoneDatabase;
use toml::Spanned;

use super::{
    super::{
        draft::Draft,
        duration::Zero,
        error::{did_you_mean, listed},
        proxy,
        raw::{Named, OneOrMany, RawClaimValues, RawHours, RawMatch, RawRequire},
    },
    Known,
    settings::Recorder,
};
use crate::policy::{
    BadHours, BadWindow, ClaimConditions, ClaimValue, Hours, Match, Requirements, Window, time_zone,
};

/// What `match` may hold besides claims.
const ISSUER: &str = "issuer";
const SUBJECT: &str = "subject";
const NETWORKS: &str = "networks";

/// `match` of a policy.
pub(super) fn matches(
    recorder: &mut Recorder<'_, '_>,
    raw: Option<&Spanned<RawMatch>>,
    known: &Known<'_>,
) -> Option<Match> {
    let at = raw?;
    let draft = &mut *recorder.draft;
    let mut matches = Match::default();
    let mut given = BTreeMap::new();
    for (name, values) in at.get_ref() {
        match name.get_ref().as_str() {
            ISSUER => {
                matches.issuers = names(draft, ISSUER, values);
                if !known.takes_certificates {
                    report_unknown_issuers(draft, values, &matches.issuers, known);
                }
            }
            SUBJECT => matches.subjects = names(draft, SUBJECT, values),
            NETWORKS => {
                let texts = names(draft, NETWORKS, values).into_iter();
                let texts = texts.map(|text| Spanned::new(values.span(), text));
                matches.networks = texts.filter_map(|it| proxy::network(draft, &it)).collect();
            }
            claim => drop(given.insert(claim.to_owned(), claim_values(draft, claim, values))),
        }
    }
    if at.get_ref().is_empty() {
        draft.report(
            at,
            "`match` is empty: it says nothing about whom the policy is for",
            "write a claim and its value such as `match = { groups = \"contractors\" }`, or name \
             the policy in `policies` of routes and remove `match`",
        );
    }
    matches.claims = ClaimConditions::new(given);
    recorder.note("match", &matches, Some(at));
    Some(matches)
}

/// What is not a claim takes texts only.
fn names(draft: &mut Draft<'_>, key: &str, at: &Spanned<RawClaimValues>) -> Vec<String> {
    let values = claim_values(draft, key, at).into_iter();
    let mut other = false;
    let texts = values.filter_map(|value| match value {
        ClaimValue::Text(text) => Some(text),
        ClaimValue::Integer(_) | ClaimValue::Boolean(_) => {
            other = true;
            None
        }
    });
    let texts = texts.collect();
    if other {
        let what = format!("`{key}` of `match` is no text");
        draft.report(at, what, "write a text, or a list of texts");
    }
    texts
}

fn report_unknown_issuers(
    draft: &mut Draft<'_>,
    at: &Spanned<RawClaimValues>,
    issuers: &[String],
    known: &Known<'_>,
) {
    for issuer in issuers {
        if !known.issuers.contains(issuer.as_str()) {
            let known = || known.issuers.iter().copied();
            let help = match did_you_mean(issuer, known()) {
                Some(candidate) => format!("did you mean `{candidate}`?"),
                None => format!("write one of {}", listed(known())),
            };
            draft.report(
                at,
                format!(
                    "no token comes from the issuer `{}`: the policy would match nobody",
                    issuer.escape_debug()
                ),
                help,
            );
        }
    }
}

/// `require` of a policy, with the lines of its keys.
pub(super) fn policy_requirements(
    recorder: &mut Recorder<'_, '_>,
    raw: Option<&Spanned<RawRequire>>,
) -> Requirements {
    let requirements = requirements(recorder.draft, raw);
    let Some(raw) = raw.map(Spanned::get_ref) else {
        return requirements;
    };
    fn words<T: ToString>(list: &[T]) -> String {
        let words: Vec<_> = list.iter().map(T::to_string).collect();
        words.join(", ")
    }
    let lists = [
        ("acr", words(&requirements.acr), raw.acr.as_ref()),
        ("amr", words(&requirements.amr), raw.amr.as_ref()),
        ("scopes", words(&requirements.scopes), raw.scopes.as_ref()),
    ];
    for (key, value, at) in lists {
        if at.is_some() {
            recorder.note(&format!("require.{key}"), value, at);
        }
    }
    if let Some(max_age) = requirements.max_age {
        let max_age = humantime::format_duration(max_age);
        recorder.note("require.max_age", max_age, raw.max_age.as_ref());
    }
    if raw.networks.is_some() {
        let networks = words(&requirements.networks);
        recorder.note("require.networks", networks, raw.networks.as_ref());
    }
    for (name, values) in raw.claims.iter().flatten() {
        let values = words(&values.get_ref().0);
        let key = format!("require.claims.{}", name.get_ref());
        recorder.note(&key, values, Some(name));
    }
    requirements
}

/// `require` of a route or a policy.
pub(in super::super) fn requirements(
    draft: &mut Draft<'_>,
    raw: Option<&Spanned<RawRequire>>,
) -> Requirements {
    let Some(at) = raw else {
        return Requirements::default();
    };
    let raw = at.get_ref();
    let empty = RawRequire::default();
    if *raw == empty {
        draft.report(
            at,
            "`require` is empty: it asks for nothing",
            "write what is needed such as `require = { scopes = \"admin\" }`, or remove it",
        );
    }
    let scopes = texts(draft, "scopes", raw.scopes.as_ref());
    if let Some(at) = raw.scopes.as_ref()
        && let Some(scope) = scopes.iter().find(|scope| !is_scope(scope))
    {
        draft.report(
            at,
            format!("`{}` is not a scope", scope.escape_debug()),
            "write each scope as a text of its own, without blanks and quotes",
        );
    }
    let acr = texts(draft, "acr", raw.acr.as_ref());
    if let Some(at) = raw.acr.as_ref()
        && let Some(class) = acr.iter().find(|class| !is_scope(class))
    {
        draft.report(
            at,
            format!(
                "`{}` is not a class of authentication",
                class.escape_debug()
            ),
            "write each class as a text of its own, without blanks and quotes",
        );
    }
    let max_age = raw.max_age.as_ref();
    let claims_given = raw.claims.as_ref();
    Requirements {
        networks: networks(draft, raw.networks.as_ref()),
        claims: claims_given.map_or_else(ClaimConditions::default, |given| claims(draft, given)),
        scopes,
        acr,
        amr: texts(draft, "amr", raw.amr.as_ref()),
        max_age: max_age.and_then(|at| draft.duration("max_age", at, Zero::Refused)),
    }
}

/// What may stand in a list with blanks between, in quotes (RFC 6750, section 3).
fn is_scope(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    text.bytes().all(fits)
}

fn texts(draft: &mut Draft<'_>, key: &str, at: Option<&Spanned<OneOrMany>>) -> Vec<String> {
    let Some(at) = at else {
        return Vec::new();
    };
    let texts = &at.get_ref().0;
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        draft.report(
            at,
            format!("`{key}` is empty: nothing would meet it"),
            format!("write a text, or a list of texts such as `{key} = [\"a\", \"b\"]`"),
        );
    }
    texts.clone()
}

fn networks(draft: &mut Draft<'_>, at: Option<&Spanned<Vec<Spanned<String>>>>) -> Vec<IpNet> {
    let Some(at) = at else {
        return Vec::new();
    };
    if at.get_ref().is_empty() {
        draft.report(
            at,
            "`networks` is empty: no client would be in it",
            "write networks such as `networks = [\"10.0.0.0/8\"]`",
        );
    }
    let texts = at.get_ref().iter();
    texts
        .filter_map(|text| proxy::network(draft, text))
        .collect()
}

fn claims(draft: &mut Draft<'_>, raw: &Named<Spanned<RawClaimValues>>) -> ClaimConditions {
    let conditions = raw.iter().map(|(name, at)| {
        let name = name.get_ref();
        (name.clone(), claim_values(draft, name, at))
    });
    ClaimConditions::new(conditions.collect())
}

/// The values of which a claim must have one.
fn claim_values(
    draft: &mut Draft<'_>,
    name: &str,
    at: &Spanned<RawClaimValues>,
) -> Vec<ClaimValue> {
    let RawClaimValues(values) = at.get_ref();
    let is_empty = |value: &ClaimValue| matches!(value, ClaimValue::Text(text) if text.is_empty());
    if values.is_empty() || values.iter().any(is_empty) {
        draft.report(
            at,
            format!("`{}` has no value: nobody's would fit", name.escape_debug()),
            "write a value, or a list of values of which one is needed",
        );
    }
    values.clone()
}

/// `hours` of a policy.
pub(super) fn hours(
    recorder: &mut Recorder<'_, '_>,
    raw: Option<&Spanned<RawHours>>,
) -> Option<Hours> {
    let at = raw?;
    let draft = &mut *recorder.draft;
    let RawHours { time_zone, windows } = at.get_ref();
    let zone = zone(draft, time_zone);
    let texts = windows.get_ref();
    let parsed: Vec<_> = texts
        .iter()
        .filter_map(|text| window(draft, text))
        .collect();
    if parsed.len() < texts.len() {
        return None;
    }
    let hours = Hours::new(zone?, parsed)
        .map_err(|bad| {
            let help = match bad {
                BadHours::NeverOpen => {
                    "write windows such as `windows = [\"mon-fri 08:00-18:00\"]`"
                }
                BadHours::NeverClose => "remove `hours`, or leave a time out of its windows",
            };
            draft.report(
                windows,
                format!("the hours make no difference: {bad}"),
                help,
            );
        })
        .ok()?;
    recorder.note("hours", &hours, Some(at));
    Some(hours)
}

fn zone(draft: &mut Draft<'_>, name: &Spanned<String>) -> Option<jiff::tz::TimeZone> {
    let zone = time_zone(name.get_ref());
    if zone.is_none() {
        let known: Vec<_> = TimeZoneDatabase::bundled()
            .available()
            .map(|zone| zone.to_string())
            .collect();
        let help = match did_you_mean(name.get_ref(), known.iter().map(String::as_str)) {
            Some(candidate) => format!("did you mean `{candidate}`?"),
            None => "write a name of the IANA time zone database such as \"Europe/Berlin\"".into(),
        };
        let what = format!("there is no time zone `{}`", name.get_ref().escape_debug());
        draft.report(name, what, help);
    }
    zone
}

fn window(draft: &mut Draft<'_>, at: &Spanned<String>) -> Option<Window> {
    let text = at.get_ref();
    text.parse()
        .map_err(|bad: BadWindow| {
            let help = match bad {
                BadWindow::Empty => {
                    "write different times; a whole day is \"mon 00:00-24:00\", and one that ends \
                     before it starts ends on the next day"
                }
                _ => "write days and times such as \"mon-fri 08:00-18:00\" or \"sat,sun 22:00-06:00\"",
            };
            draft.report(at, format!("the window `{}` {bad}", text.escape_debug()), help);
        })
        .ok()
}
