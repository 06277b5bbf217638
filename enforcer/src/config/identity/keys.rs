//! Where the keys of a token issuer are.

use std::{path::PathBuf, time::Duration};

use toml::Spanned;

use crate::config::{
    KeyLocation, KeySource, PublishedKeys, draft::Draft, duration::Zero, outbound,
    raw::RawJwtIssuer,
};

const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
const DEFAULT_STALE_TTL: Duration = Duration::from_secs(60 * 60);

const SOURCES: &str =
    "one of `discovery = true`, `jwks_url`, `jwks_file`, `public_key_file` and `secret_file`";

/// What the file may say of the keys, one of which it must.
enum Written<'a> {
    File(fn(PathBuf) -> KeySource, &'a Spanned<PathBuf>),
    Url(&'a Spanned<String>),
    Discovery(&'a Spanned<bool>),
}

/// The one source of keys, and the line that names it.
pub(super) fn source(
    draft: &mut Draft<'_>,
    raw: &Spanned<RawJwtIssuer>,
) -> Option<(KeySource, usize)> {
    let issuer = raw.get_ref();
    let discovery = issuer.discovery.as_ref().filter(|wanted| *wanted.get_ref());
    let file = |source: fn(PathBuf) -> KeySource, path| Written::File(source, path);
    let mut written = [
        (issuer.jwks_file.as_ref()).map(|path| file(KeySource::JwksFile, path)),
        (issuer.public_key_file.as_ref()).map(|path| file(KeySource::PublicKeyFile, path)),
        (issuer.secret_file.as_ref()).map(|path| file(KeySource::SecretFile, path)),
        issuer.jwks_url.as_ref().map(Written::Url),
        discovery.map(Written::Discovery),
    ]
    .into_iter()
    .flatten();
    let Some(first) = written.next() else {
        draft.report(raw, "the issuer has no keys", format!("add {SOURCES}"));
        return None;
    };
    if written.next().is_some() {
        let what = "the issuer has more than one source of keys";
        draft.report(raw, what, format!("keep {SOURCES}"));
        return None;
    }
    let (location, line) = match first {
        Written::File(source, path) => {
            report_publishing(draft, issuer);
            return Some((source(draft.resolve(path.get_ref())), draft.line(path)));
        }
        Written::Url(url) => {
            let location = outbound::url(draft, "jwks_url", url).map(KeyLocation::Jwks);
            (location, draft.line(url))
        }
        Written::Discovery(value) => (discovery_location(draft, issuer), draft.line(value)),
    };
    let published = published(draft, issuer, location?);
    Some((KeySource::Published(Box::new(published)), line))
}

/// Where an issuer says what it is: below its own name (OpenID Connect Discovery, section 4).
fn discovery_location(draft: &mut Draft<'_>, raw: &RawJwtIssuer) -> Option<KeyLocation> {
    let issuer = raw.issuer.get_ref();
    let document = issuer.trim_end_matches('/').to_owned() + "/.well-known/openid-configuration";
    let url = match outbound::parse(&document) {
        Ok(url) if !issuer.contains(['?', '#']) => url,
        Ok(_) => return report_undiscoverable(draft, raw, "has a query or a fragment"),
        Err(fault) => return report_undiscoverable(draft, raw, fault),
    };
    Some(KeyLocation::Discovery(url))
}

fn report_undiscoverable(
    draft: &mut Draft<'_>,
    raw: &RawJwtIssuer,
    fault: &str,
) -> Option<KeyLocation> {
    let issuer = raw.issuer.get_ref();
    draft.report(
        &raw.issuer,
        format!("the issuer `{issuer}` cannot be discovered: it {fault}"),
        "write `jwks_url` instead of `discovery`, or the issuer's `https://` URL in `issuer`",
    );
    None
}

fn published(draft: &mut Draft<'_>, raw: &RawJwtIssuer, location: KeyLocation) -> PublishedKeys {
    let (interval, ttl) = (raw.refresh_interval.as_ref(), raw.stale_ttl.as_ref());
    PublishedKeys {
        location,
        refresh_interval: draft.duration_or(
            "refresh_interval",
            interval,
            Zero::Refused,
            DEFAULT_REFRESH_INTERVAL,
        ),
        stale_ttl: draft.duration_or("stale_ttl", ttl, Zero::Allowed, DEFAULT_STALE_TTL),
        outbound: outbound::convert(draft, raw.outbound.as_ref()),
    }
}

/// A file is read once.
fn report_publishing(draft: &mut Draft<'_>, raw: &RawJwtIssuer) {
    fn refuse<T>(draft: &mut Draft<'_>, key: &str, value: Option<&Spanned<T>>) {
        if let Some(value) = value {
            draft.report(
                value,
                format!("`{key}` has no effect: the keys are in a file"),
                "remove it, or write `jwks_url` or `discovery = true` in place of the file",
            );
        }
    }
    refuse(draft, "refresh_interval", raw.refresh_interval.as_ref());
    refuse(draft, "stale_ttl", raw.stale_ttl.as_ref());
    refuse(draft, "outbound", raw.outbound.as_ref());
}
