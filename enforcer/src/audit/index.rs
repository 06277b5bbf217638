//! What records can be found by: columns beside the record's text, and always what it says.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::{Record, rfc3339};
use crate::{clock::WallInstant, session::SessionId};

/// The columns of a record. Read from the text of one of a later version, they are what this one
/// understands of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Indexed {
    #[serde(with = "rfc3339")]
    pub(super) time: WallInstant,
    pub(super) event: String,
    pub(super) session: Option<SessionId>,
    pub(super) subject: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) client: Option<SocketAddr>,
    pub(super) proxied_client: Option<SocketAddr>,
}

impl Indexed {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            time: record.time,
            event: record.event.as_str().to_owned(),
            session: record.session,
            subject: record.subject.clone(),
            reason: record.reason.as_ref().map(ToString::to_string),
            client: record.client,
            proxied_client: record.proxied_client,
        }
    }
}

/// Microseconds since the epoch: as exact as the text.
pub(super) const fn time_column(time: WallInstant) -> i64 {
    time.as_unix_nanos().div_euclid(1_000)
}

/// Both families in one order, so that a network is one range.
pub(super) fn address_column(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

pub(super) const fn session_column(session: SessionId) -> i64 {
    session.as_u64().cast_signed()
}
