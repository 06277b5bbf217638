//! `[[routes]]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rustls::pki_types::ServerName;
use toml::Spanned;

mod policies;

pub(super) use self::policies::Attached;
use super::{
    Listener, Protocol, Route, TunnelRoute, Upstream, UpstreamPool, UpstreamTls,
    draft::Draft,
    duration::Zero,
    files::Content,
    postgres, proxy,
    raw::{RawRoute, RawUpstreamTls},
    tunnels,
    upstream::{self, Carried},
};

use crate::policy::Policy;

pub(super) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The names that routes may refer to, each with the line of its section.
#[derive(Debug)]
pub(super) struct Names<'a> {
    pub(super) listeners: BTreeMap<&'a str, &'a Spanned<String>>,
    pub(super) policies: BTreeSet<&'a str>,
}

pub(super) fn convert(
    draft: &mut Draft<'_>,
    raw: Vec<Spanned<RawRoute>>,
    names: &Names<'_>,
    listeners: &BTreeMap<String, Listener>,
    policies: &BTreeMap<String, Policy>,
) -> (Vec<Route>, Vec<TunnelRoute>) {
    if raw.is_empty() {
        draft.report_file(
            "there is no route",
            "add a section `[[routes]]` with `listener`, `upstream` and `policy`",
        );
    } else {
        report_unused_listeners(draft, &raw, names);
    }
    let known = names.listeners.keys().copied().collect();
    let mut lines = BTreeMap::new();
    let mut routes = Vec::new();
    let mut targets = tunnels::Seen::new();
    let mut tunnels = Vec::new();
    for raw in raw {
        let listener = listeners.get(raw.get_ref().listener.get_ref());
        let protocol = listener.map(|listener| &listener.protocol);
        let attached = policies::convert(draft, &raw, &names.policies);
        if listener.is_some_and(|listener| !listener.takes_tokens()) {
            policies::report_token_requirements(draft, &raw, &attached, policies);
        }
        if is_tunnel(draft, raw.get_ref()) {
            postgres::report_settings(draft, raw.get_ref());
            let carries_http = protocol.map(|protocol| *protocol == Protocol::Http);
            tunnels.extend(tunnels::convert(
                draft,
                &raw,
                names,
                attached,
                carries_http,
                &mut targets,
            ));
            continue;
        }
        let Some(route) = convert_route(draft, &raw, listener, &known, attached) else {
            continue;
        };
        let what = (
            route.listener.clone(),
            route.host.clone(),
            route.path.clone(),
        );
        if let Some(first) = lines.insert(what, draft.line(&raw)) {
            let (why, help) = match protocol.map(Protocol::carries) {
                Some(other @ (Carried::Bytes | Carried::Postgres)) => (
                    format!("{} has one route", other.listener()),
                    "remove one of the two, or add another listener for it",
                ),
                _ => (
                    "same listener, host and path".to_owned(),
                    "remove one of the two, or give them different hosts or paths",
                ),
            };
            let what = format!("the route collides with the one on line {first}: {why}");
            draft.report(&raw, what, help);
        }
        routes.push(route);
    }
    (routes, tunnels)
}

fn is_tunnel(draft: &mut Draft<'_>, raw: &RawRoute) -> bool {
    let words = [("http", false), ("tunnel", true)];
    let tunnel = draft.word("protocol", raw.protocol.as_ref(), words);
    let Some(targets) = raw.targets.as_ref().filter(|_| !tunnel) else {
        return tunnel;
    };
    let word = raw.protocol.as_ref().map(|word| word.get_ref().as_str());
    if matches!(word, None | Some("http")) {
        draft.report(
            targets,
            "`targets` has an effect on tunnels only",
            "add `protocol = \"tunnel\"`, or remove it",
        );
    }
    // What was meant is plain without an upstream.
    raw.upstream.is_none()
}

fn report_unused_listeners(draft: &mut Draft<'_>, raw: &[Spanned<RawRoute>], names: &Names<'_>) {
    let used: BTreeSet<_> = raw
        .iter()
        .map(|route| route.get_ref().listener.get_ref().as_str())
        .collect();
    for (name, at) in &names.listeners {
        if !used.contains(name) {
            draft.report(
                at,
                format!("no route starts at the listener `{name}`"),
                format!("add a section `[[routes]]` with `listener = \"{name}\"`, or remove it"),
            );
        }
    }
}

fn convert_route(
    draft: &mut Draft<'_>,
    route: &Spanned<RawRoute>,
    from: Option<&Listener>,
    listeners: &BTreeSet<&str>,
    attached: Attached,
) -> Option<Route> {
    let raw = route.get_ref();
    let carried = from.map(|listener| listener.protocol.carries());
    if let Some(other) = carried.filter(|carried| *carried != Carried::Http) {
        report_http_settings(draft, raw, other);
    }
    let postgres = postgres::route(draft, raw, from);
    let listener = draft.reference("listener", &raw.listener, listeners);
    let host = raw.host.as_ref().map(|value| host(draft, value));
    let path = match &raw.path {
        Some(value) => path(draft, value),
        None => Some("/".to_owned()),
    };
    let upstream = match &raw.upstream {
        Some(url) => convert_upstream(draft, url, raw.upstream_tls.as_ref(), carried),
        None => {
            let help = "add `upstream = \"http://127.0.0.1:9000\"`";
            draft.report(route, "key `upstream` is missing", help);
            None
        }
    };
    let pools = [
        ("shared", UpstreamPool::Shared),
        ("session", UpstreamPool::Session),
    ];
    let upstream_pool = draft.word("upstream_pool", raw.upstream_pool.as_ref(), pools);
    // Only requests can share an upstream connection.
    let sharing = match carried {
        Some(Carried::Bytes | Carried::Postgres) => UpstreamPool::Session,
        _ => upstream_pool,
    };
    let proxy_protocol = proxy::version(draft, raw.proxy_protocol.as_ref(), sharing);
    let connect_timeout = draft.duration_or(
        "connect_timeout",
        raw.connect_timeout.as_ref(),
        Zero::Refused,
        DEFAULT_CONNECT_TIMEOUT,
    );
    let response_timeout = draft.duration_or(
        "response_timeout",
        raw.response_timeout.as_ref(),
        Zero::Refused,
        DEFAULT_RESPONSE_TIMEOUT,
    );
    Some(Route {
        listener: listener?,
        host: match host {
            Some(host) => Some(host?),
            None => None,
        },
        path: path?,
        upstream: upstream?,
        policies: attached.policies,
        require: attached.require,
        forward_token: raw.forward_token.as_ref().is_some_and(|it| *it.get_ref()),
        assertion_audience: raw
            .assertion_audience
            .as_ref()
            .map(|audience| audience.get_ref().clone()),
        postgres,
        upstream_pool: sharing,
        proxy_protocol,
        connect_timeout,
        response_timeout,
    })
}

/// What only requests have is nothing that another listener could heed.
fn report_http_settings(draft: &mut Draft<'_>, raw: &RawRoute, carried: Carried) {
    fn refuse<T>(draft: &mut Draft<'_>, on: Carried, key: &str, value: Option<&Spanned<T>>) {
        if let Some(value) = value {
            let listener = on.listener();
            draft.report(
                value,
                format!("`{key}` has no effect on {listener}: nothing there has requests"),
                "remove it, or lead the route from an HTTP listener",
            );
        }
    }
    refuse(draft, carried, "protocol", raw.protocol.as_ref());
    refuse(draft, carried, "host", raw.host.as_ref());
    refuse(draft, carried, "path", raw.path.as_ref());
    refuse(draft, carried, "forward_token", raw.forward_token.as_ref());
    refuse(
        draft,
        carried,
        "assertion_audience",
        raw.assertion_audience.as_ref(),
    );
    refuse(draft, carried, "upstream_pool", raw.upstream_pool.as_ref());
    refuse(
        draft,
        carried,
        "response_timeout",
        raw.response_timeout.as_ref(),
    );
}

/// A host as it stands in a request, without port: a name in lower case without a final dot, an
/// IPv4 address, or an IPv6 address in brackets.
fn host(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<String> {
    let text = value.get_ref();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| inner.contains(':'))
        .unwrap_or(text);
    match ServerName::try_from(bare.strip_suffix('.').unwrap_or(bare)) {
        Ok(ServerName::DnsName(name)) => Some(name.as_ref().to_ascii_lowercase()),
        Ok(ServerName::IpAddress(address)) => Some(match address.into() {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        }),
        _ => {
            draft.report(
                value,
                format!("`{}` is not a host", text.escape_debug()),
                "write a name or an address without scheme, port and wildcard, such as \
                 \"api.example.com\"; without `host` the route takes every host",
            );
            None
        }
    }
}

/// A path prefix without a final slash.
fn path(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<String> {
    let text = value.get_ref().as_str();
    let fault = path_fault(text);
    if let Some((what, help)) = fault {
        let what = format!("the path `{}` {what}", text.escape_debug());
        draft.report(value, what, help);
        return None;
    }
    let trimmed = text.trim_end_matches('/');
    Some(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

fn path_fault(path: &str) -> Option<(&'static str, String)> {
    if !path.starts_with('/') {
        return Some(("does not start with `/`", format!("write `/{path}`")));
    }
    if let Some(end) = path.find(['?', '#']) {
        return Some((
            "has a query or a fragment, which routes don't look at",
            format!("write `{}`", &path[..end]),
        ));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some((
            "has a segment `.` or `..`, which no request has once it is normalized",
            "write the path that they lead to".to_owned(),
        ));
    }
    if path.contains("//") {
        return Some(("has an empty segment", "write single slashes".to_owned()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&b);
    if !path.bytes().all(plain) {
        return Some((
            "has characters that don't stand for themselves in a URL",
            "write a prefix of letters, digits and -._~!$&'()*+,;=:@".to_owned(),
        ));
    }
    None
}

fn convert_upstream(
    draft: &mut Draft<'_>,
    url: &Spanned<String>,
    tls: Option<&Spanned<RawUpstreamTls>>,
    carried: Option<Carried>,
) -> Option<Upstream> {
    let settings = tls.map(|tls| convert_upstream_tls(draft, tls));
    let address = upstream::parse(url.get_ref())
        .map_err(|bad| draft.report(url, bad.what, bad.help))
        .ok()?;
    let scheme = address.scheme;
    if let Some(wanted) = carried.filter(|wanted| *wanted != scheme.carries()) {
        let (fitting, other) = (scheme.counterpart(wanted).name(), scheme.name());
        let listener = wanted.listener();
        draft.report(
            url,
            format!("{listener} cannot lead to an upstream with `{other}://`"),
            format!("write `{fitting}://`, or lead the route from another listener"),
        );
    }
    if let Some(tls) = tls.filter(|_| !scheme.has_tls()) {
        let secure = scheme.secured().name();
        draft.report(
            tls,
            format!(
                "`upstream_tls` has no effect on an `{}://` upstream",
                scheme.name()
            ),
            format!("remove it, or write `{secure}://` in `upstream`"),
        );
    }
    Some(Upstream {
        host: address.host,
        port: address.port,
        version: scheme.version(),
        tls: scheme.has_tls().then(|| UpstreamTls {
            opening: scheme.tls_opening(),
            ..settings.unwrap_or_default()
        }),
    })
}

fn convert_upstream_tls(draft: &mut Draft<'_>, raw: &Spanned<RawUpstreamTls>) -> UpstreamTls {
    let RawUpstreamTls {
        ca,
        certificate,
        private_key,
        server_name,
    } = raw.get_ref();
    let ca = ca.as_ref().map(|path| draft.file(path, Content::Roots));
    let client_certificate =
        draft.client_certificate(raw, certificate.as_ref(), private_key.as_ref());
    if let Some(name) = server_name
        && ServerName::try_from(name.get_ref().as_str()).is_err()
    {
        draft.report(
            name,
            format!("`{}` is not a server name", name.get_ref().escape_debug()),
            "write a name or an address from the upstream's certificate",
        );
    }
    UpstreamTls {
        ca,
        client_certificate,
        server_name: server_name.as_ref().map(|name| name.get_ref().clone()),
        ..UpstreamTls::default()
    }
}
