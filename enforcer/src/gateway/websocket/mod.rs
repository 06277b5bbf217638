//! WebSockets (RFC 6455): the handshake, and the frames of both directions.

pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod relay;
