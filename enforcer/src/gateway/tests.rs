//! The gateway as a whole, unsealed, between a warden, an upstream and clients that the tests
//! play.

mod endpoints;
mod harness;
mod http;
mod http2;
mod http2_upstream;
mod interim;
pub(crate) mod issuer;
mod life;
mod postgres;
mod proxy;
mod tcp;
mod tunnel;
mod websocket;
