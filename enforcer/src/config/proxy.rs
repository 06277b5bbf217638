//! `proxy_protocol`, of listeners and of routes.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use super::{ProxyVersion, UpstreamPool, draft::Draft, raw::RawProxies};

/// The networks of the proxies in front of a listener.
pub(super) fn networks(draft: &mut Draft<'_>, raw: Option<&RawProxies>) -> Vec<IpNet> {
    let Some(RawProxies { from }) = raw else {
        return Vec::new();
    };
    if from.get_ref().is_empty() {
        draft.report(
            from,
            "`from` is empty: no connection would have a PROXY protocol header",
            "write the networks of the proxies such as `from = [\"10.0.0.0/8\"]`, or remove \
             `proxy_protocol`",
        );
    }
    let networks = from.get_ref().iter();
    networks.filter_map(|text| network(draft, text)).collect()
}

pub(super) fn network(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<IpNet> {
    let text = value.get_ref();
    let parsed = text.parse::<IpNet>().ok();
    let Some(network) = parsed.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) else {
        draft.report(
            value,
            format!("`{}` is not a network", text.escape_debug()),
            "write an address and the length of its prefix such as \"10.0.0.0/8\", or an address",
        );
        return None;
    };
    if network != network.trunc() {
        draft.report(
            value,
            format!("the network `{network}` has bits beyond its prefix"),
            format!("write `{}`", network.trunc()),
        );
        return None;
    }
    Some(network)
}

/// The version that a route announces its clients in, on connections that are one session's own.
pub(super) fn version(
    draft: &mut Draft<'_>,
    value: Option<&Spanned<String>>,
    pool: UpstreamPool,
) -> Option<ProxyVersion> {
    let value = value?;
    if pool == UpstreamPool::Shared {
        draft.report(
            value,
            "`proxy_protocol` would announce one client on connections that all of them share",
            "add `upstream_pool = \"session\"`, or remove it",
        );
    }
    let versions = [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
    Some(draft.word("proxy_protocol", Some(value), versions))
}
