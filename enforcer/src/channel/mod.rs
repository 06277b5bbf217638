//! What warden and gateway say to each other: one message a packet on a `SOCK_SEQPACKET` socket,
//! encoded with postcard.
//!
//! A gateway starts with the channel as its standard input. The first message is
//! [`ToGateway::Start`], with file descriptors; the gateway seals itself and then serves. When a
//! warden dies its gateways serve on without a channel; the next warden connects to each one's
//! handover socket, and that connection becomes the gateway's channel.

mod message;
mod transport;

pub use message::{
    BoundRole, CanaryEnd, CanaryReport, Delivery, EndCause, ExportBatch, ExportOutcome, Kinship,
    MAX_EXPORT, METRICS_LISTENER, Refusal, RefusedRequest, Request, SessionLimits, SessionUsage,
    SessionView, ToGateway, ToWarden,
};
#[cfg(fuzzing)]
pub(crate) use transport::decode;
pub use transport::{MAX_MESSAGE, Transport, receive_blocking, send_blocking};
