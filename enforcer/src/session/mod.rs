//! A session: one authenticated principal's right to use the service. Pure.

mod gaps;
mod identity;
mod machine;

pub use gaps::{Gap, IdleGaps, class, class_begin};
pub use identity::{
    CertificateId, Credential, EndReason, KeyThumbprint, Principal, SessionId, SessionKey,
    ShownCertificate,
};
pub use machine::{Course, KeyUse, Limit, Phase, Refused, Session, Step, Voucher};
