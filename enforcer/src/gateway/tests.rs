//! The gateway as a whole, unsealed, between a warden, an upstream and clients that the tests
//! play.

mod harness;
mod http;
mod life;
mod proxy;
mod tcp;
mod websocket;
