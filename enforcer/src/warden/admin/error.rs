//! What goes wrong with a request, and how the client hears of it.

use std::borrow::Cow;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable code: `bad_request`, `forbidden`, `not_found`, `method_not_allowed`, `unavailable`
    /// `internal`, or a [`RefusalCode`](super::RefusalCode).
    pub code: Cow<'static, str>,
    /// The same in words.
    pub message: String,
}

impl ApiError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code),
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new("bad_request", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new("forbidden", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new("not_found", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new("method_not_allowed", "the resource has no such method")
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new("unavailable", message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new("internal", message)
    }

    pub(super) fn refused(refused: super::ReloadRefused) -> Self {
        Self::new(refused.code.as_str(), refused.message)
    }

    pub(super) fn status(&self) -> StatusCode {
        match &*self.code {
            "bad_request" => StatusCode::BAD_REQUEST,
            "forbidden" => StatusCode::FORBIDDEN,
            "not_found" => StatusCode::NOT_FOUND,
            "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "unreadable" | "invalid" | "needs_restart" | "too_many_cut" | "locks_out"
            | "listener" | "gateway" => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
