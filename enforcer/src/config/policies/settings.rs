//! Where each value of a policy came from, for `enforcer policy show`.

use toml::Spanned;

use super::super::draft::Draft;
use crate::policy::Template;

/// The settings of a policy, in the order of the documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySettings {
    /// The template that it starts from.
    pub template: Option<&'static Template>,
    /// Every key that has a value.
    pub settings: Vec<Setting>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value, as text.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// What the template would have said, where the file overrides it.
    pub overridden: Option<String>,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This line of the file.
    Line(usize),
    /// The template.
    Template,
    /// The file says nothing.
    Default,
}

/// Notes settings down while they are converted.
pub(super) struct Recorder<'a, 'd> {
    pub(super) draft: &'a mut Draft<'d>,
    recorded: PolicySettings,
}

impl<'a, 'd> Recorder<'a, 'd> {
    pub(super) fn new(draft: &'a mut Draft<'d>, template: Option<&'static Template>) -> Self {
        Self {
            draft,
            recorded: PolicySettings {
                template,
                settings: Vec::new(),
            },
        }
    }

    pub(super) fn template(&self) -> Option<&'static Template> {
        self.recorded.template
    }

    pub(super) fn finish(self) -> PolicySettings {
        self.recorded
    }

    /// Takes the file's value, else the template's, else none.
    pub(super) fn or_template<T, R>(
        &mut self,
        key: &str,
        given: Option<(T, &Spanned<R>)>,
        template: Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        match (given, template) {
            (Some((value, at)), template) => {
                let line = self.draft.line(at);
                self.push(key, show(&value), Origin::Line(line));
                let overridden = template.as_ref().map(show);
                if let Some(setting) = self.recorded.settings.last_mut() {
                    setting.overridden = overridden.filter(|text| *text != setting.value);
                }
                Some(value)
            }
            (None, Some(value)) => {
                self.push(key, show(&value), Origin::Template);
                Some(value)
            }
            (None, None) => None,
        }
    }

    /// Notes a value that no template has: the file's, or the default.
    pub(super) fn note<R>(&mut self, key: &str, value: impl ToString, at: Option<&Spanned<R>>) {
        let origin = at.map_or(Origin::Default, |at| Origin::Line(self.draft.line(at)));
        self.push(key, value.to_string(), origin);
    }

    fn push(&mut self, key: &str, value: String, origin: Origin) {
        self.recorded.settings.push(Setting {
            key: key.to_owned(),
            value,
            origin,
            overridden: None,
        });
    }
}
