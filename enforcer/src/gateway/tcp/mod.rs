//! Whatever protocol, carried as bytes: TLS and a certificate on the client's side, a connection
//! of the session's own on the upstream's.
//!
//! ```text
//!   handshake --certificate--> Authenticated --> Bound --> connected --> flowing --> closed
//!                    |                     |                  |            |
//!                    +---------------------+------------------+            | the session has ended,
//!                                          | refused                       | either side broke off
//!                                          v                               v
//!                                        reset                           reset
//! ```
//!
//! A stream of bytes has no words for a refusal or a farewell, and an orderly end would be taken
//! for the other side's. So whatever is not its end is a reset, and the cut is the only farewell.
//! Why, the audit log says.

pub(crate) mod relay;

use std::io;

use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::{
    clock::{boot_now, wall_now},
    config::CertificateName,
    gateway::{
        connection::ConnectionContext,
        http::route::RouteIndex,
        rejection::Rejection,
        socket::Socket,
        stages::{Authenticated, Bound},
    },
    policy::Purpose,
    session::Principal,
};

/// What a TCP listener leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpService {
    /// The name in the client's certificate that is its principal's.
    pub(crate) subject: CertificateName,
    /// The listener's one route.
    pub(crate) route: RouteIndex,
}

/// Why a stream ended before both sides had closed it.
enum Failure {
    Rejected(Rejection),
    BrokenOff(io::Error),
}

/// Serves a connection after its handshake.
pub(crate) async fn serve(
    context: &ConnectionContext,
    service: &TcpService,
    stream: TlsStream<Socket>,
) {
    let socket = context.client.socket();
    let mut principal = None;
    let bound = match admit(context, service, &mut principal).await {
        Ok(bound) => bound,
        Err(rejection) => {
            context.report(&rejection, principal);
            return socket.abort();
        }
    };
    let session = bound.session();
    let result = tokio::select! {
        biased;
        proof = session.ended() => return socket.reset(proof),
        result = carry(context, service, &bound, stream) => result,
    };
    if session.is_over(boot_now()) {
        return socket.reset(session.ended().await);
    }
    match result {
        Ok(()) => {}
        Err(Failure::Rejected(rejection)) => {
            context.report(&rejection, principal);
            socket.abort();
        }
        Err(Failure::BrokenOff(error)) => {
            debug!(client = %context.client.peer(), %error, "a stream broke off");
            socket.abort();
        }
    }
}

async fn admit(
    context: &ConnectionContext,
    service: &TcpService,
    principal: &mut Option<Principal>,
) -> Result<Bound, Rejection> {
    let gateway = &context.gateway;
    let authenticated =
        Authenticated::by_certificate(&context.client, &service.subject, wall_now())?;
    *principal = Some(authenticated.principal().clone());
    let client = &context.client;
    let permitted = authenticated.permit(
        &gateway.policies,
        Purpose::Route(service.route),
        client,
        wall_now(),
    )?;
    if let Some(denied) = permitted.observed() {
        context.report_observed(denied, principal.clone());
    }
    Bound::establish(&gateway.link, client, permitted).await
}

async fn carry(
    context: &ConnectionContext,
    service: &TcpService,
    bound: &Bound,
    stream: TlsStream<Socket>,
) -> Result<(), Failure> {
    let gateway = &context.gateway;
    let target = gateway
        .targets
        .get(service.route)
        .ok_or(Rejection::NoRoute)?;
    let (upstream, upstream_socket) = target.upstream.dial(&gateway.link, bound).await?;
    let result = relay::relay(stream, upstream, bound.session(), &gateway.link).await;
    if result.is_err() {
        upstream_socket.abort();
    }
    result.map_err(Failure::BrokenOff)
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}
