//! `[[identity.introspection]]`.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use super::{DEFAULT_LEEWAY, audience, exact};
use crate::config::{
    ClientProof, Introspection, IntrospectionClient, Outbound,
    draft::Draft,
    duration::{RawDuration, Zero},
    files::Content,
    outbound,
    raw::RawIntrospection,
};

const DEFAULT_ACTIVE_TTL: Duration = Duration::from_secs(30);
const DEFAULT_INACTIVE_TTL: Duration = Duration::from_secs(10);
const DEFAULT_STALE_TTL: Duration = Duration::from_secs(60);
const DEFAULT_RECHECK_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 60);

pub(super) fn convert(
    draft: &mut Draft<'_>,
    sections: &[Spanned<RawIntrospection>],
) -> Vec<Introspection> {
    let (mut issuers, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
    let mut converted = Vec::new();
    for section in sections {
        let raw = section.get_ref();
        let issuer = raw.issuer.get_ref();
        if let Some(first) = issuers.insert(issuer.clone(), draft.line(section)) {
            draft.report(
                &raw.issuer,
                format!("the issuer `{issuer}` has a section on line {first} already"),
                "keep one section for each issuer",
            );
        }
        let prefix = raw.token_prefix.as_ref().map(|prefix| prefix.get_ref());
        if let Some(first) = prefixes.insert(prefix.cloned(), draft.line(section)) {
            draft.report(
                section,
                format!("opaque tokens of this section look like those of the one on line {first}"),
                "tell them apart with `token_prefix`: a token is never shown to another issuer",
            );
        }
        converted.extend(convert_section(draft, section));
    }
    converted
}

fn convert_section(
    draft: &mut Draft<'_>,
    section: &Spanned<RawIntrospection>,
) -> Option<Introspection> {
    let raw = section.get_ref();
    let issuer = exact(draft, "issuer", &raw.issuer);
    let endpoint = outbound::url(draft, "endpoint", &raw.endpoint);
    let listed = raw.audience.as_ref();
    let audience = listed.map_or(Some(Vec::new()), |value| audience(draft, value));
    let token_prefix = prefix(draft, raw.token_prefix.as_ref());
    let outbound = outbound::convert(draft, raw.outbound.as_ref());
    let client = client(draft, section, &outbound);
    let mut duration = |key, value: &Option<Spanned<RawDuration>>, zero, default| {
        draft.duration_or(key, value.as_ref(), zero, default)
    };
    use Zero::{Allowed, Refused};
    Some(Introspection {
        active_ttl: duration("active_ttl", &raw.active_ttl, Allowed, DEFAULT_ACTIVE_TTL),
        inactive_ttl: duration(
            "inactive_ttl",
            &raw.inactive_ttl,
            Allowed,
            DEFAULT_INACTIVE_TTL,
        ),
        stale_ttl: duration("stale_ttl", &raw.stale_ttl, Allowed, DEFAULT_STALE_TTL),
        recheck_interval: duration(
            "recheck_interval",
            &raw.recheck_interval,
            Refused,
            DEFAULT_RECHECK_INTERVAL,
        ),
        default_token_lifetime: duration(
            "default_token_lifetime",
            &raw.default_token_lifetime,
            Refused,
            DEFAULT_TOKEN_LIFETIME,
        ),
        certificate_bound: raw.certificate_bound.unwrap_or(false),
        leeway: duration("leeway", &raw.leeway, Allowed, DEFAULT_LEEWAY),
        issuer: issuer?,
        endpoint: endpoint?,
        audience: audience?,
        token_prefix: token_prefix?,
        client: client?,
        outbound,
    })
}

/// What a token can start with (RFC 6750, section 2.1).
fn prefix(draft: &mut Draft<'_>, value: Option<&Spanned<String>>) -> Option<String> {
    let Some(value) = value else {
        return Some(String::new());
    };
    let text = value.get_ref();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    if text.is_empty() || !text.bytes().all(fits) {
        draft.report(
            value,
            format!("`{}` is no beginning of a token", text.escape_debug()),
            "write what the issuer's opaque tokens start with, such as `token_prefix = \"at_\"`",
        );
        return None;
    }
    Some(text.clone())
}

fn client(
    draft: &mut Draft<'_>,
    section: &Spanned<RawIntrospection>,
    outbound: &Outbound,
) -> Option<IntrospectionClient> {
    #[derive(Clone, Copy, PartialEq)]
    enum Method {
        Basic,
        Post,
        Tls,
    }
    let raw = section.get_ref();
    let method = draft.word(
        "client_authentication",
        raw.client_authentication.as_ref(),
        [
            ("client_secret_basic", Method::Basic),
            ("client_secret_post", Method::Post),
            ("tls_client_auth", Method::Tls),
        ],
    );
    let id = exact(draft, "client_id", &raw.client_id);
    let proof = match (method, &raw.client_secret_file) {
        (Method::Tls, None) if outbound.client_certificate.is_some() => ClientProof::Tls,
        (Method::Tls, None) => {
            draft.report(
                section,
                "`tls_client_auth` needs a certificate to show",
                "add `outbound = { certificate = \"client.pem\", private_key = \"client.key\" }`",
            );
            return None;
        }
        (Method::Tls, Some(file)) => {
            draft.report(
                file,
                "`tls_client_auth` needs no secret",
                "remove `client_secret_file`, or write another `client_authentication`",
            );
            return None;
        }
        (_, None) => {
            draft.report(
                section,
                "the client has no secret to show",
                "add `client_secret_file`, or `client_authentication = \"tls_client_auth\"`",
            );
            return None;
        }
        (method, Some(file)) => {
            let path = draft.file(file, Content::ClientSecret);
            match method {
                Method::Post => ClientProof::SecretPost(path),
                Method::Basic | Method::Tls => ClientProof::SecretBasic(path),
            }
        }
    };
    Some(IntrospectionClient { id: id?, proof })
}
