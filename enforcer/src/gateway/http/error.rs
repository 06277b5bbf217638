//! Errors of the libraries that speak HTTP.

use h2::Reason;

/// Why a connection, or a body on it, came to an end before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

/// What ends a body, as HTTP/2 says it to the other side.
pub(crate) trait Fault {
    /// What a stream is reset with.
    fn reason(&self) -> Reason;
}

impl Fault for HttpError {
    /// The other side's own word, where it had one.
    fn reason(&self) -> Reason {
        match self {
            Self::Http1(_) => None,
            Self::Http2(error) => error.reason(),
        }
        .unwrap_or(Reason::INTERNAL_ERROR)
    }
}
