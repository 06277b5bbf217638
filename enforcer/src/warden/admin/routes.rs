//! From requests to commands, and from answers to responses.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Incoming};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    AdminCommand, ApiError, Peer, Reply, RevokeRequest,
    audit::{self, Lines, Query},
};
use crate::{
    metrics,
    session::SessionId,
    warden::reload::{self, Version, read_version},
};

/// Longest body of a request.
const LONGEST_BODY: usize = 64 * 1024;
/// The same, where it holds a configuration.
const LONGEST_CONFIGURATION: usize = 8 * 1024 * 1024;
/// Longest wait for it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the core's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) type Answer = Response<Either<Full<Bytes>, Lines>>;

/// What requests are answered from.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) commands: mpsc::Sender<AdminCommand>,
    pub(super) audit_log: PathBuf,
    pub(super) history: PathBuf,
    pub(super) stop: watch::Receiver<()>,
}

impl Api {
    /// Answers a request of a peer that may ask.
    pub(super) async fn answer(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Result<Answer, Infallible> {
        Ok(self
            .route(peer, request)
            .await
            .unwrap_or_else(|e| refuse(&e)))
    }

    async fn route(&self, peer: Peer, request: Request<Incoming>) -> Result<Answer, ApiError> {
        let path = request.uri().path().to_owned();
        let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match (request.method(), &*segments) {
            (&Method::GET, ["v1", "status"]) => {
                json(&self.ask(|reply| AdminCommand::Status { reply }).await?)
            }
            (&Method::GET, ["v1", "metrics"]) => {
                let text = self.ask(|reply| AdminCommand::Metrics { reply }).await?;
                let body = Either::Left(text.into());
                Ok(respond(StatusCode::OK, metrics::CONTENT_TYPE, body))
            }
            (&Method::POST, ["v1", "canary"]) => {
                json(&self.ask(|reply| AdminCommand::Canary { reply }).await?)
            }
            (&Method::GET, ["v1", "sessions"]) => {
                json(&self.ask(|reply| AdminCommand::Sessions { reply }).await?)
            }
            (&Method::GET, ["v1", "sessions", id]) => self.session(id).await,
            (&Method::GET, ["v1", "audit"]) => {
                let query = Query::parse(request.uri().query().unwrap_or_default())?;
                let lines = audit::stream(&self.audit_log, query, self.stop.clone()).await?;
                Ok(respond(
                    StatusCode::OK,
                    "application/jsonl",
                    Either::Right(lines),
                ))
            }
            (&Method::POST, ["v1", "revoke"]) => self.revoke(peer, request.into_body()).await,
            (&Method::POST, ["v1", "reload"]) => {
                let request = read(request.into_body(), LONGEST_BODY).await?;
                let answer = self.ask(|reply| AdminCommand::Reload {
                    request,
                    peer,
                    reply,
                });
                json(&answer.await?.map_err(ApiError::refused)?)
            }
            (&Method::POST, ["v1", "simulate"]) => {
                let request = read(request.into_body(), LONGEST_CONFIGURATION).await?;
                let answer = self.ask(|reply| AdminCommand::Simulate { request, reply });
                json(&answer.await?.map_err(ApiError::refused)?)
            }
            (&Method::GET, ["v1", "configurations"]) => {
                let versions = history(&self.history).map_err(|error| {
                    ApiError::internal(format!("the history cannot be read: {error}"))
                })?;
                json(&versions)
            }
            (&Method::GET, ["v1", "configurations", number]) => self.version(number),
            (&Method::POST, ["v1", "unload"]) => {
                let answer = self
                    .ask(|reply| AdminCommand::Unload { peer, reply })
                    .await?;
                json(&answer.map_err(|failed| ApiError::internal(failed.to_string()))?)
            }
            (
                _,
                [
                    "v1",
                    "status" | "metrics" | "canary" | "sessions" | "audit" | "revoke" | "unload"
                    | "reload" | "simulate" | "configurations",
                ]
                | ["v1", "sessions" | "configurations", _],
            ) => Err(ApiError::method_not_allowed()),
            _ => Err(ApiError::not_found(format!("there is no {path}"))),
        }
    }

    async fn session(&self, id: &str) -> Result<Answer, ApiError> {
        let id: SessionId = match id.parse() {
            Ok(id) => id,
            Err(error) => return Err(ApiError::bad_request(error.to_string())),
        };
        let found = self
            .ask(|reply| AdminCommand::Session { id, reply })
            .await?;
        json(&found.ok_or_else(|| ApiError::not_found(format!("there is no live session {id}")))?)
    }

    async fn revoke<B>(&self, peer: Peer, body: B) -> Result<Answer, ApiError>
    where
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let request: RevokeRequest = read(body, LONGEST_BODY).await?;
        let selector = request.selector().ok_or_else(|| {
            ApiError::bad_request("exactly one of `id`, `subject` and `all` must be given")
        })?;
        let reason = request.reason;
        let outcome = self
            .ask(|reply| AdminCommand::Revoke {
                selector,
                reason,
                peer,
                reply,
            })
            .await?;
        json(&outcome)
    }

    fn version(&self, number: &str) -> Result<Answer, ApiError> {
        let missing = || ApiError::not_found(format!("there is no version {number}"));
        let number = number.parse().map_err(|_| missing())?;
        json(&read_version(&self.history, number).map_err(|_| missing())?)
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> AdminCommand) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ApiError::unavailable("the daemon is stopping")),
            Err(_) => Err(ApiError::unavailable("the daemon does not answer")),
        }
    }
}

/// The body of a request.
async fn read<T, B>(body: B, longest: usize) -> Result<T, ApiError>
where
    T: DeserializeOwned,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let body = Limited::new(body, longest).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| ApiError::bad_request("the body did not arrive in time"))?
        .map_err(|error| ApiError::bad_request(error.to_string()))?
        .to_bytes();
    serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// All versions of the configuration, without their texts, the newest last.
fn history(folder: &Path) -> std::io::Result<Vec<Version>> {
    let mut versions = reload::history(folder)?;
    for version in &mut versions {
        version.text.clear();
    }
    Ok(versions)
}

/// The answer to a request that failed.
pub(super) fn refuse(error: &ApiError) -> Answer {
    let body = serde_json::to_vec(error).unwrap_or_default();
    respond(
        error.status(),
        "application/json",
        Either::Left(body.into()),
    )
}

fn json(value: &impl Serialize) -> Result<Answer, ApiError> {
    let body = serde_json::to_vec(value).map_err(|error| ApiError::internal(error.to_string()))?;
    let body = Either::Left(body.into());
    Ok(respond(StatusCode::OK, "application/json", body))
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: Either<Full<Bytes>, Lines>,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
