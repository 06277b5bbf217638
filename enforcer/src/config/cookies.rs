//! `token_cookie` and `allowed_origins` of listeners.

use toml::Spanned;

use super::{Protocol, TokenCookie, draft::Draft, raw::RawListener};

/// The cookie that tokens may come in.
pub(super) fn convert(
    draft: &mut Draft<'_>,
    raw: &RawListener,
    protocol: &Protocol,
) -> Option<TokenCookie> {
    let origins = raw.allowed_origins.as_ref();
    let Some(name) = &raw.token_cookie else {
        if let Some(origins) = origins {
            draft.report(
                origins,
                "`allowed_origins` has no effect without `token_cookie`",
                "add `token_cookie`, or remove it",
            );
        }
        return None;
    };
    if *protocol != Protocol::Http {
        draft.report(
            name,
            "`token_cookie` has an effect on HTTP listeners only",
            "remove it, or write `protocol = \"http\"`",
        );
    }
    if !is_token(name.get_ref()) {
        let what = format!(
            "`{}` is not the name of a cookie",
            name.get_ref().escape_debug()
        );
        let help = "write a name without spaces and separators, such as \"__Host-token\"";
        draft.report(name, what, help);
    }
    let origins = origins.into_iter().flat_map(|origins| origins.get_ref());
    Some(TokenCookie {
        name: name.get_ref().clone(),
        origins: origins.filter_map(|text| allowed(draft, text)).collect(),
    })
}

fn allowed(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<String> {
    let origin = origin(value.get_ref());
    if origin.is_none() {
        draft.report(
            value,
            format!("`{}` is not an origin", value.get_ref().escape_debug()),
            "write scheme and host, and the port if it is not the scheme's own, such as \
             \"https://app.example\"",
        );
    }
    origin
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// The origin as browsers write it (RFC 6454, section 6.2).
fn origin(text: &str) -> Option<String> {
    let uri: http::Uri = text.parse().ok()?;
    let scheme = uri
        .scheme_str()
        .filter(|it| matches!(*it, "https" | "http"))?;
    let authority = uri.authority()?;
    let bare = uri.path_and_query().is_none_or(|path| path == "/") && !text.ends_with('/');
    if !bare || authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    Some(match authority.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        for (text, wanted) in [
            ("https://App.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(origin(text).as_deref(), Some(wanted));
        }
        for text in [
            "app.example",
            "https://a/",
            "https://a/x",
            "ftp://a",
            "null",
            "*",
            "https://a@b",
            "",
        ] {
            assert_eq!(origin(text), None, "{text}");
        }
    }
}
