//! The policies of a route, and what it asks of requests itself.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use super::super::{draft::Draft, policies, raw::RawRoute};
use crate::policy::{Policy, Requirements};

/// What a route says of policies.
#[derive(Debug)]
pub(in super::super) struct Attached {
    /// Their names; what is wrong with them has been reported.
    pub(in super::super) policies: Vec<String>,
    pub(in super::super) require: Requirements,
}

pub(super) fn convert(
    draft: &mut Draft<'_>,
    at: &Spanned<RawRoute>,
    known: &BTreeSet<&str>,
) -> Attached {
    let raw = at.get_ref();
    let require = policies::requirements(draft, raw.require.as_ref());
    let names = match (&raw.policy, &raw.policies) {
        (None, None) => {
            draft.report(
                at,
                "key `policy` is missing",
                "add `policy = \"NAME\"` with the name of a policy, or `policies` with several",
            );
            Vec::new()
        }
        (Some(_), Some(several)) => {
            draft.report(
                several,
                "`policy` and `policies` are the same thing",
                "write all names in `policies`, and remove `policy`",
            );
            Vec::new()
        }
        (Some(one), None) => draft.reference("policy", one, known).into_iter().collect(),
        (None, Some(several)) => {
            if several.get_ref().is_empty() {
                draft.report(
                    several,
                    "`policies` is empty: nothing would limit a session",
                    "write the name of a policy at least",
                );
            }
            let mut names = Vec::new();
            for name in several.get_ref() {
                if names.contains(name.get_ref()) {
                    let what = format!("the policy `{}` is there twice", name.get_ref());
                    draft.report(name, what, "remove one of the two");
                }
                names.extend(draft.reference("policy", name, known));
            }
            names
        }
    };
    Attached {
        policies: names,
        require,
    }
}

/// A certificate makes no claims: what only a token can meet would keep everybody out.
pub(super) fn report_token_requirements(
    draft: &mut Draft<'_>,
    at: &Spanned<RawRoute>,
    attached: &Attached,
    policies: &BTreeMap<String, Policy>,
) {
    let help = "remove it, or lead the route from an HTTP listener; `networks`, `hours` and limits \
                fit TCP listeners";
    if let (Some(key), Some(require)) = (
        attached.require.needs_token(),
        at.get_ref().require.as_ref(),
    ) {
        let what = format!("`{key}` is asked of clients that show certificates, which have none");
        draft.report(require, what, help);
    }
    for name in &attached.policies {
        let policy = policies.get(name);
        if let Some(key) = policy.and_then(|policy| policy.require.needs_token()) {
            let what = format!(
                "the policy `{name}` asks for `{key}`, which no certificate has: nobody could \
                 connect"
            );
            let raw = at.get_ref();
            let named = raw.policies.iter().flat_map(|names| names.get_ref());
            match named.chain(&raw.policy).find(|it| it.get_ref() == name) {
                Some(named) => draft.report(named, what, help),
                None => draft.report(at, what, help),
            }
        }
    }
}
