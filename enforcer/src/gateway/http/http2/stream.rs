//! One request of a connection, from its head to the end of its answer.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Body;
use tracing::debug;

use super::{receiving::Receiving, reply::Reply, sending};
use crate::{
    clock::wall_now,
    gateway::{
        connection::ConnectionContext,
        http::{
            body::{Received, ResponseBody},
            service,
        },
    },
};

/// Answers a request, unless the client gives it up.
pub(super) async fn serve(
    context: Arc<ConnectionContext>,
    request: Request<RecvStream>,
    mut sender: SendResponse<Bytes>,
) {
    let head_only = request.method() == Method::HEAD;
    let (head, stream) = request.into_parts();
    let body = Receiving::new(stream, &head.headers);
    if head.method == Method::CONNECT && body.size_hint().lower() > 0 {
        // What follows is the target's, and has no length (RFC 9110, section 9.3.6).
        return sender.send_reset(Reason::PROTOCOL_ERROR);
    }
    let unanswered = context.patience.begin();
    let reply = Reply::new(sender);
    let mut request = Request::from_parts(head, Received::Http2(body));
    request.extensions_mut().insert(reply.clone());
    // What breaks off in the answer because it is given up is no fault of the request.
    let answer = tokio::select! {
        biased;
        () = poll_fn(|cx| reply.poll_given_up(cx)) => None,
        response = service::answer(Arc::clone(&context), request) => Some(response),
    };
    let Some(response) = answer else {
        return;
    };
    unanswered.answered();
    // The socket closes with the last that holds it.
    drop(context);
    if let Some(sender) = reply.close() {
        send(sender, response, head_only).await;
    }
}

async fn send(mut sender: SendResponse<Bytes>, response: Response<ResponseBody>, head_only: bool) {
    let (mut head, body) = response.into_parts();
    announce(&mut head.headers, &body);
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
    let is_whole = head_only || bodiless || body.is_end_stream();
    let stream = match sender.send_response(Response::from_parts(head, ()), is_whole) {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "an answer was not sent");
            return sender.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    match body {
        // Let go of only now: a call has ended when its end has been handed over.
        body if is_whole => drop(body),
        // Who waits for it may be gone: then the stream is reset.
        ResponseBody::Tunnel(tunnel) => drop(tunnel.send(stream)),
        body => {
            if let Err(error) = sending::send(stream, body).await {
                debug!(%error, "an answer was not sent to its end");
            }
        }
    }
}

/// Says when the answer was given, and how long it is, where nobody has.
fn announce(fields: &mut HeaderMap, body: &ResponseBody) {
    if !fields.contains_key(header::DATE) {
        let date = wall_now().http_date().map(HeaderValue::try_from);
        fields.extend(date.and_then(Result::ok).map(|date| (header::DATE, date)));
    }
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        let length = || HeaderValue::from(length);
        fields.entry(header::CONTENT_LENGTH).or_insert_with(length);
    }
}
