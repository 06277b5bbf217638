//! HTTP/1.1 and HTTP/2 towards clients.

pub(crate) mod bearer;
pub(crate) mod body;
mod endpoints;
pub(crate) mod error;
pub(crate) mod forward;
pub(crate) mod frames;
pub(crate) mod grpc;
pub(crate) mod guarded;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod host;
pub(crate) mod http2;
pub(crate) mod inspect;
pub(crate) mod interim;
mod observation;
pub(crate) mod path;
pub(crate) mod route;
pub(crate) mod service;
