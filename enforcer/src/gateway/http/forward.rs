//! A bound request, to its upstream and back.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use http_body_util::{Either, Empty};
use hyper::body::Body;

use super::{
    bearer,
    body::{Progress, Received, RequestBody, ResponseBody, SessionBody},
    grpc::{self, CallBody},
    headers::{Provenance, prepare_request, prepare_response},
    host::RequestHost,
    interim::Way,
};
use crate::{
    clock::{Now, boot_now},
    gateway::{
        Target,
        connection::ConnectionContext,
        rejection::Rejection,
        stages::Bound,
        upstream::Outgoing,
        websocket::{handshake, relay::Relay},
    },
};

/// Forwards a request. Only a [`Bound`] one.
pub(crate) async fn forward(
    connection: &Arc<ConnectionContext>,
    target: &Target,
    host: &RequestHost,
    bound: &Bound,
    mut request: Request<Received>,
) -> Result<Response<ResponseBody>, Rejection> {
    let upgrade = handshake::is_requested(&request);
    if upgrade {
        handshake::check(&request)?;
    }
    let cookie = connection.cookie.as_deref();
    let protocol = bearer::strip(&mut request, cookie, target.forward_token);
    let client_upgrade = upgrade.then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let way = Way::to_client(&mut parts, connection.inspection.interims());
    let client = &connection.client;
    let provenance = Provenance {
        peer: client.peer(),
        local: client.local(),
        host: &host.written,
        principal: bound.principal(),
        session: bound.session_id(),
        forward_token: target.forward_token,
        assertion: assertion(connection, target, bound)?,
    };
    prepare_request(&mut parts.headers, &provenance).map_err(|_| Rejection::Host)?;
    parts.uri = origin_form(&parts.uri)?;
    parts.extensions.clear();

    let link = &connection.gateway.link;
    let call_type = grpc::is_call(&parts)
        .then(|| parts.headers.get(header::CONTENT_TYPE).cloned())
        .flatten();
    parts.version = Version::HTTP_11;
    if let Some(client_upgrade) = client_upgrade {
        handshake::announce(&mut parts.headers);
        let request = Request::from_parts(parts, Either::Left(Empty::new()));
        let mut response = target.upstream.switch(link, bound, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(translate(response, ResponseBody::Forwarded));
        }
        let extensions = handshake::accepted(response.headers())?;
        let upstream_upgrade = hyper::upgrade::on(&mut response);
        let relay = Relay::new(connection, bound, extensions);
        relay.spawn(client_upgrade, upstream_upgrade);
        connection.inspection.become_raw();
        let mut response = translate(response, ResponseBody::Forwarded);
        handshake::announce(response.headers_mut());
        if let Some(protocol) = protocol {
            let fields = response.headers_mut();
            fields
                .entry(header::SEC_WEBSOCKET_PROTOCOL)
                .or_insert(protocol);
        }
        return Ok(response);
    }

    let outgoing = outgoing(connection, bound, parts, body, way.clone());
    let sent = target.upstream.send(link, bound, outgoing);
    match call_type {
        None => answer(way.before(sent).await?, ResponseBody::Forwarded),
        Some(call_type) => {
            let call = connection.calls.begin();
            tokio::select! {
                response = sent => answer(response?, |body| {
                    ResponseBody::Call(CallBody::new(body, bound.session().clone(), call))
                }),
                () = bound.session().farewell() => Ok(grpc::refuse(call_type, call)),
            }
        }
    }
}

/// What the upstream is told in words that it can verify, if it expects that.
fn assertion(
    connection: &ConnectionContext,
    target: &Target,
    bound: &Bound,
) -> Result<Option<HeaderValue>, Rejection> {
    let Some(audience) = &target.assertion_audience else {
        return Ok(None);
    };
    let assertions = connection.gateway.assertions.as_ref();
    let field = assertions.and_then(|it| it.field(audience, bound, Now::read()));
    let field = field.ok_or(Rejection::Internal("no assertion could be signed"))?;
    Ok(Some(field))
}

fn outgoing(
    connection: &ConnectionContext,
    bound: &Bound,
    parts: Parts,
    body: Received,
    way: Way,
) -> Outgoing {
    let progress = Arc::new(Progress::new(boot_now()));
    let body: RequestBody = if body.is_end_stream() {
        Either::Left(Empty::new())
    } else {
        Either::Right(SessionBody::new(
            body,
            way.expecting(),
            bound.session().clone(),
            Arc::clone(&connection.gateway.link),
            Arc::clone(&progress),
        ))
    };
    let repeatable = matches!(body, Either::Left(_)) && parts.method.is_idempotent();
    Outgoing {
        head: parts,
        body,
        progress,
        way,
        repeatable,
    }
}

/// An upstream's response, as the client gets it.
fn answer(
    response: Response<Received>,
    body: impl FnOnce(Received) -> ResponseBody,
) -> Result<Response<ResponseBody>, Rejection> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let what = "it switches protocols unasked";
        return Err(Rejection::UpstreamInvalid(what.into()));
    }
    Ok(translate(response, body))
}

fn translate(
    response: Response<Received>,
    body: impl FnOnce(Received) -> ResponseBody,
) -> Response<ResponseBody> {
    let mut response = response.map(body);
    prepare_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    response
}

/// The target as an origin server wants it: path and query.
fn origin_form(target: &Uri) -> Result<Uri, Rejection> {
    let path_and_query = target.path_and_query().map_or("/", |path| path.as_str());
    path_and_query
        .parse()
        .map_err(|_| Rejection::Internal("the target has no origin form"))
}
