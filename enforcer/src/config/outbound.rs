//! `outbound = { .. }`: how the gateway asks something of others, and the URLs that it asks at.

use std::time::Duration;

use http::Uri;
use rustls::pki_types::ServerName;
use toml::Spanned;

use super::{Outbound, draft::Draft, duration::Zero, files::Content, proxy, raw::RawOutbound};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HTTPS: &str = "is not an `https://` URL: what it answers could be anybody's";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Outbound {
    fn default() -> Self {
        Self {
            ca: None,
            client_certificate: None,
            allow_networks: Vec::new(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// How things are asked, as a section says or by default.
pub(super) fn convert(draft: &mut Draft<'_>, section: Option<&Spanned<RawOutbound>>) -> Outbound {
    let Some(section) = section else {
        return Outbound::default();
    };
    let raw = section.get_ref();
    let (certificate, private_key) = (raw.certificate.as_ref(), raw.private_key.as_ref());
    let connect = raw.connect_timeout.as_ref();
    Outbound {
        ca: raw.ca.as_ref().map(|path| draft.file(path, Content::Roots)),
        client_certificate: draft.client_certificate(section, certificate, private_key),
        allow_networks: raw
            .allow_networks
            .iter()
            .filter_map(|text| proxy::network(draft, text))
            .collect(),
        connect_timeout: draft.duration_or(
            "connect_timeout",
            connect,
            Zero::Refused,
            DEFAULT_CONNECT_TIMEOUT,
        ),
        timeout: draft.duration_or(
            "timeout",
            raw.timeout.as_ref(),
            Zero::Refused,
            DEFAULT_TIMEOUT,
        ),
    }
}

/// The `https://` URL of `key`.
pub(super) fn url(draft: &mut Draft<'_>, key: &str, value: &Spanned<String>) -> Option<Uri> {
    match parse(value.get_ref()) {
        Ok(url) => Some(url),
        Err(fault) => {
            draft.report(
                value,
                format!("`{key}` {fault}"),
                format!("write `{key} = \"https://host/path\"`"),
            );
            None
        }
    }
}

/// What can be asked at: `https`, a host that a certificate can be verified for, no user name.
pub(crate) fn parse(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "is not a URL")?;
    if url.scheme_str() != Some("https") {
        return Err(HTTPS);
    }
    if text.contains('#') {
        return Err("has a fragment, which is never sent");
    }
    let authority = url.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user name in it");
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if ServerName::try_from(bare.unwrap_or(host)).is_err() {
        return Err("has no valid host");
    }
    if authority.as_str().len() > host.len() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("has no valid port");
    }
    Ok(url)
}

/// The same, or `http://` for what is sent to a place that is trusted anyhow.
pub(super) fn parse_plain(text: &str) -> Result<Uri, &'static str> {
    let Some(rest) = text.strip_prefix("http://") else {
        return parse(text).map_err(|fault| match fault {
            HTTPS => "is not an `http://` or `https://` URL",
            fault => fault,
        });
    };
    parse(&format!("https://{rest}"))?;
    text.parse().map_err(|_| "is not a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_trusted_is_asked_in_the_clear() {
        assert!(parse_plain("http://collector:4318").is_ok());
        assert!(parse_plain("https://collector:4318/v1/traces").is_ok());
        for bad in ["collector:4318", "http://", "ftp://collector", "http://a@b"] {
            assert!(parse_plain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_can_be_verified_is_asked_at() {
        for good in [
            "https://idp.example",
            "https://idp.example:8443/keys?v=1",
            "https://192.0.2.1/",
            "https://[2001:db8::1]:8443/",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "URL"),
            ("/keys", "https"),
            ("idp.example", "https"),
            ("http://idp.example", "https"),
            ("ftp://idp.example", "https"),
            ("https://", "URL"),
            ("https:///keys", "URL"),
            ("https://me:secret@idp.example", "user name"),
            ("https://idp.example/#x", "fragment"),
            ("https://-/", "host"),
            ("https://idp.example:0/", "port"),
            ("https://idp.example:/", "port"),
            ("https://idp.example:99999/", "port"),
        ] {
            let fault = parse(bad).unwrap_err();
            assert!(fault.contains(why), "{bad}: {fault}");
        }
    }
}
