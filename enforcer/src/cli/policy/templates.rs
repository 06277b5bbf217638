//! `enforcer policy templates`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::{
        output::{print, print_json},
        text::{or_nothing, table},
    },
    policy::{TEMPLATES, Template},
};

/// A template as JSON.
#[derive(Debug, Serialize)]
struct TemplateView {
    name: &'static str,
    max_session: Option<String>,
    idle_timeout: Option<String>,
    source: &'static str,
    note: &'static str,
}

impl From<&Template> for TemplateView {
    fn from(template: &Template) -> Self {
        Self {
            name: template.name,
            max_session: shown(template.max_session),
            idle_timeout: shown(template.idle_timeout),
            source: template.source,
            note: template.note,
        }
    }
}

fn shown(duration: Option<Duration>) -> Option<String> {
    duration.map(|duration| humantime::format_duration(duration).to_string())
}

pub(super) fn run(json: bool) -> Result<ExitCode> {
    let views: Vec<_> = TEMPLATES.iter().map(TemplateView::from).collect();
    if json {
        print_json(&views)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&views)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(views: &[TemplateView]) -> String {
    let limits = table(
        &["NAME", "MAX_SESSION", "IDLE_TIMEOUT", "SOURCE"],
        views.iter().map(|view| {
            vec![
                view.name.to_owned(),
                or_nothing(view.max_session.as_ref()),
                or_nothing(view.idle_timeout.as_ref()),
                view.source.to_owned(),
            ]
        }),
    );
    let notes = table(
        &["NAME", "NOTE"],
        views
            .iter()
            .map(|view| vec![view.name.to_owned(), view.note.to_owned()]),
    );
    format!("{limits}\n\n{notes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_its_source() {
        let views: Vec<_> = TEMPLATES.iter().map(TemplateView::from).collect();
        let text = for_people(&views);
        for template in TEMPLATES {
            assert!(text.contains(template.source), "{}", template.name);
            assert!(text.contains(template.note), "{}", template.name);
        }
        let line = text.lines().find(|line| line.starts_with("nist-aal2"));
        assert!(
            line.unwrap()
                .starts_with("nist-aal2        1day         1h"),
            "{text}"
        );
    }
}
