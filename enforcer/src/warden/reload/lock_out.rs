//! Configurations that would lock everyone out. Pure.

use std::collections::BTreeSet;

use crate::{
    config::{Config, route_name},
    warden::admin::Impact,
};

/// Why `new` in the place of `present` would lock everyone out, one reason each: it cuts every live
/// session, or keeps no address, no issuer or no route that clients use now.
pub fn reasons(present: &Config, new: &Config, impact: &Impact) -> Vec<String> {
    let mut reasons = Vec::new();
    if impact.cut > 0 && impact.cut == impact.sessions {
        reasons.push(format!("it cuts every live session ({})", impact.cut));
    }
    let addresses = |config: &Config| -> BTreeSet<_> {
        let listeners = config.listeners.values();
        listeners.map(|listener| listener.address).collect()
    };
    if addresses(present).is_disjoint(&addresses(new)) {
        reasons.push("it keeps none of the present listeners' addresses".to_owned());
    }
    let issuers = |config: &Config| -> BTreeSet<_> {
        let issuers = config.identity.jwt.iter();
        issuers.map(|issuer| issuer.issuer.clone()).collect()
    };
    let present_issuers = issuers(present);
    if !present_issuers.is_empty() && present_issuers.is_disjoint(&issuers(new)) {
        reasons.push("it keeps none of the present issuers".to_owned());
    }
    let routes = |config: &Config| -> BTreeSet<_> {
        let tunnels = config.tunnels.iter();
        let tunnels = tunnels.map(|tunnel| format!("{} (tunnel)", tunnel.listener));
        config
            .routes
            .iter()
            .map(route_name)
            .chain(tunnels)
            .collect()
    };
    if routes(present).is_disjoint(&routes(new)) {
        reasons.push("it keeps none of the present routes".to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = r#"
[listeners.public]
address = "0.0.0.0:8443"
tls = { certificate = "cert.pem", private_key = "key.pem" }
[[identity.jwt]]
issuer = "https://idp.example"
audience = "api"
secret_file = "secret"
algorithms = ["HS256"]
[policies.standard]
max_session = "15m"
[[routes]]
listener = "public"
path = "/api"
upstream = "http://127.0.0.1:9000"
policy = "standard"
"#;

    #[test]
    fn only_what_leaves_nobody_in_is_told() {
        let parse = |text: &str| Config::parse(text, Path::new("/etc/c.toml")).unwrap();
        let present = parse(TEXT);
        let impact = |sessions, cut| Impact {
            sessions,
            cut,
            ..Impact::default()
        };
        let told = |text: &str| reasons(&present, &parse(text), &impact(3, 2)).join("; ");
        assert_eq!(told(TEXT), "");
        assert_eq!(told(&TEXT.replace("15m", "1m")), "");
        for (from, to, reason) in [
            ("0.0.0.0:8443", "0.0.0.0:8444", "addresses"),
            ("idp.example", "new.example", "issuers"),
            ("/api", "/v2", "routes"),
        ] {
            let told = told(&TEXT.replace(from, to));
            assert!(told.contains(reason) && !told.contains("; "), "{told}");
        }
        assert_eq!(reasons(&present, &present, &impact(0, 0)), [""; 0]);
        let all = reasons(&present, &present, &impact(2, 2));
        assert_eq!(all, ["it cuts every live session (2)"]);
    }
}
