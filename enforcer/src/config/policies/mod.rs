//! `[policies.NAME]`.

mod conditions;
mod limits;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

pub use self::settings::{Origin, PolicySettings, Setting};
pub(super) use conditions::requirements;

use super::{
    draft::Draft,
    error::{did_you_mean, listed},
    raw::{Named, RawPolicy},
};
use crate::policy::{Policy, TEMPLATES, Template};
use settings::Recorder;

/// What policies may refer to.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// The names of token issuers.
    pub(super) issuers: BTreeSet<&'a str>,
    /// Some listener takes certificates, whose issuers nobody here knows.
    pub(super) takes_certificates: bool,
}

pub(super) fn convert(
    draft: &mut Draft<'_>,
    raw: Named<RawPolicy>,
    known: &Known<'_>,
) -> (BTreeMap<String, Policy>, BTreeMap<String, PolicySettings>) {
    if raw.is_empty() {
        draft.report_file(
            "there is no policy",
            "add a section `[policies.standard]` with `max_session`",
        );
    }
    let mut policies = BTreeMap::new();
    let mut settings = BTreeMap::new();
    for (name, raw) in raw {
        draft.name("policy", &name);
        let template = template(draft, &raw);
        let mut recorder = Recorder::new(draft, template);
        let limits = limits::convert(&mut recorder, &name, &raw);
        let matches = conditions::matches(&mut recorder, raw.matches.as_ref(), known);
        let require = conditions::policy_requirements(&mut recorder, raw.require.as_ref());
        let hours = conditions::hours(&mut recorder, raw.hours.as_ref());
        let recorded = recorder.finish();
        if let Some(limits) = limits {
            let policy = Policy {
                limits,
                matches,
                require,
                hours,
            };
            policies.insert(name.get_ref().clone(), policy);
            settings.insert(name.into_inner(), recorded);
        }
    }
    (policies, settings)
}

fn template(draft: &mut Draft<'_>, raw: &RawPolicy) -> Option<&'static Template> {
    let name = raw.template.as_ref()?;
    let template = Template::named(name.get_ref());
    if template.is_none() {
        let names = || TEMPLATES.iter().map(|template| template.name);
        let help = match did_you_mean(name.get_ref(), names()) {
            Some(candidate) => format!("did you mean `{candidate}`?"),
            None => format!("write one of {}", listed(names())),
        };
        let what = format!("there is no template `{}`", name.get_ref().escape_debug());
        draft.report(name, what, help);
    }
    template
}
