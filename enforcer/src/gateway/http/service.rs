//! One request: routed, authenticated, bound, forwarded, or told why not.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::{
    body::ResponseBody,
    forward,
    headers::announce_session,
    host::RequestHost,
    inspect::{FAULT_TARGET, Inspection},
    path::MatchPath,
};
use crate::{
    clock::{boot_now, wall_now},
    gateway::{
        Gateway,
        connection::ConnectionContext,
        rejection::Rejection,
        stages::{Authenticated, Bound},
    },
    session::Principal,
};

const WELL_KNOWN: &str = "/.well-known/enforcer";

/// What is known about a request by the time that it is answered.
#[derive(Default)]
struct Known {
    principal: Option<Principal>,
    bound: Option<Bound>,
}

/// Answers a request.
pub(crate) async fn answer(
    connection: Arc<ConnectionContext>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut known = Known::default();
    let mut response = match handle(&connection, request, &mut known).await {
        Ok(response) => response,
        Err(rejection) => {
            connection.report(&rejection, known.principal);
            let (response, body) = rejection.response();
            response.map(|()| full(body))
        }
    };
    if let Some(bound) = known.bound {
        announce_session(response.headers_mut(), &bound.session().state(), boot_now());
    }
    Ok(response)
}

async fn handle(
    connection: &Arc<ConnectionContext>,
    request: Request<Incoming>,
    known: &mut Known,
) -> Result<Response<ResponseBody>, Rejection> {
    let gateway = &connection.gateway;
    let path = request.uri().path();
    if path.starts_with(WELL_KNOWN) {
        return well_known(gateway, &connection.inspection, path);
    }
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        return Err(Rejection::Method(request.method().clone()));
    }
    let host = RequestHost::of(request.uri(), request.headers())?;
    let path = MatchPath::parse(path)?;

    let authenticated =
        Authenticated::by_token(&gateway.authenticator, request.headers(), wall_now())?;
    known.principal = Some(authenticated.principal().clone());
    let target = gateway
        .routes
        .find(&connection.listener, &host.name, &path)?
        .and_then(|route| gateway.targets.get(route))
        .ok_or(Rejection::NoRoute)?;
    let bound = Bound::establish(
        &gateway.link,
        &connection.client,
        authenticated,
        &target.policy,
    )
    .await?;
    bound.session().activity().note(&gateway.link, boot_now());
    let bound = known.bound.insert(bound);

    forward::forward(connection, target, &host, bound, request).await
}

fn well_known(
    gateway: &Gateway,
    inspection: &Inspection,
    path: &str,
) -> Result<Response<ResponseBody>, Rejection> {
    if path == FAULT_TARGET
        && let Some(fault) = inspection.fault()
    {
        return Err(Rejection::Head(fault));
    }
    let (status, text) = match path.strip_prefix(WELL_KNOWN) {
        Some("/health/live") => (StatusCode::OK, "{\"status\":\"live\"}\n"),
        Some("/health/ready") if gateway.link.orders().borrow().linked => {
            (StatusCode::OK, "{\"status\":\"ready\"}\n")
        }
        Some("/health/ready") => (
            StatusCode::SERVICE_UNAVAILABLE,
            "{\"status\":\"not ready\"}\n",
        ),
        _ => return Err(Rejection::NoRoute),
    };
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn full(text: impl Into<Bytes>) -> ResponseBody {
    Either::Left(Full::new(text.into()))
}
