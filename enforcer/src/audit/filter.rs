//! Which records: as it is asked for, and as the database understands it.

use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::types::Value;

use super::{
    Event,
    index::{address_column, session_column, time_column},
    rfc3339,
};
use crate::{clock::WallInstant, session::SessionId};

/// Which records to show. What is absent leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not older than this.
    pub since: Option<WallInstant>,
    /// Older than this.
    pub until: Option<WallInstant>,
    /// Of this subject.
    pub subject: Option<String>,
    /// With a client, announced by a proxy or not, or an upstream in this network.
    pub address: Option<IpNet>,
    /// Telling of this event.
    pub event: Option<Event>,
    /// With this reason.
    pub reason: Option<String>,
    /// With this among the policies that apply.
    pub policy: Option<String>,
    /// Of this session.
    pub session: Option<SessionId>,
}

/// Conditions on `records`, and the values in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Condition {
    fn and(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.extend(values);
    }
}

impl Filter {
    /// The whole filter, to go through the records in their order. A plus keeps the database from
    /// an index that would have to be sorted for each page.
    pub(super) fn condition(&self) -> Condition {
        let mut condition = self.times("+time");
        if let Some(subject) = &self.subject {
            condition.and("subject = ?", [subject.clone().into()]);
        }
        if let Some(session) = self.session {
            condition.and("session = ?", [session_column(session).into()]);
        }
        if let Some(network) = &self.address {
            let [first, last] = range(network);
            if first == last {
                let values = [first.clone().into(), last.into()];
                condition.and("(client = ? OR proxied_client = ?)", values);
            } else {
                let values = [first.clone(), last.clone(), first, last].map(Value::from);
                condition.and(
                    "(+client BETWEEN ? AND ? OR +proxied_client BETWEEN ? AND ?)",
                    values,
                );
            }
        }
        // What few records have chooses the index; these two do not.
        let chosen = self.subject.is_some() || self.session.is_some();
        let plus = if chosen { "+" } else { "" };
        if let Some(event) = self.event {
            let sql = format!("{plus}event = ?");
            condition.and(&sql, [event.as_str().to_owned().into()]);
        }
        if let Some(reason) = &self.reason {
            condition.and(&format!("{plus}reason = ?"), [reason.clone().into()]);
        }
        if let Some(policy) = &self.policy {
            condition.and(
                "EXISTS (SELECT 1 FROM json_each(record, '$.policies') WHERE value = ?)",
                [policy.clone().into()],
            );
        }
        condition
    }

    /// Only the times, to find where to begin and end.
    pub(super) fn times(&self, column: &str) -> Condition {
        let mut condition = Condition::default();
        if let Some(since) = self.since {
            condition.and(&format!("{column} >= ?"), [time_column(since).into()]);
        }
        if let Some(until) = self.until {
            condition.and(&format!("{column} < ?"), [time_column(until).into()]);
        }
        condition
    }

    /// It says something of the time.
    pub(super) const fn has_times(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }
}

/// The first and last address of a network, as columns.
fn range(network: &IpNet) -> [Vec<u8>; 2] {
    let last = match network {
        IpNet::V4(network) => IpAddr::V4(network.broadcast()),
        IpNet::V6(network) => IpAddr::V6(network.broadcast()),
    };
    [network.network(), last].map(|address| address_column(address).to_vec())
}

/// What a name or a value of a filter should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFilter(String);

impl InvalidFilter {
    fn new(problem: impl ToString) -> Self {
        Self(problem.to_string())
    }
}

/// An address, or a network in CIDR notation.
///
/// # Errors
/// If it is neither.
pub fn parse_network(text: &str) -> Result<IpNet, InvalidFilter> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            InvalidFilter(format!(
                "`{text}` is no address: write one such as 192.0.2.7, or a network such as \
                 192.0.2.0/24"
            ))
        })?,
    };
    Ok(network.trunc())
}

/// As parameters of a URL, both ways.
impl Filter {
    /// Names and values of what is present.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let present: [(&'static str, Option<String>); 8] = [
            ("since", self.since.map(|since| since.to_string())),
            ("until", self.until.map(|until| until.to_string())),
            ("subject", self.subject.clone()),
            ("address", self.address.map(|network| network.to_string())),
            ("event", self.event.map(|event| event.to_string())),
            ("reason", self.reason.clone()),
            ("policy", self.policy.clone()),
            ("session", self.session.map(|session| session.to_string())),
        ];
        let present = present.into_iter();
        present
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// Takes in a parameter. False if it is none of a filter's.
    ///
    /// # Errors
    /// If the value is not one for this name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, InvalidFilter> {
        let instant = || rfc3339::parse(value).map_err(InvalidFilter::new);
        match name {
            "since" => self.since = Some(instant()?),
            "until" => self.until = Some(instant()?),
            "subject" => self.subject = Some(value.to_owned()),
            "address" => self.address = Some(parse_network(value)?),
            "event" => self.event = Some(value.parse().map_err(InvalidFilter::new)?),
            "reason" => self.reason = Some(value.to_owned()),
            "policy" => self.policy = Some(value.to_owned()),
            "session" => self.session = Some(value.parse().map_err(InvalidFilter::new)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read_back_what_they_were_made_of() {
        let filter = Filter {
            since: Some(WallInstant::from_unix_seconds(1)),
            until: Some(WallInstant::from_unix_seconds(2)),
            subject: Some("a&b=c é".to_owned()),
            address: Some(parse_network("192.0.2.77/24").unwrap()),
            event: Some(Event::SessionEnded),
            reason: Some("deadline".to_owned()),
            policy: Some("admin".to_owned()),
            session: SessionId::from_u64(10),
        };
        let mut read = Filter::default();
        let parameters = filter.parameters();
        assert_eq!(parameters.len(), 8);
        for (name, value) in parameters {
            assert_eq!(read.set(name, &value), Ok(true), "{name}");
        }
        assert_eq!(read, filter);
        assert_eq!(read.set("folow", "true"), Ok(false));
        for (name, value) in [("since", "yesterday"), ("address", "x"), ("session", "1")] {
            assert!(read.set(name, value).is_err(), "{name}");
        }
    }

    #[test]
    fn an_address_is_a_network_of_its_own() {
        assert_eq!(
            parse_network("192.0.2.7").unwrap().to_string(),
            "192.0.2.7/32"
        );
        assert_eq!(
            parse_network("::ffff:192.0.2.7").unwrap().to_string(),
            "192.0.2.7/32"
        );
        assert_eq!(
            parse_network("2001:db8::/32").unwrap().to_string(),
            "2001:db8::/32"
        );
    }
}
