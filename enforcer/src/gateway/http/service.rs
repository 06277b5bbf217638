//! One request: routed, authenticated, bound, forwarded, or told why not.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::{
    bearer,
    body::{Received, ResponseBody},
    endpoints, forward,
    headers::announce_session,
    host::RequestHost,
    http2,
    observation::Observation,
    path::MatchPath,
};
use crate::{
    clock::{Now, boot_now, wall_now},
    gateway::{
        connection::ConnectionContext,
        rejection::{FORWARDED_METHODS, Rejection},
        stages::{Authenticated, Bound},
        tunnel,
    },
    metrics::RouteCounters,
    policy::Purpose,
    session::Principal,
};

/// What is known about a request by the time that it is answered.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) principal: Option<Principal>,
    pub(crate) bound: Option<Bound>,
    /// The route that it took.
    pub(crate) route: Option<Arc<RouteCounters>>,
}

/// Answers a request.
pub(crate) async fn answer(
    connection: Arc<ConnectionContext>,
    mut request: Request<Received>,
) -> Response<ResponseBody> {
    connection.note_request();
    let observation = Observation::begin(&connection, &mut request);
    let http2 = request.version() == Version::HTTP_2;
    let connect = request.method() == Method::CONNECT;
    let mut known = Known::default();
    let mut response = match handle(&connection, request, &mut known).await {
        Ok(response) => response,
        Err(rejection) => {
            connection.report(&rejection, known.principal);
            if http2 && rejection.is_final() {
                connection.leave();
            }
            let (response, body) = rejection.response();
            let mut response = response.map(|()| ResponseBody::whole(body));
            if connect {
                // What follows may have been meant for the target.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        }
    };
    if let Some(bound) = &known.bound {
        announce_session(response.headers_mut(), &bound.session().state(), boot_now());
    }
    if http2 {
        response.headers_mut().remove(header::CONNECTION);
    }
    let session = known.bound.map(|bound| bound.session_id());
    observation.end(&connection, known.route, response.status(), session);
    response
}

/// By the token of the request, or by the client's certificate.
pub(super) async fn authenticate<B>(
    connection: &ConnectionContext,
    request: &Request<B>,
) -> Result<Authenticated, Rejection> {
    let cookie = connection.cookie.as_deref();
    let token = bearer::of_request(request, cookie)?;
    if connection.certificate_name(token).is_some() {
        bearer::check_certificates_origin(request, cookie)?;
    }
    Authenticated::by_request(connection, token, Now::read()).await
}

async fn handle(
    connection: &Arc<ConnectionContext>,
    mut request: Request<Received>,
    known: &mut Known,
) -> Result<Response<ResponseBody>, Rejection> {
    let gateway = &connection.gateway;
    if request.version() == Version::HTTP_2 {
        http2::normalize(&mut request)?;
    }
    if request.method() == Method::CONNECT {
        return tunnel::answer(connection, request, known).await;
    }
    let path = request.uri().path();
    if path
        .strip_prefix(endpoints::WELL_KNOWN)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    {
        return endpoints::answer(connection, &request, known).await;
    }
    if request.method() == Method::TRACE {
        return Err(Rejection::Method(request.method().clone()));
    }
    let host = RequestHost::of(request.uri(), request.headers())?;
    if request.method() == Method::OPTIONS && path == "*" {
        return Ok(capabilities());
    }
    let path = MatchPath::parse(path)?;

    let authenticated = authenticate(connection, &request).await?;
    known.principal = Some(authenticated.principal().clone());
    let route = gateway
        .routes
        .find(&connection.listener, &host.name, &path)?
        .ok_or(Rejection::NoRoute)?;
    let target = gateway.targets.get(route).ok_or(Rejection::NoRoute)?;
    known.route = Some(Arc::clone(&target.counters));
    let client = &connection.client;
    let permitted =
        authenticated.permit(&gateway.policies, Purpose::Route(route), client, wall_now())?;
    if let Some(denied) = permitted.observed() {
        connection.report_observed(denied, known.principal.clone());
    }
    let bound = Bound::establish(&gateway.link, client, permitted).await?;
    bound.session().activity().note(&gateway.link, boot_now());
    let bound = known.bound.insert(bound);

    forward::forward(connection, target, &host, bound, request).await
}

/// What the server itself can do, whoever asks (RFC 9110, section 9.3.7): nothing is forwarded.
fn capabilities() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static(FORWARDED_METHODS);
    response.headers_mut().insert(header::ALLOW, methods);
    response
}
