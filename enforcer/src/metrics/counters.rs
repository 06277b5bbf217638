//! What a gateway counts while it serves. Counting a request takes no lock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;

use super::{
    Distribution,
    figures::{GatewayFigures, REQUEST_BOUNDS, RouteFigures, RouteLabels, STATUS_CLASSES},
};

/// Routes in one report: far below what a message may hold.
const ROUTES_AT_ONCE: usize = 64;

/// Of one route.
#[derive(Debug, Default)]
pub struct RouteCounters {
    labels: RouteLabels,
    answers: [AtomicU64; STATUS_CLASSES.len()],
    durations: [AtomicU64; REQUEST_BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl RouteCounters {
    fn new(labels: RouteLabels) -> Self {
        Self {
            labels,
            ..Self::default()
        }
    }

    /// Which route.
    pub fn labels(&self) -> &RouteLabels {
        &self.labels
    }

    /// A request was answered with `status` after `duration`.
    pub fn answered(&self, status: StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.answers[class].fetch_add(1, Relaxed);
        self.durations[Distribution::bucket(&REQUEST_BOUNDS, duration)].fetch_add(1, Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(nanos, Relaxed);
    }

    /// What happened since the last call.
    fn take(&self) -> RouteFigures {
        let counts = self.durations.iter().map(|count| count.swap(0, Relaxed));
        let durations = Distribution::from_parts(counts.collect(), self.sum_ns.swap(0, Relaxed));
        RouteFigures {
            answers: std::array::from_fn(|class| self.answers[class].swap(0, Relaxed)),
            durations,
        }
    }
}

/// Everything that a gateway counts.
#[derive(Debug, Default)]
pub struct Counters {
    routes: Mutex<BTreeMap<RouteLabels, Arc<RouteCounters>>>,
    handshakes: Mutex<BTreeMap<Arc<str>, [u64; 2]>>,
    upstream_errors: Mutex<BTreeMap<&'static str, u64>>,
    reports_lost: AtomicU64,
    spans_exported: AtomicU64,
    spans_dropped: AtomicU64,
}

impl Counters {
    /// The counters of a route.
    pub fn route(&self, labels: RouteLabels) -> Arc<RouteCounters> {
        let mut routes = lock(&self.routes);
        let counters = routes
            .entry(labels)
            .or_insert_with_key(|labels| Arc::new(RouteCounters::new(labels.clone())));
        Arc::clone(counters)
    }

    /// The counters of requests to a listener that reach no route.
    pub fn without_route(&self, listener: &str) -> Arc<RouteCounters> {
        self.route(RouteLabels {
            listener: listener.to_owned(),
            host: String::new(),
            path: String::new(),
        })
    }

    /// A TLS handshake on a listener is over.
    pub fn handshake(&self, listener: &Arc<str>, done: bool) {
        let mut handshakes = lock(&self.handshakes);
        let counts = handshakes.entry(Arc::clone(listener)).or_default();
        counts[usize::from(!done)] += 1;
    }

    /// An upstream failed a request.
    pub fn upstream_error(&self, code: &'static str) {
        *lock(&self.upstream_errors).entry(code).or_default() += 1;
    }

    /// Reports to the warden were lost.
    pub fn reports_lost(&self, count: u64) {
        self.reports_lost.fetch_add(count, Relaxed);
    }

    /// Spans were exported.
    pub fn spans_exported(&self, count: u64) {
        self.spans_exported.fetch_add(count, Relaxed);
    }

    /// Spans were dropped.
    pub fn spans_dropped(&self, count: u64) {
        self.spans_dropped.fetch_add(count, Relaxed);
    }

    /// What happened since the last call, in pieces that each fit a message.
    pub fn take(&self) -> Vec<GatewayFigures> {
        let routes: Vec<_> = lock(&self.routes)
            .iter()
            .map(|(labels, counters)| (labels, counters.take()))
            .filter(|(_, figures)| figures.durations.count() > 0)
            .map(|(labels, figures)| (labels.clone(), figures))
            .collect();
        let handshakes = std::mem::take(&mut *lock(&self.handshakes)).into_iter();
        let upstream_errors = std::mem::take(&mut *lock(&self.upstream_errors)).into_iter();
        let first = GatewayFigures {
            routes: Vec::new(),
            handshakes: handshakes
                .map(|(listener, counts)| (listener.to_string(), counts))
                .collect(),
            upstream_errors: upstream_errors
                .map(|(code, count)| (code.to_owned(), count))
                .collect(),
            reports_lost: self.reports_lost.swap(0, Relaxed),
            spans: [
                self.spans_exported.swap(0, Relaxed),
                self.spans_dropped.swap(0, Relaxed),
            ],
        };
        let pieces = routes.chunks(ROUTES_AT_ONCE).map(|routes| GatewayFigures {
            routes: routes.to_vec(),
            ..GatewayFigures::default()
        });
        std::iter::once(first)
            .chain(pieces)
            .filter(|figures| !figures.is_empty())
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::MAX_MESSAGE;

    fn labels(path: &str) -> RouteLabels {
        RouteLabels {
            listener: "public".to_owned(),
            host: String::new(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn what_was_taken_is_not_taken_again() {
        let counters = Counters::default();
        let route = counters.route(labels("/"));
        let same = counters.route(labels("/"));
        route.answered(StatusCode::OK, Duration::from_millis(3));
        same.answered(StatusCode::BAD_GATEWAY, Duration::from_secs(60));
        counters.handshake(&"public".into(), true);
        counters.upstream_error("upstream_timeout");
        let taken = counters.take();
        let [rest, routes] = &taken[..] else {
            panic!("{taken:?}");
        };
        assert_eq!(rest.handshakes, [("public".to_owned(), [1, 0])]);
        let (_, figures) = &routes.routes[0];
        assert_eq!(figures.answers, [0, 1, 0, 0, 1]);
        assert_eq!(figures.durations.count(), 2);
        assert!(counters.take().is_empty());
    }

    #[test]
    fn reports_of_many_routes_with_long_names_fit_messages() {
        let counters = Counters::default();
        for number in 0..1_000 {
            let route = counters.route(labels(&format!("/{}{number}", "x".repeat(600))));
            for _ in 0..300 {
                route.answered(StatusCode::OK, Duration::from_millis(7));
            }
        }
        let taken = counters.take();
        assert_eq!(
            taken.iter().map(|piece| piece.routes.len()).sum::<usize>(),
            1_000
        );
        for piece in &taken {
            let length = postcard::to_stdvec(piece).unwrap().len();
            assert!(length < MAX_MESSAGE - 64, "{length}");
        }
    }
}
