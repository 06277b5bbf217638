//! What the conversion of every section shares: positions, problems, references to files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{
    duration::{RawDuration, Zero},
    error::{Problem, did_you_mean, listed},
    files::{Content, FileReference},
    location::Lines,
};

/// A configuration in the making. Sections report what is wrong and go on, with the default in
/// place of a value that is refused, so that one look at the file finds as much as it can: a draft
/// with a problem never becomes a configuration.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    lines: Lines,
    folder: &'a Path,
    problems: Vec<Problem>,
    files: Vec<FileReference>,
}

impl<'a> Draft<'a> {
    /// Nothing found yet. Relative paths start from `folder`.
    pub(super) fn new(lines: Lines, folder: &'a Path) -> Self {
        Self {
            lines,
            folder,
            problems: Vec::new(),
            files: Vec::new(),
        }
    }

    /// What was found: files to check if there is no problem.
    pub(super) fn finish(self) -> Result<Vec<FileReference>, Vec<Problem>> {
        if self.problems.is_empty() {
            Ok(self.files)
        } else {
            Err(self.problems)
        }
    }

    /// The line that a value stands on.
    pub(super) fn line<T>(&self, at: &Spanned<T>) -> usize {
        self.lines.number(at.span().start)
    }

    /// Reports a problem with a value.
    pub(super) fn report<T>(
        &mut self,
        at: &Spanned<T>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        let line = self.line(at);
        self.report_line(line, what, help);
    }

    /// Reports a problem with the whole file.
    pub(super) fn report_file(&mut self, what: impl Into<String>, help: impl Into<String>) {
        self.report_line(1, what, help);
    }

    fn report_line(&mut self, line: usize, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem {
            line,
            what: what.into(),
            help: help.into(),
        });
    }

    /// An absolute path.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// An absolute path to a file that must exist and hold `content`.
    pub(super) fn file(&mut self, path: &Spanned<PathBuf>, content: Content) -> PathBuf {
        let resolved = self.resolve(path.get_ref());
        self.refer(self.line(path), content, &resolved);
        resolved
    }

    /// A client certificate and its key: both in files, or neither.
    pub(super) fn client_certificate<T>(
        &mut self,
        section: &Spanned<T>,
        certificate: Option<&Spanned<PathBuf>>,
        private_key: Option<&Spanned<PathBuf>>,
    ) -> Option<(PathBuf, PathBuf)> {
        match (certificate, private_key) {
            (Some(certificate), Some(private_key)) => {
                let certificate = self.file(certificate, Content::Certificates);
                let content = Content::PrivateKeyOf(certificate.clone());
                Some((certificate, self.file(private_key, content)))
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.report(
                    section,
                    "`certificate` and `private_key` go together",
                    "write both, or neither",
                );
                None
            }
        }
    }

    /// Notes that a file is referred to on `line`.
    pub(super) fn refer(&mut self, line: usize, content: Content, path: &Path) {
        self.files.push(FileReference {
            line,
            path: path.to_owned(),
            content,
        });
    }

    /// The duration of `key`.
    pub(super) fn duration(
        &mut self,
        key: &str,
        value: &Spanned<RawDuration>,
        zero: Zero,
    ) -> Option<Duration> {
        value
            .get_ref()
            .parse(zero)
            .map_err(|bad| {
                let what = format!("`{key}` {}", bad.what);
                let help = format!("write a duration such as `{key} = \"{}\"`", bad.example);
                self.report(value, what, help);
            })
            .ok()
    }

    /// The duration of an optional `key`.
    pub(super) fn duration_or(
        &mut self,
        key: &str,
        value: Option<&Spanned<RawDuration>>,
        zero: Zero,
        default: Duration,
    ) -> Duration {
        value
            .and_then(|value| self.duration(key, value, zero))
            .unwrap_or(default)
    }

    /// The meaning of a word, for an optional `key` that takes one of a few. The first is the
    /// default.
    pub(super) fn word<T: Clone, const N: usize>(
        &mut self,
        key: &str,
        value: Option<&Spanned<String>>,
        words: [(&str, T); N],
    ) -> T {
        const { assert!(N > 0, "a key takes at least one word") };
        let default = words[0].1.clone();
        let Some(value) = value else {
            return default;
        };
        let meaning = words.iter().find(|(word, _)| word == value.get_ref());
        if meaning.is_none() {
            let what = format!("`{key}` cannot be `{}`", value.get_ref());
            let known = listed(words.iter().map(|(word, _)| *word));
            self.report(value, what, format!("write one of {known}"));
        }
        meaning.map_or(default, |(_, meaning)| meaning.clone())
    }

    /// A reference to a named section, whose names are `known`.
    pub(super) fn reference(
        &mut self,
        kind: &str,
        name: &Spanned<String>,
        known: &BTreeSet<&str>,
    ) -> Option<String> {
        let text = name.get_ref();
        if known.contains(text.as_str()) {
            return Some(text.clone());
        }
        let help = match did_you_mean(text, known.iter().copied()) {
            Some(candidate) => format!("did you mean `{candidate}`?"),
            None if known.is_empty() => format!("there is no {kind} yet: add one"),
            None => format!("write one of {}", listed(known.iter().copied())),
        };
        self.report(name, format!("there is no {kind} `{text}`"), help);
        None
    }

    /// Checks the name of a section.
    pub(super) fn name(&mut self, kind: &str, name: &Spanned<String>) {
        let text = name.get_ref();
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
            self.report(
                name,
                format!("`{}` cannot be the name of a {kind}", text.escape_debug()),
                "write at most 64 letters, digits, `-`, `_` and `.`",
            );
        }
    }
}
