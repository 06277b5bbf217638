//! `[identity]`: `[[identity.jwt]]` and `[[identity.introspection]]`.

mod introspection;
mod keys;

use std::{collections::BTreeMap, path::Path, str::FromStr, time::Duration};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use toml::Spanned;

use crate::config::{
    Identity, JwtIssuer, KeySource,
    draft::Draft,
    duration::Zero,
    error::did_you_mean,
    files::Content,
    raw::{OneOrMany, RawIdentity, RawJwtIssuer},
};

const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

const ASYMMETRIC: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];
const SYMMETRIC: [&str; 3] = ["HS256", "HS384", "HS512"];

/// `wanted`: there is a listener whose clients show tokens.
pub(super) fn convert(draft: &mut Draft<'_>, raw: RawIdentity, wanted: bool) -> Identity {
    if raw.jwt.is_empty() && raw.introspection.is_empty() && wanted {
        draft.report_file(
            "there is no token issuer: nobody could come in",
            "add a section `[[identity.jwt]]` with `issuer`, `audience`, `algorithms` and the \
             keys, or `[[identity.introspection]]`",
        );
    }
    let mut lines = BTreeMap::new();
    let mut jwt = Vec::new();
    for raw in &raw.jwt {
        let issuer = &raw.get_ref().issuer;
        if let Some(first) = lines.insert(issuer.get_ref().clone(), draft.line(issuer)) {
            draft.report(
                issuer,
                format!(
                    "the issuer `{}` is on line {first} already",
                    issuer.get_ref()
                ),
                "keep one section for each issuer; `audience` and `algorithms` take lists",
            );
        }
        jwt.extend(convert_issuer(draft, raw));
    }
    let introspection = introspection::convert(draft, &raw.introspection);
    Identity { jwt, introspection }
}

fn convert_issuer(draft: &mut Draft<'_>, raw: &Spanned<RawJwtIssuer>) -> Option<JwtIssuer> {
    let keys = keys::source(draft, raw);
    let raw = raw.get_ref();
    let source = keys.as_ref().map(|(source, _)| source);
    let algorithms = algorithms(draft, &raw.algorithms, source);
    let issuer = exact(draft, "issuer", &raw.issuer);
    let audience = audience(draft, &raw.audience);
    let leeway = draft.duration_or("leeway", raw.leeway.as_ref(), Zero::Allowed, DEFAULT_LEEWAY);
    let (keys, line) = keys?;
    let path = keys.path().map(Path::to_owned);
    let issuer = JwtIssuer {
        issuer: issuer?,
        audience: audience?,
        keys,
        algorithms: algorithms?,
        certificate_bound: raw.certificate_bound.unwrap_or(false),
        leeway,
    };
    if let Some(path) = path {
        draft.refer(line, Content::Keys(Box::new(issuer.clone())), &path);
    }
    Some(issuer)
}

/// A string that is compared byte by byte.
fn exact(draft: &mut Draft<'_>, key: &str, value: &Spanned<String>) -> Option<String> {
    let text = value.get_ref();
    if text.is_empty() || text.trim() != text || text.contains(char::is_control) {
        draft.report(
            value,
            format!("`{key}` is empty or has blanks around it"),
            format!("write `{key}` exactly as it stands in the tokens"),
        );
        return None;
    }
    Some(text.clone())
}

fn audience(draft: &mut Draft<'_>, value: &Spanned<OneOrMany>) -> Option<Vec<String>> {
    let OneOrMany(audience) = value.get_ref();
    if audience.is_empty() || audience.iter().any(|one| one.trim().is_empty()) {
        draft.report(
            value,
            "`audience` is empty: a token for any service would do",
            "write what `aud` holds in tokens for this service, such as `audience = \"api\"`",
        );
        return None;
    }
    Some(audience.clone())
}

/// The algorithms, if each can only be used with keys of the kind that the source has: a public
/// key can then never be taken for a secret.
fn algorithms(
    draft: &mut Draft<'_>,
    value: &Spanned<Vec<Spanned<String>>>,
    keys: Option<&KeySource>,
) -> Option<Vec<Algorithm>> {
    let fitting: &[&str] = match keys {
        Some(KeySource::SecretFile(_)) => &SYMMETRIC,
        Some(_) => &ASYMMETRIC,
        None => &[],
    };
    if value.get_ref().is_empty() {
        let first = fitting.first().unwrap_or(&"RS256");
        draft.report(
            value,
            "`algorithms` is empty: no token would do",
            format!("write those that the issuer signs with, such as `algorithms = [\"{first}\"]`"),
        );
        return None;
    }
    let parsed: Vec<_> = value
        .get_ref()
        .iter()
        .filter_map(|name| algorithm(draft, name, keys, fitting))
        .collect();
    (parsed.len() == value.get_ref().len()).then_some(parsed)
}

fn algorithm(
    draft: &mut Draft<'_>,
    name: &Spanned<String>,
    keys: Option<&KeySource>,
    fitting: &[&str],
) -> Option<Algorithm> {
    let text = name.get_ref().as_str();
    if text.eq_ignore_ascii_case("none") {
        draft.report(
            name,
            "the algorithm `none` would accept tokens that nobody signed",
            "write the algorithm that the issuer signs with, such as \"RS256\"",
        );
        return None;
    }
    let Ok(algorithm) = Algorithm::from_str(text) else {
        let known = ASYMMETRIC.into_iter().chain(SYMMETRIC);
        let help = match did_you_mean(&text.to_ascii_uppercase(), known.clone()) {
            Some(candidate) => format!("did you mean \"{candidate}\"?"),
            None => format!("write one of {}", known.collect::<Vec<_>>().join(", ")),
        };
        draft.report(name, format!("unknown algorithm `{text}`"), help);
        return None;
    };
    let fits = |source: &KeySource| {
        let secret = matches!(source, KeySource::SecretFile(_));
        secret == (algorithm.family() == AlgorithmFamily::Hmac)
    };
    match keys {
        Some(source) if !fits(source) => {
            draft.report(
                name,
                format!("`{text}` does not work with `{}`", source.key()),
                format!("write one of {}", fitting.join(", ")),
            );
            None
        }
        _ => Some(algorithm),
    }
}
