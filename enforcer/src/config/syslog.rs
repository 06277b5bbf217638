//! `syslog` of an export: a socket of this machine, or a receiver on a network.

use std::path::Path;

use http::Uri;
use toml::Spanned;

use super::{Export, SyslogReceiver, SyslogTransport, draft::Draft, outbound, raw::RawOutbound};

/// RFC 5425 and RFC 5426. Octet counting over TCP has no port of its own.
const TLS_PORT: u16 = 6514;
const UDP_PORT: u16 = 514;

pub(super) fn convert(
    draft: &mut Draft<'_>,
    place: &Spanned<String>,
    section: Option<&Spanned<RawOutbound>>,
) -> Option<Export> {
    let text = place.get_ref();
    if !text.contains("://") {
        return Some(Export::Syslog(draft.resolve(Path::new(text))));
    }
    let (transport, host, port) = match parse(text) {
        Ok(receiver) => receiver,
        Err(fault) => {
            draft.report(
                place,
                format!("`syslog` {fault}"),
                "write `syslog = \"tls://host:6514\"`, or `tcp://` or `udp://` with host and port, \
                 or a path",
            );
            return None;
        }
    };
    let outbound = outbound::convert(draft, section);
    if transport != SyslogTransport::Tls
        && let Some(section) = section
        && (outbound.ca.is_some() || outbound.client_certificate.is_some())
    {
        draft.report(
            section,
            "`ca`, `certificate` and `private_key` are for TLS",
            "write `syslog = \"tls://..\"`, or remove them",
        );
    }
    Some(Export::SyslogNetwork(SyslogReceiver {
        transport,
        host,
        port,
        outbound,
    }))
}

fn parse(text: &str) -> Result<(SyslogTransport, String, u16), &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("is not a URL")?;
    let (transport, default) = match scheme {
        "tls" => (SyslogTransport::Tls, Some(TLS_PORT)),
        "tcp" => (SyslogTransport::Tcp, None),
        "udp" => (SyslogTransport::Udp, Some(UDP_PORT)),
        _ => return Err("is not a `tls://`, `tcp://` or `udp://` URL"),
    };
    let url: Uri = outbound::parse(&format!("https://{rest}"))?;
    if url.path() != "/" || url.query().is_some() {
        return Err("has a path, which syslog knows nothing of");
    }
    let host = url.host().ok_or("has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().or(default).ok_or("has no port")?;
    Ok((transport, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_has_a_transport_a_host_and_a_port() {
        for (text, transport, host, port) in [
            (
                "tls://logs.example",
                SyslogTransport::Tls,
                "logs.example",
                6514,
            ),
            (
                "tls://logs.example:1",
                SyslogTransport::Tls,
                "logs.example",
                1,
            ),
            (
                "tcp://192.0.2.1:601/",
                SyslogTransport::Tcp,
                "192.0.2.1",
                601,
            ),
            (
                "udp://[2001:db8::1]",
                SyslogTransport::Udp,
                "2001:db8::1",
                514,
            ),
        ] {
            assert_eq!(
                parse(text),
                Ok((transport, host.to_owned(), port)),
                "{text}"
            );
        }
        for (text, why) in [
            ("tcp://logs.example", "no port"),
            ("tcp://logs.example:0", "port"),
            ("https://logs.example", "`tls://`"),
            ("tls://", "URL"),
            ("tls://me@logs.example", "user name"),
            ("tls://logs.example/x", "path"),
            ("udp://logs.example?x", "path"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(why), "{text}: {fault}");
        }
    }
}
