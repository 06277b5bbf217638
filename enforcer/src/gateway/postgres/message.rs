//! The messages that the gateway itself says. Pure.

use super::packet::CancelKey;

/// Types of messages that are more than passed on.
pub(super) mod kind {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    /// Also SASLInitialResponse, SASLResponse and GSSResponse.
    pub(crate) const PASSWORD: u8 = b'p';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const TERMINATE: u8 = b'X';
}

/// Requests for authentication.
pub(super) mod authentication {
    pub(crate) const OK: u32 = 0;
    pub(crate) const CLEARTEXT_PASSWORD: u32 = 3;
    pub(crate) const MD5_PASSWORD: u32 = 5;
    pub(crate) const SASL: u32 = 10;
    pub(crate) const SASL_CONTINUE: u32 = 11;
    pub(crate) const SASL_FINAL: u32 = 12;
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// The connection ends.
    Fatal,
    Warning,
}

/// An ErrorResponse or a NoticeResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report<'a> {
    pub(super) severity: Severity,
    /// SQLSTATE.
    pub(super) code: &'static str,
    pub(super) message: &'a str,
    pub(super) detail: Option<&'a str>,
    pub(super) hint: Option<&'a str>,
}

impl Report<'_> {
    /// The message.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (kind, severity) = match self.severity {
            Severity::Fatal => (kind::ERROR_RESPONSE, "FATAL"),
            Severity::Warning => (kind::NOTICE_RESPONSE, "WARNING"),
        };
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.code)),
            (b'M', Some(self.message)),
            (b'D', self.detail),
            (b'H', self.hint),
        ];
        let mut body = Vec::new();
        for (field, text) in fields {
            if let Some(text) = text {
                body.push(field);
                body.extend(text.bytes().filter(|byte| *byte != 0));
                body.push(0);
            }
        }
        body.push(0);
        message(kind, &body)
    }
}

/// A request for the password as it is.
pub(super) fn ask_for_password() -> Vec<u8> {
    let request = authentication::CLEARTEXT_PASSWORD.to_be_bytes();
    message(kind::AUTHENTICATION, &request)
}

/// NegotiateProtocolVersion: what is spoken instead of what was asked for.
pub(super) fn negotiate(minor: u16, unknown_options: &[String]) -> Vec<u8> {
    let version = (3 << 16) | u32::from(minor);
    let count = u32::try_from(unknown_options.len()).unwrap_or(u32::MAX);
    let mut body = [version.to_be_bytes(), count.to_be_bytes()].concat();
    for option in unknown_options {
        body.extend_from_slice(option.as_bytes());
        body.push(0);
    }
    message(kind::NEGOTIATE_PROTOCOL_VERSION, &body)
}

/// BackendKeyData.
pub(super) fn key_data(key: &CancelKey) -> Vec<u8> {
    message(kind::BACKEND_KEY_DATA, &key.bytes())
}

/// AuthenticationSASL with these mechanisms.
pub(super) fn ask_for_sasl<'a>(mechanisms: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut body = authentication::SASL.to_be_bytes().to_vec();
    for mechanism in mechanisms {
        body.extend_from_slice(mechanism.as_bytes());
        body.push(0);
    }
    body.push(0);
    message(kind::AUTHENTICATION, &body)
}

/// Terminate.
pub(super) fn terminate() -> Vec<u8> {
    message(kind::TERMINATE, &[])
}

/// A message of this type.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_its_fields_and_an_end() {
        let report = Report {
            severity: Severity::Fatal,
            code: "57P05",
            message: "the session\0 has ended",
            detail: None,
            hint: Some("open another"),
        };
        let body = b"SFATAL\0VFATAL\0C57P05\0Mthe session has ended\0Hopen another\0\0";
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        assert_eq!(report.to_bytes(), [b"E", &length[..], body].concat());
    }

    #[test]
    fn the_version_is_told_with_the_options_that_are_unknown() {
        let told = negotiate(2, &["_pq_.x".to_owned()]);
        assert_eq!(told[..5], *b"v\0\0\0\x13");
        assert_eq!(told[5..], *b"\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    }
}
