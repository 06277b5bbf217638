//! Routes with `protocol = "tunnel"`: what CONNECT may reach.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use toml::Spanned;

use super::{
    HostPattern, PortRange, TargetPattern, TunnelRoute, UpstreamPool,
    draft::Draft,
    duration::Zero,
    proxy,
    raw::RawRoute,
    routes::{Attached, DEFAULT_CONNECT_TIMEOUT, Names},
};

/// Lines of the targets that were seen so far, by listener.
pub(super) type Seen = BTreeMap<(String, TargetPattern), usize>;

/// A tunnel route. `carries_http`: whether its listener does, if there is such a listener.
pub(super) fn convert(
    draft: &mut Draft<'_>,
    raw: &Spanned<RawRoute>,
    names: &Names<'_>,
    attached: Attached,
    carries_http: Option<bool>,
    seen: &mut Seen,
) -> Option<TunnelRoute> {
    let route = raw.get_ref();
    report_request_settings(draft, route);
    let listeners = names.listeners.keys().copied().collect();
    let listener = draft.reference("listener", &route.listener, &listeners);
    if carries_http == Some(false) {
        draft.report(
            &route.listener,
            "a tunnel needs an HTTP listener: CONNECT is a request",
            "lead the route from a listener with `protocol = \"http\"`",
        );
    }
    let targets = match &route.targets {
        Some(targets) if !targets.get_ref().is_empty() => targets.get_ref().as_slice(),
        _ => {
            draft.report(
                raw,
                "a tunnel route without `targets` leads nowhere",
                "add the hosts and ports that CONNECT may reach, such as \
                 `targets = [\"db.internal:5432\"]`",
            );
            &[]
        }
    };
    let mut patterns = Vec::new();
    for target in targets {
        let Some(pattern) = pattern(draft, target) else {
            continue;
        };
        let key = (route.listener.get_ref().clone(), pattern.clone());
        if let Some(first) = seen.insert(key, draft.line(target)) {
            draft.report(
                target,
                format!("the target collides with the one on line {first}: same listener"),
                "remove one of the two",
            );
        }
        patterns.push(pattern);
    }
    // A tunnel's connection is never shared.
    let proxy_protocol =
        proxy::version(draft, route.proxy_protocol.as_ref(), UpstreamPool::Session);
    let connect_timeout: Duration = draft.duration_or(
        "connect_timeout",
        route.connect_timeout.as_ref(),
        Zero::Refused,
        DEFAULT_CONNECT_TIMEOUT,
    );
    Some(TunnelRoute {
        listener: listener?,
        targets: patterns,
        policies: attached.policies,
        require: attached.require,
        proxy_protocol,
        connect_timeout,
    })
}

/// What a CONNECT has no use for.
fn report_request_settings(draft: &mut Draft<'_>, raw: &RawRoute) {
    fn refuse<T>(draft: &mut Draft<'_>, key: &str, value: Option<&Spanned<T>>) {
        if let Some(value) = value {
            draft.report(
                value,
                format!("`{key}` has no effect on a tunnel: its bytes pass as they are"),
                "remove it, or the line `protocol = \"tunnel\"`",
            );
        }
    }
    refuse(draft, "upstream", raw.upstream.as_ref());
    refuse(draft, "upstream_tls", raw.upstream_tls.as_ref());
    refuse(draft, "host", raw.host.as_ref());
    refuse(draft, "path", raw.path.as_ref());
    refuse(draft, "forward_token", raw.forward_token.as_ref());
    refuse(draft, "assertion_audience", raw.assertion_audience.as_ref());
    refuse(draft, "upstream_pool", raw.upstream_pool.as_ref());
    refuse(draft, "response_timeout", raw.response_timeout.as_ref());
}

fn pattern(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<TargetPattern> {
    parse(value.get_ref())
        .map_err(|(what, help)| {
            let target = value.get_ref().escape_debug();
            draft.report(value, format!("the target `{target}` {what}"), help);
        })
        .ok()
}

/// `HOST:PORT`. The fault: what is wrong with it, and what to write.
fn parse(text: &str) -> Result<TargetPattern, (&'static str, String)> {
    let (host, ports) = split(text).ok_or_else(|| {
        (
            "has no port",
            format!("write the port too, such as `{text}:5432`, or `{text}:*` for all"),
        )
    })?;
    let ports = parse_ports(ports).ok_or((
        "has no valid port",
        "write a port from 1 to 65535, a range such as `5900-5999`, or `*`; an IPv6 address or \
         network stands in brackets"
            .to_owned(),
    ))?;
    let host = parse_host(host)?;
    Ok(TargetPattern { host, ports })
}

/// The host, within brackets or before the last colon, and what stands after it.
fn split(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.rsplit_once(':'),
    }
}

fn parse_ports(text: &str) -> Option<PortRange> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .filter(|port| *port != 0)
    };
    let (first, last) = match text.split_once('-') {
        _ if text == "*" => (1, u16::MAX),
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(PortRange { first, last })
}

fn parse_host(text: &str) -> Result<HostPattern, (&'static str, String)> {
    if text.contains('/') {
        let network: IpNet = text.parse().map_err(|_| {
            (
                "is not a network",
                "write an address and the length of its prefix, such as `10.0.0.0/8:5432`"
                    .to_owned(),
            )
        })?;
        if network != network.trunc() {
            return Err((
                "has bits beyond the prefix of its network",
                format!("write `{}`", network.trunc()),
            ));
        }
        return Ok(HostPattern::Network(network));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(HostPattern::Network(IpNet::from(std::net::IpAddr::V4(
            address,
        ))));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(HostPattern::Network(IpNet::from(std::net::IpAddr::V6(
            address,
        ))));
    }
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(suffix) => (true, suffix),
        None => (false, text),
    };
    match ServerName::try_from(name.strip_suffix('.').unwrap_or(name)) {
        Ok(ServerName::DnsName(name)) => {
            let name = name.as_ref().to_ascii_lowercase();
            Ok(if wildcard {
                HostPattern::Suffix(format!(".{name}"))
            } else {
                HostPattern::Name(name)
            })
        }
        _ => Err((
            "has no valid host",
            "write a name, `*.` and a name for all below it, an address, or a network such as \
             `10.0.0.0/8`; all hosts are `0.0.0.0/0` and `[::/0]`"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn targets_are_names_suffixes_addresses_and_networks_with_ports() {
        let network = |text: &str| HostPattern::Network(text.parse().unwrap());
        for (text, host, ports) in [
            (
                "DB.internal:5432",
                HostPattern::Name("db.internal".to_owned()),
                ports(5432, 5432),
            ),
            (
                "db.internal.:1",
                HostPattern::Name("db.internal".to_owned()),
                ports(1, 1),
            ),
            (
                "*.internal:22-23",
                HostPattern::Suffix(".internal".to_owned()),
                ports(22, 23),
            ),
            (
                "localhost:*",
                HostPattern::Name("localhost".to_owned()),
                ports(1, 65535),
            ),
            ("10.1.2.3:80", network("10.1.2.3/32"), ports(80, 80)),
            ("10.0.0.0/8:5900", network("10.0.0.0/8"), ports(5900, 5900)),
            ("[::1]:22", network("::1/128"), ports(22, 22)),
            ("[fd00::/8]:1-1024", network("fd00::/8"), ports(1, 1024)),
        ] {
            assert_eq!(parse(text), Ok(TargetPattern { host, ports }), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_answered_with_one() {
        for (text, what, help) in [
            ("db.internal", "no port", "`db.internal:5432`"),
            ("[::1]", "no port", "`[::1]:5432`"),
            ("db:0", "no valid port", "1 to 65535"),
            ("db:65536", "no valid port", "1 to 65535"),
            ("db:+1", "no valid port", "1 to 65535"),
            ("db:9-1", "no valid port", "range"),
            ("fd00::/8:x", "no valid port", "brackets"),
            (":22", "no valid host", "name"),
            ("*:22", "no valid host", "`0.0.0.0/0`"),
            ("a*b:22", "no valid host", "`*.`"),
            ("tcp://db:22", "not a network", "10.0.0.0/8"),
            ("10.0.0.1/8:22", "beyond the prefix", "`10.0.0.0/8`"),
            ("10.0.0.0/33:22", "not a network", "10.0.0.0/8"),
        ] {
            let (fault, mend) = parse(text).unwrap_err();
            assert!(fault.contains(what), "{text}: {fault}");
            assert!(mend.contains(help), "{text}: {mend}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_targets_never_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
