//! From listener, host and path to a route. Pure.

use std::collections::HashMap;

use crate::{
    config::Route,
    gateway::http::path::{MatchPath, PathError},
};

/// Index of a route in the configuration.
pub(crate) type RouteIndex = usize;

/// An upstream that decodes encoded slashes would see a path of another route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an encoded slash that would lead to another route")]
pub(crate) struct AmbiguousPath;

/// The routes of all listeners. A look-up takes as long with ten thousand of them as with ten.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    listeners: HashMap<String, Hosts>,
}

#[derive(Debug, Default)]
struct Hosts {
    named: HashMap<String, Prefixes>,
    any: Prefixes,
}

/// The routes of a host, by their prefixes without a final slash.
#[derive(Debug, Default)]
struct Prefixes {
    routes: HashMap<Vec<u8>, RouteIndex>,
    longest: usize,
}

impl RouteTable {
    /// The table of these routes.
    pub(crate) fn new(routes: &[Route]) -> Result<Self, PathError> {
        let mut table = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let path = MatchPath::parse(&route.path)?;
            let hosts = table.listeners.entry(route.listener.clone()).or_default();
            let prefixes = match &route.host {
                Some(host) => hosts.named.entry(host.clone()).or_default(),
                None => &mut hosts.any,
            };
            if let Some(prefix) = path.forms().next() {
                prefixes.add(prefix, index);
            }
        }
        Ok(table)
    }

    /// The route with the longest prefix of `path`; those of exactly this host before those of
    /// any.
    pub(crate) fn find(
        &self,
        listener: &str,
        host: &str,
        path: &MatchPath,
    ) -> Result<Option<RouteIndex>, AmbiguousPath> {
        let mut forms = path
            .forms()
            .map(|form| self.find_form(listener, host, form));
        let route = forms.next().flatten();
        if forms.all(|other| other == route) {
            Ok(route)
        } else {
            Err(AmbiguousPath)
        }
    }

    fn find_form(&self, listener: &str, host: &str, path: &[u8]) -> Option<RouteIndex> {
        let hosts = self.listeners.get(listener)?;
        let named = hosts.named.get(host).and_then(|it| it.find(path));
        named.or_else(|| hosts.any.find(path))
    }
}

impl Prefixes {
    fn add(&mut self, prefix: &[u8], route: RouteIndex) {
        let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
        self.longest = self.longest.max(prefix.len());
        self.routes.entry(prefix.to_vec()).or_insert(route);
    }

    /// The longest prefix that is the path, or ends where a segment of it ends. No more of the path
    /// is looked at than there is in a prefix.
    fn find(&self, path: &[u8]) -> Option<RouteIndex> {
        let ends = (0..=path.len().min(self.longest)).rev();
        let borders = ends.filter(|end| path.get(*end).is_none_or(|next| *next == b'/'));
        borders
            .map(|end| &path[..end])
            .find_map(|prefix| self.routes.get(prefix))
            .copied()
    }
}

/// Which of the routes a request takes.
pub(crate) fn route_of(
    routes: &[Route],
    listener: &str,
    host: &str,
    path: &str,
) -> anyhow::Result<Option<RouteIndex>> {
    Ok(RouteTable::new(routes)?.find(listener, host, &MatchPath::parse(path)?)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{HttpVersion, Upstream, UpstreamPool},
        policy::Requirements,
    };

    pub(crate) fn route(listener: &str, host: Option<&str>, path: &str) -> Route {
        Route {
            listener: listener.to_owned(),
            host: host.map(str::to_owned),
            path: path.to_owned(),
            upstream: Upstream {
                host: "127.0.0.1".to_owned(),
                port: 9000,
                version: HttpVersion::Http1,
                tls: None,
            },
            policies: vec!["default".to_owned()],
            require: Requirements::default(),
            forward_token: false,
            assertion_audience: None,
            postgres: None,
            upstream_pool: UpstreamPool::Shared,
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
        }
    }

    fn find(
        table: &RouteTable,
        host: &str,
        path: &str,
    ) -> Result<Option<RouteIndex>, AmbiguousPath> {
        table.find("public", host, &MatchPath::parse(path).unwrap())
    }

    #[test]
    fn longest_prefix_and_exact_host_win() {
        let table = RouteTable::new(&[
            route("public", None, "/"),
            route("public", None, "/admin"),
            route("public", Some("api.example.com"), "/v1"),
            route("public", None, "/admin/keys"),
            route("other", None, "/"),
        ])
        .unwrap();
        assert_eq!(find(&table, "x", "/"), Ok(Some(0)));
        assert_eq!(find(&table, "x", "/administrator"), Ok(Some(0)));
        assert_eq!(find(&table, "x", "/admin/x"), Ok(Some(1)));
        assert_eq!(find(&table, "x", "/admin//keys"), Ok(Some(3)));
        assert_eq!(find(&table, "x", "/%61dmin"), Ok(Some(1)));
        assert_eq!(find(&table, "api.example.com", "/v1/x"), Ok(Some(2)));
        assert_eq!(find(&table, "api.example.com", "/admin"), Ok(Some(1)));
    }

    #[test]
    fn a_prefix_ends_at_a_segment_border() {
        let table = RouteTable::new(&[route("public", None, "/admin")]).unwrap();
        for (path, covered) in [
            ("/admin", true),
            ("/admin/", true),
            ("/admin/x/y", true),
            ("/administrator", false),
            ("/admi", false),
            ("/", false),
        ] {
            assert_eq!(
                find(&table, "a", path).unwrap().is_some(),
                covered,
                "{path}"
            );
        }
    }

    #[test]
    fn no_route_is_none() {
        let table = RouteTable::new(&[route("public", Some("a"), "/x")]).unwrap();
        assert_eq!(find(&table, "a", "/y"), Ok(None));
        assert_eq!(find(&table, "b", "/x"), Ok(None));
        let path = MatchPath::parse("/x").unwrap();
        assert_eq!(table.find("private", "a", &path), Ok(None));
    }

    #[test]
    fn an_encoded_slash_must_not_hide_another_route() {
        let table = RouteTable::new(&[route("public", None, "/"), route("public", None, "/admin")])
            .unwrap();
        assert_eq!(find(&table, "a", "/%2fadmin"), Err(AmbiguousPath));
        assert_eq!(find(&table, "a", "/admin%2fx"), Err(AmbiguousPath));
        assert_eq!(find(&table, "a", "/projects/group%2Fname"), Ok(Some(0)));
        assert_eq!(find(&table, "a", "/admin/group%2Fname"), Ok(Some(1)));
    }
}
