//! A session: one authenticated principal's right to use the service.

mod identity;

pub use identity::{Credential, EndReason, Principal, SessionId, SessionKey};
