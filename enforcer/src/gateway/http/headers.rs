//! What header fields pass, in both directions, and what they say about the session. Pure.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, InvalidHeaderValue},
};

use crate::{
    clock::BootInstant,
    gateway::sessions::SessionState,
    session::{Principal, SessionId},
};

const SUBJECT: HeaderName = HeaderName::from_static("x-enforcer-subject");
const ISSUER: HeaderName = HeaderName::from_static("x-enforcer-issuer");
const ASSERTION: HeaderName = HeaderName::from_static("x-enforcer-assertion");
const SESSION: HeaderName = HeaderName::from_static("x-enforcer-session");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const ALT_SVC: HeaderName = HeaderName::from_static("alt-svc");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const EXPIRES_IN: HeaderName = HeaderName::from_static("session-expires-in");
const IDLE_TIMEOUT: HeaderName = HeaderName::from_static("session-idle-timeout");
const WARNING: HeaderName = HeaderName::from_static("session-warning");

/// What the upstream is told about a request.
#[derive(Clone, Debug)]
pub(crate) struct Provenance<'a> {
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// `Host`, as the client wrote it.
    pub(crate) host: &'a str,
    /// Who.
    pub(crate) principal: &'a Principal,
    /// The session.
    pub(crate) session: SessionId,
    /// `Authorization` passes.
    pub(crate) forward_token: bool,
    /// All of this, signed.
    pub(crate) assertion: Option<HeaderValue>,
}

/// Makes a client's header fields the upstream's.
pub(crate) fn prepare_request(
    headers: &mut HeaderMap,
    provenance: &Provenance<'_>,
) -> Result<(), InvalidHeaderValue> {
    let trailers = lists(headers, &header::TE, "trailers");
    strip_hop_by_hop(headers);
    // Said anew for the next hop: trailers pass through here.
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    // The gateway answers the expectation itself, as soon as it wants the body.
    headers.remove(header::EXPECT);
    if !provenance.forward_token {
        headers.remove(header::AUTHORIZATION);
    }
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| claims_provenance(name))
        .cloned()
        .collect();
    for name in &forged {
        headers.remove(name);
    }

    let host = HeaderValue::try_from(provenance.host)?;
    let ip = provenance.peer.ip().to_canonical();
    let forwarded = format!(
        "for={};host=\"{}\";proto=https",
        forwarded_node(ip),
        provenance.host.replace('\\', "\\\\").replace('"', "\\\""),
    );
    let ip = HeaderValue::try_from(ip.to_string())?;
    headers.insert(header::FORWARDED, HeaderValue::try_from(forwarded)?);
    headers.insert(FORWARDED_FOR, ip.clone());
    headers.insert(REAL_IP, ip);
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(FORWARDED_PORT, HeaderValue::from(provenance.local.port()));
    headers.insert(
        SUBJECT,
        HeaderValue::try_from(encode(&provenance.principal.subject))?,
    );
    headers.insert(
        ISSUER,
        HeaderValue::try_from(encode(&provenance.principal.issuer))?,
    );
    headers.insert(
        SESSION,
        HeaderValue::try_from(provenance.session.to_string())?,
    );
    if let Some(assertion) = &provenance.assertion {
        headers.insert(ASSERTION, assertion.clone());
    }
    headers.insert(header::HOST, host);
    Ok(())
}

/// Makes an upstream's header fields the client's.
pub(crate) fn prepare_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(ALT_SVC);
    for name in [EXPIRES_IN, IDLE_TIMEOUT, WARNING] {
        headers.remove(name);
    }
}

/// Says what is left of the session.
pub(crate) fn announce_session(headers: &mut HeaderMap, state: &SessionState, now: BootInstant) {
    let left = state.view.deadline.saturating_duration_since(now);
    headers.insert(EXPIRES_IN, HeaderValue::from(left.as_secs()));
    if let Some(idle_timeout) = state.view.idle_timeout {
        headers.insert(IDLE_TIMEOUT, HeaderValue::from(idle_timeout.as_secs()));
    }
    if state.is_expiring(now) {
        headers.insert(WARNING, HeaderValue::from_static("expiring"));
    }
}

/// Whether a comma-separated field lists `token`.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    listed(headers, name).any(|listed| listed.eq_ignore_ascii_case(token))
}

/// What a comma-separated field lists.
pub(crate) fn listed<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// RFC 9110, section 7.6.1. `Trailer` stays: it announces end-to-end fields.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = listed(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::try_from(token).ok())
        .collect();
    let always = [
        header::CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ];
    for name in named.iter().chain(&always) {
        headers.remove(name);
    }
}

/// Fields that only the gateway may write. To many upstreams `X_Real_IP` is `X-Real-IP`.
fn claims_provenance(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-")
        || name.starts_with("x-enforcer-")
        || name == "forwarded"
        || name == REAL_IP.as_str()
}

/// `node` of RFC 7239.
fn forwarded_node(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    }
}

/// Percent-encodes whatever is not visible ASCII, and `%`: two names never become one.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::gateway::sessions::tests::{at, view};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    fn prepared(fields: &[(&'static str, &'static str)], peer: &str) -> HeaderMap {
        let mut headers = headers(fields);
        let principal = Principal {
            issuer: "https://idp".to_owned(),
            subject: "j\u{f6}rg %".to_owned(),
        };
        let provenance = Provenance {
            peer: peer.parse().unwrap(),
            local: "10.0.0.1:8443".parse().unwrap(),
            host: "api.example.com:8443",
            principal: &principal,
            session: SessionId::from_u64(0xabc).unwrap(),
            forward_token: false,
            assertion: None,
        };
        prepare_request(&mut headers, &provenance).unwrap();
        headers
    }

    #[test]
    fn a_client_cannot_forge_its_provenance() {
        let headers = prepared(
            &[
                ("host", "api.example.com:8443"),
                ("authorization", "Bearer x"),
                ("forwarded", "for=1.1.1.1"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-user", "root"),
                ("x-enforcer-subject", "root"),
                ("x-enforcer-subject", "root"),
                ("x_enforcer_subject", "root"),
                ("x-real-ip", "1.1.1.1"),
                ("accept", "*/*"),
                ("connection", "x-enforcer-session, host"),
            ],
            "192.0.2.1:5000",
        );
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "accept: */*",
                "forwarded: for=192.0.2.1;host=\"api.example.com:8443\";proto=https",
                "host: api.example.com:8443",
                "x-enforcer-issuer: https://idp",
                "x-enforcer-session: 0000000000000abc",
                "x-enforcer-subject: j%C3%B6rg%20%25",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: api.example.com:8443",
                "x-forwarded-port: 8443",
                "x-forwarded-proto: https",
                "x-real-ip: 192.0.2.1",
            ]
        );
    }

    #[test]
    fn addresses_are_canonical_and_quoted() {
        let forwarded = |peer| prepared(&[], peer)[header::FORWARDED].clone();
        let text = forwarded("[2001:db8::1]:5000");
        assert!(text.to_str().unwrap().starts_with("for=\"[2001:db8::1]\";"));
        let text = forwarded("[::ffff:192.0.2.1]:5000");
        assert!(text.to_str().unwrap().starts_with("for=192.0.2.1;"));
    }

    #[test]
    fn hop_by_hop_fields_stop_here() {
        let fields = [
            ("connection", "close, X-Private"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "x"),
            ("te", "trailers, gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("expect", "100-continue"),
            ("trailer", "Checksum"),
        ];
        let headers = prepared(&fields, "192.0.2.1:5000");
        assert_eq!(headers[header::TE], "trailers");
        assert_eq!(headers[header::CONNECTION], "te");
        assert_eq!(headers[header::TRAILER], "Checksum");
        for (name, _) in fields {
            if !["connection", "te", "trailer"].contains(&name) {
                assert!(!headers.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn a_response_loses_what_is_not_the_upstreams_to_say() {
        let mut headers = headers(&[
            ("alt-svc", "h3=\":443\""),
            ("session-expires-in", "999999"),
            ("session-warning", "x"),
            ("connection", "close"),
            ("etag", "\"a\""),
        ]);
        prepare_response(&mut headers);
        assert_eq!(headers.len(), 1);

        let mut state = SessionState::new(view(100));
        announce_session(&mut headers, &state, at(10));
        assert_eq!(headers[EXPIRES_IN], "90");
        assert_eq!(headers[IDLE_TIMEOUT], "30");
        assert!(!headers.contains_key(WARNING));
        state.view.warn_before = Duration::from_secs(90);
        announce_session(&mut headers, &state, at(10));
        assert_eq!(headers[WARNING], "expiring");
    }

    proptest! {
        #[test]
        fn encoded_names_are_header_values_and_differ(a in ".{0,20}", b in ".{0,20}") {
            prop_assert!(HeaderValue::try_from(encode(&a)).is_ok());
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }
    }
}
