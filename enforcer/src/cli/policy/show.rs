//! `enforcer policy show`.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, bail};
use serde::Serialize;

use super::ShowArgs;
use crate::{
    cli::{
        output::{print, print_json},
        text::{printable, table},
    },
    config::{Config, Origin, PolicySettings, Setting},
};

/// A policy as JSON.
#[derive(Debug, Serialize)]
struct PolicyView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<TemplateRef>,
    settings: Vec<SettingView<'a>>,
}

#[derive(Debug, Serialize)]
struct TemplateRef {
    name: &'static str,
    source: &'static str,
}

#[derive(Debug, Serialize)]
struct SettingView<'a> {
    key: &'a str,
    value: &'a str,
    /// `file`, `template` or `default`.
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// What the template says, where the file says something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    overridden: Option<&'a str>,
}

pub(super) fn run(args: &ShowArgs) -> Result<ExitCode> {
    let (_, mut settings) = Config::load_with_settings(&args.config)?;
    if let Some(name) = &args.name {
        if !settings.contains_key(name) {
            let known: Vec<_> = settings.keys().map(String::as_str).collect();
            bail!(
                "there is no policy `{name}`: write one of {}",
                known.join(", ")
            );
        }
        settings.retain(|held, _| held == name);
    }
    let views: Vec<_> = settings.iter().map(view).collect();
    if args.json {
        print_json(&views)?;
    } else {
        let file = args.config.display().to_string();
        print(|out| writeln!(out, "{}", for_people(&settings, &file)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn view<'a>((name, settings): (&'a String, &'a PolicySettings)) -> PolicyView<'a> {
    let settings_view = |setting: &'a Setting| SettingView {
        key: &setting.key,
        value: &setting.value,
        origin: match setting.origin {
            Origin::Line(_) => "file",
            Origin::Template => "template",
            Origin::Default => "default",
        },
        line: match setting.origin {
            Origin::Line(line) => Some(line),
            Origin::Template | Origin::Default => None,
        },
        overridden: setting.overridden.as_deref(),
    };
    PolicyView {
        name,
        template: settings.template.map(|template| TemplateRef {
            name: template.name,
            source: template.source,
        }),
        settings: settings.settings.iter().map(settings_view).collect(),
    }
}

fn for_people(policies: &BTreeMap<String, PolicySettings>, file: &str) -> String {
    let sections: Vec<_> = policies
        .iter()
        .map(|(name, policy)| {
            let mut title = name.clone();
            if let Some(template) = policy.template {
                title = format!("{name}: template {}, {}", template.name, template.source);
            }
            let rows = policy.settings.iter().map(|setting| {
                vec![
                    setting.key.clone(),
                    setting.value.clone(),
                    origin(setting, policy, file),
                ]
            });
            format!(
                "{}\n{}",
                printable(&title),
                table(&["KEY", "VALUE", "FROM"], rows)
            )
        })
        .collect();
    sections.join("\n\n")
}

fn origin(setting: &Setting, policy: &PolicySettings, file: &str) -> String {
    let template = policy.template.map_or("", |template| template.name);
    match (setting.origin, &setting.overridden) {
        (Origin::Line(line), Some(value)) => {
            format!("{file}:{line}, instead of {value} ({template})")
        }
        (Origin::Line(line), None) => format!("{file}:{line}"),
        (Origin::Template, _) => format!("template {template}"),
        (Origin::Default, _) => "default".to_owned(),
    }
}
