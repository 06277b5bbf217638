//! The stream of audit records, read straight from the database by a thread of its own: a search
//! may take a while.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};

use super::ApiError;
use crate::audit::{AuditReader, Filter, ReadError, StoredRecord};

/// How often a followed log is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Records taken at a time.
const PAGE: usize = 500;

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    filter: Filter,
    follow: bool,
    limit: Option<u64>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "follow" => {
                    parsed.follow = match &*value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(ApiError::bad_request("`follow` is true or false")),
                    };
                }
                "limit" => {
                    let limit = value.parse();
                    let limit = limit.map_err(|_| ApiError::bad_request("`limit` is a number"))?;
                    parsed.limit = Some(limit);
                }
                _ => match parsed.filter.set(&name, &value) {
                    Ok(true) => {}
                    Ok(false) => {
                        let problem = format!("unknown parameter `{name}`");
                        return Err(ApiError::bad_request(problem));
                    }
                    Err(invalid) => return Err(ApiError::bad_request(invalid.to_string())),
                },
            }
        }
        Ok(parsed)
    }

    fn open(&self, database: &Path) -> Result<AuditReader, ReadError> {
        let filter = self.filter.clone();
        let mut reader = if self.follow {
            AuditReader::follow(database, filter)?
        } else {
            AuditReader::open(database, filter)?
        };
        if let Some(limit) = self.limit {
            reader.skip_to_latest(limit)?;
        }
        Ok(reader)
    }
}

/// Body of the answer: lines as they come. One that can't be read to its end breaks off.
#[derive(Debug)]
pub(super) struct Lines(mpsc::Receiver<io::Result<Frame<Bytes>>>);

impl Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context)
    }
}

/// Opens the log and starts to read it, until its end, the client's or the server's.
pub(super) async fn stream(
    database: &Path,
    query: Query,
    stop: watch::Receiver<()>,
) -> Result<Lines, ApiError> {
    let follow = query.follow;
    let path = database.to_owned();
    let opened = tokio::task::spawn_blocking(move || query.open(&path)).await;
    let reader = match opened {
        Ok(Ok(reader)) => reader,
        Ok(Err(error)) => return Err(ApiError::unavailable(error.with_cause())),
        Err(error) => return Err(ApiError::internal(error.to_string())),
    };
    let (frames, lines) = mpsc::channel(1);
    tokio::spawn(pump(reader, follow, frames, stop));
    Ok(Lines(lines))
}

async fn pump(
    mut reader: AuditReader,
    follow: bool,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
    mut stop: watch::Receiver<()>,
) {
    loop {
        let reading = tokio::task::spawn_blocking(move || {
            let read = reader.read(PAGE);
            (reader, read)
        });
        let Ok((back, read)) = reading.await else {
            return;
        };
        reader = back;
        match read {
            Err(error) => {
                tracing::warn!("{}", error.with_cause());
                // The client may have gone.
                let _ = frames.send(Err(io::Error::other(error))).await;
                return;
            }
            Ok(records) if records.is_empty() && !follow => return,
            Ok(records) if records.is_empty() => tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = frames.closed() => return,
                _ = stop.changed() => return,
            },
            Ok(records) => {
                if frames.send(Ok(Frame::data(lines(&records)))).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn lines(records: &[StoredRecord]) -> Bytes {
    let mut lines = String::new();
    for record in records {
        lines += &record.line();
        lines.push('\n');
    }
    lines.into()
}
