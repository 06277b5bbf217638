//! One request: routed, authenticated, bound, forwarded, or told why not.

use std::{convert::Infallible, sync::Arc};

use http::{Method, Request, Response, Version, header};
use hyper::body::Incoming;

use super::{
    body::ResponseBody, endpoints, forward, headers::announce_session, host::RequestHost, http2,
    path::MatchPath,
};
use crate::{
    clock::{boot_now, wall_now},
    gateway::{
        connection::ConnectionContext,
        rejection::Rejection,
        stages::{Authenticated, Bound},
    },
    session::Principal,
};

/// What is known about a request by the time that it is answered.
#[derive(Default)]
pub(super) struct Known {
    pub(super) principal: Option<Principal>,
    pub(super) bound: Option<Bound>,
}

/// Answers a request.
pub(crate) async fn answer(
    connection: Arc<ConnectionContext>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let unanswered = connection.patience.begin();
    let http2 = request.version() == Version::HTTP_2;
    let mut known = Known::default();
    let mut response = match handle(&connection, request, &mut known).await {
        Ok(response) => response,
        Err(rejection) => {
            connection.report(&rejection, known.principal);
            if http2 && rejection.is_final() {
                connection.leave();
            }
            let (response, body) = rejection.response();
            response.map(|()| ResponseBody::whole(body))
        }
    };
    if let Some(bound) = known.bound {
        announce_session(response.headers_mut(), &bound.session().state(), boot_now());
    }
    if http2 {
        response.headers_mut().remove(header::CONNECTION);
    }
    unanswered.answered();
    Ok(response)
}

async fn handle(
    connection: &Arc<ConnectionContext>,
    mut request: Request<Incoming>,
    known: &mut Known,
) -> Result<Response<ResponseBody>, Rejection> {
    let gateway = &connection.gateway;
    if request.version() == Version::HTTP_2 {
        http2::normalize(&mut request)?;
    }
    let path = request.uri().path();
    if path
        .strip_prefix(endpoints::WELL_KNOWN)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    {
        return endpoints::answer(connection, &request, known).await;
    }
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        return Err(Rejection::Method(request.method().clone()));
    }
    let host = RequestHost::of(request.uri(), request.headers())?;
    let path = MatchPath::parse(path)?;

    let authenticated = Authenticated::by_request(
        &gateway.authenticator,
        &connection.client,
        connection.identity,
        request.headers(),
        wall_now(),
    )?;
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
        &target.policies,
    )
    .await?;
    bound.session().activity().note(&gateway.link, boot_now());
    let bound = known.bound.insert(bound);

    forward::forward(connection, target, &host, bound, request).await
}
