//! The stream of audit records, read straight from the log.

use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};

use super::{ApiError, BROKEN_LINES};
use crate::audit::{Filter, Follow, LogReader, Progress, rfc3339};

/// How often a followed log is looked at.
const TICK: Duration = Duration::from_millis(250);

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    filter: Filter,
    follow: Follow,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut filter = Filter::default();
        let mut follow = Follow::No;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "since" => {
                    let since = rfc3339::parse(&value);
                    filter.since = Some(since.map_err(|e| ApiError::bad_request(e.to_string()))?);
                }
                "subject" => filter.subject = Some(value.into_owned()),
                "event" => {
                    let event = value.parse();
                    filter.event = Some(event.map_err(|e: crate::audit::UnknownEvent| {
                        ApiError::bad_request(e.to_string())
                    })?);
                }
                "follow" => {
                    follow = match &*value {
                        "true" => Follow::Yes,
                        "false" => Follow::No,
                        _ => return Err(ApiError::bad_request("`follow` is true or false")),
                    };
                }
                _ => return Err(ApiError::bad_request(format!("unknown parameter `{name}`"))),
            }
        }
        Ok(Self { filter, follow })
    }
}

/// Body of the answer: lines as they come, and at the end how many were broken.
#[derive(Debug)]
pub(super) struct Lines(mpsc::Receiver<Frame<Bytes>>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// Opens the log and starts to read it, until its end, the client's or the server's.
pub(super) fn stream(
    log: &Path,
    query: Query,
    stop: watch::Receiver<()>,
) -> Result<Lines, ApiError> {
    let reader = LogReader::open(log, query.filter, query.follow).map_err(|error| {
        ApiError::unavailable(format!("cannot read {}: {error}", log.display()))
    })?;
    let (frames, lines) = mpsc::channel(1);
    tokio::spawn(pump(reader, query.follow, frames, stop));
    Ok(Lines(lines))
}

async fn pump(
    mut reader: LogReader,
    follow: Follow,
    frames: mpsc::Sender<Frame<Bytes>>,
    mut stop: watch::Receiver<()>,
) {
    loop {
        let mut found = Vec::new();
        let progress = match reader.read(&mut found) {
            Ok(progress) => progress,
            Err(error) => {
                tracing::warn!(%error, "the audit log cannot be read");
                return;
            }
        };
        if !found.is_empty() && frames.send(Frame::data(found.into())).await.is_err() {
            return;
        }
        match (progress, follow) {
            (Progress::More, _) => tokio::task::yield_now().await,
            (Progress::End, Follow::No) => break,
            (Progress::End, Follow::Yes) => tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = frames.closed() => return,
                _ = stop.changed() => break,
            },
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert(
        HeaderName::from_static(BROKEN_LINES),
        HeaderValue::from(reader.broken_lines()),
    );
    // The client may have gone.
    let _ = frames.send(Frame::trailers(trailers)).await;
}
