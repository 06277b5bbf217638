//! What is noted of each request: how long it took, how it was answered, and its span.

use std::sync::Arc;

use http::{Request, StatusCode};

use crate::{
    clock::{BootInstant, boot_now, wall_now},
    gateway::{connection::ConnectionContext, traces},
    metrics::RouteCounters,
    session::SessionId,
};

/// Of a request that is not answered yet.
pub(super) struct Observation {
    began_at: BootInstant,
    span: Option<traces::Open>,
}

impl Observation {
    /// A request has come.
    pub(super) fn begin<B>(connection: &ConnectionContext, request: &mut Request<B>) -> Self {
        let method = request.method().clone();
        let client = connection.client.peer();
        let tracer = connection.gateway.tracer.as_ref();
        let span = tracer
            .and_then(|tracer| tracer.begin(&method, request.headers_mut(), client, wall_now()));
        Self {
            began_at: boot_now(),
            span,
        }
    }

    /// It is answered. `route`: the one that it took.
    pub(super) fn end(
        self,
        connection: &ConnectionContext,
        route: Option<Arc<RouteCounters>>,
        status: StatusCode,
        session: Option<SessionId>,
    ) {
        let gateway = &connection.gateway;
        let route = route.unwrap_or_else(|| gateway.counters.without_route(&connection.listener));
        route.answered(status, boot_now().saturating_duration_since(self.began_at));
        if let (Some(tracer), Some(span)) = (&gateway.tracer, self.span)
            && !tracer.end(span, route.labels().clone(), status, session)
        {
            gateway.counters.spans_dropped(1);
        }
    }
}
