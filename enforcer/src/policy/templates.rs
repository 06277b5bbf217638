//! Limits that rules and recommendations ask for, to start from.

use std::time::Duration;

/// A template of `[policies.NAME]`: what it sets may be overridden, and what it leaves open is as
/// if there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// As `template` names it.
    pub name: &'static str,
    /// What it comes from.
    pub source: &'static str,
    /// `max_session`.
    pub max_session: Option<Duration>,
    /// `idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// What the source says of it, or doesn't.
    pub note: &'static str,
}

impl Template {
    /// The template of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.name == name)
    }
}

const fn minutes(minutes: u64) -> Option<Duration> {
    Some(Duration::from_secs(minutes * 60))
}

const fn hours(hours: u64) -> Option<Duration> {
    minutes(hours * 60)
}

/// All of them.
pub const TEMPLATES: [Template; 10] = [
    Template {
        name: "nist-aal1",
        source: "NIST SP 800-63B-4, section 2.1.3 (authentication assurance level 1)",
        max_session: hours(30 * 24),
        idle_timeout: None,
        note: "re-authentication at least every 30 days; no limit of inactivity is asked for",
    },
    Template {
        name: "nist-aal2",
        source: "NIST SP 800-63B-4, section 2.2.3 (authentication assurance level 2)",
        max_session: hours(24),
        idle_timeout: hours(1),
        note: "re-authentication at least every 24 hours, and after an hour of inactivity",
    },
    Template {
        name: "nist-aal3",
        source: "NIST SP 800-63B-4, section 2.3.3 (authentication assurance level 3)",
        max_session: hours(12),
        idle_timeout: minutes(15),
        note: "re-authentication at least every 12 hours, and after 15 minutes of inactivity",
    },
    Template {
        name: "pci-dss",
        source: "PCI DSS 4.0.1, requirement 8.2.8",
        max_session: None,
        idle_timeout: minutes(15),
        note: "re-authentication after 15 minutes of inactivity; the rule has no longest session",
    },
    Template {
        name: "hipaa",
        source: "HIPAA Security Rule, 45 CFR 164.312(a)(2)(iii) (automatic logoff)",
        max_session: None,
        idle_timeout: minutes(15),
        note: "the rule names no number: 15 minutes are this project's choice",
    },
    Template {
        name: "fedramp",
        source: "FedRAMP baselines, NIST SP 800-53 AC-11 (device lock)",
        max_session: None,
        idle_timeout: minutes(15),
        note: "lock after 15 minutes of inactivity; the control has no longest session",
    },
    Template {
        name: "disa-privileged",
        source: "DISA STIGs, NIST SP 800-53 SC-10 (network disconnect), privileged sessions",
        max_session: None,
        idle_timeout: minutes(10),
        note: "disconnect after 10 minutes of inactivity; the control has no longest session",
    },
    Template {
        name: "disa-user",
        source: "DISA STIGs, NIST SP 800-53 SC-10 (network disconnect), user sessions",
        max_session: None,
        idle_timeout: minutes(15),
        note: "disconnect after 15 minutes of inactivity; the control has no longest session",
    },
    Template {
        name: "api-sensitive",
        source: "this project",
        max_session: minutes(15),
        idle_timeout: minutes(5),
        note: "no rule: for interfaces where a forgotten session costs much",
    },
    Template {
        name: "api-tolerant",
        source: "this project",
        max_session: hours(2),
        idle_timeout: hours(1),
        note: "no rule: for interfaces where it costs little",
    },
];
