//! What the gateway answers itself, below `/.well-known/enforcer/`.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET health/live`, `GET health/ready` | for load balancers; no token |
//! | `GET jwks.json` | the keys that verify [assertions](crate::gateway::assertion); no token |
//! | `GET session` | the session, as JSON |
//! | `POST session/renew` | the same, after the bearer token has renewed it |
//! | `POST session/logout` | 204; then the session ends, with all its sockets |
//! | `GET session/events` | a stream of events: `warning`, `renewed`, `ended` |
//!
//! The session endpoints take a bearer token like any request, but never open a session, and no
//! route's policy is joined: a token without a live session is told `no_session`. They bind the connection
//! that they come on. Where tokens don't name their session, `renew` also takes a newer token of
//! the same principal and client on another connection, if only one session can be meant.
//!
//! Looking at a session is not activity: a page that shows the time left must not stretch it. To
//! renew is the user's wish to stay, and counts.
//!
//! Nothing here is for other sites. No site can send `Authorization` to another one that does not
//! allow it, and nothing here ever does; with a cookie or a certificate, `Origin` must be allowed
//! where something changes; what a browser says to be cross-site is refused even so. No answer may be stored.

mod events;
mod report;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use self::report::SessionReport;
use super::{
    body::ResponseBody,
    inspect::FAULT_TARGET,
    service::{Known, authenticate},
};
use crate::{
    channel::{EndCause, Kinship, SessionUsage, ToWarden},
    clock::boot_now,
    gateway::{
        Gateway,
        connection::ConnectionContext,
        rejection::Rejection,
        stages::{Authenticated, Bound},
    },
};

/// Where the endpoints are.
pub(crate) const WELL_KNOWN: &str = "/.well-known/enforcer";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Session,
    Renew,
    Logout,
    Events,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/session" => Some(Self::Session),
            "/session/renew" => Some(Self::Renew),
            "/session/logout" => Some(Self::Logout),
            "/session/events" => Some(Self::Events),
            _ => None,
        }
    }

    /// Refuses what the endpoint is not for.
    fn admit(self, method: &Method, headers: &HeaderMap) -> Result<(), Rejection> {
        let (expected, allowed) = match self {
            Self::Session | Self::Events => (Method::GET, "GET"),
            Self::Renew | Self::Logout => (Method::POST, "POST"),
        };
        if *method != expected {
            return Err(Rejection::EndpointMethod(method.clone(), allowed));
        }
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        if sites.any(|site| site == "cross-site") {
            return Err(Rejection::CrossSite);
        }
        Ok(())
    }
}

/// Answers a request whose path starts with [`WELL_KNOWN`].
pub(super) async fn answer<B>(
    connection: &Arc<ConnectionContext>,
    request: &Request<B>,
    known: &mut Known,
) -> Result<Response<ResponseBody>, Rejection> {
    let path = request.uri().path();
    if path == FAULT_TARGET
        && let Some(fault) = connection.inspection.fault()
    {
        return Err(Rejection::Head(fault));
    }
    let path = path.strip_prefix(WELL_KNOWN).ok_or(Rejection::NoRoute)?;
    match Endpoint::at(path) {
        Some(endpoint) => {
            endpoint.admit(request.method(), request.headers())?;
            let authenticated = authenticate(connection, request).await?;
            session(connection, endpoint, authenticated, known).await
        }
        None if path == "/jwks.json" => assertion_keys(&connection.gateway, request.method()),
        None => health(&connection.gateway, path),
    }
}

async fn session(
    connection: &Arc<ConnectionContext>,
    endpoint: Endpoint,
    authenticated: Authenticated,
    known: &mut Known,
) -> Result<Response<ResponseBody>, Rejection> {
    let gateway = &connection.gateway;
    known.principal = Some(authenticated.principal().clone());
    let kinship = match endpoint {
        Endpoint::Renew => Kinship::Successor,
        Endpoint::Session | Endpoint::Logout | Endpoint::Events => Kinship::Own,
    };
    // Nobody is kept from leaving.
    let policies = (endpoint != Endpoint::Logout).then_some(&gateway.policies);
    let found = Bound::find(
        &gateway.link,
        &connection.client,
        policies,
        authenticated,
        kinship,
    );
    let (bound, usage) = found.await?;
    let bound = known.bound.insert(bound);
    Ok(match endpoint {
        Endpoint::Session => report(bound, usage),
        Endpoint::Renew => {
            bound.session().activity().note(&gateway.link, boot_now());
            report(bound, usage)
        }
        Endpoint::Logout => {
            let (session, cause) = (bound.session_id(), EndCause::Logout);
            gateway.link.tell(ToWarden::End { session, cause });
            let mut response = Response::new(ResponseBody::whole(""));
            *response.status_mut() = StatusCode::NO_CONTENT;
            unstored(response)
        }
        Endpoint::Events => {
            let events = events::stream(bound.session().clone(), gateway.link.orders());
            typed(ResponseBody::Events(events), "text/event-stream")
        }
    })
}

fn report(bound: &Bound, usage: SessionUsage) -> Response<ResponseBody> {
    let state = bound.session().state();
    let report = SessionReport::new(bound.principal(), &state, usage, boot_now());
    typed(ResponseBody::whole(report.to_json()), "application/json")
}

/// The keys that verify assertions, for upstreams.
fn assertion_keys(gateway: &Gateway, method: &Method) -> Result<Response<ResponseBody>, Rejection> {
    let assertions = gateway.assertions.as_ref().ok_or(Rejection::NoRoute)?;
    if *method != Method::GET {
        return Err(Rejection::EndpointMethod(method.clone(), "GET"));
    }
    let body = ResponseBody::whole(assertions.published().to_owned());
    let mut response = typed(body, "application/jwk-set+json");
    let headers = response.headers_mut();
    let cacheable = HeaderValue::from_static("public, max-age=300");
    headers.insert(header::CACHE_CONTROL, cacheable);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn health(gateway: &Gateway, path: &str) -> Result<Response<ResponseBody>, Rejection> {
    let (status, text) = match path {
        "/health/live" => (StatusCode::OK, "{\"status\":\"live\"}\n"),
        "/health/ready" if gateway.link.orders().borrow().linked => {
            (StatusCode::OK, "{\"status\":\"ready\"}\n")
        }
        "/health/ready" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "{\"status\":\"not ready\"}\n",
        ),
        _ => return Err(Rejection::NoRoute),
    };
    let mut response = typed(ResponseBody::whole(text), "application/json");
    *response.status_mut() = status;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    Ok(response)
}

fn typed(body: ResponseBody, media_type: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    let media_type = HeaderValue::from_static(media_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    unstored(response)
}

fn unstored(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(endpoint: &str, method: Method, site: Option<&'static str>) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        if let Some(site) = site {
            headers.insert(SEC_FETCH_SITE, HeaderValue::from_static(site));
        }
        let admitted = Endpoint::at(endpoint).unwrap().admit(&method, &headers);
        admitted.err().map(|rejection| rejection.verdict().code)
    }

    #[test]
    fn endpoints_have_their_method() {
        for (endpoint, right, wrong) in [
            ("/session", Method::GET, Method::POST),
            ("/session/events", Method::GET, Method::OPTIONS),
            ("/session/renew", Method::POST, Method::GET),
            ("/session/logout", Method::POST, Method::OPTIONS),
        ] {
            assert_eq!(code(endpoint, right, None), None);
            assert_eq!(code(endpoint, wrong, None), Some("method_not_allowed"));
        }
        assert_eq!(Endpoint::at("/session/"), None);
    }

    #[test]
    fn another_site_is_refused() {
        let renewal = |site| code("/session/renew", Method::POST, Some(site));
        assert_eq!(renewal("cross-site"), Some("cross_site"));
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(renewal(site), None);
        }
        let look = code("/session", Method::GET, Some("cross-site"));
        assert_eq!(look, Some("cross_site"));
    }
}
