//! What is wrong with a configuration, where, and what to write instead.

use std::{fmt, io, path::PathBuf};

/// A configuration that cannot be used. Always the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself cannot be read.
    #[error("{}: cannot be read\nhelp: {}", .path.display(), reading_help(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and is wrong: for each problem, two lines `FILE:LINE: what is wrong` and
    /// `help: what to write instead`.
    #[error("{}", Report(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in the order of its lines; never empty.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to write or do instead.
    pub help: String,
}

struct Report<'a>(&'a PathBuf, &'a [Problem]);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, problems) = self;
        for (index, Problem { line, what, help }) in problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(
                f,
                "{separator}{}:{line}: {what}\nhelp: {help}",
                path.display()
            )?;
        }
        Ok(())
    }
}

/// What to do about a file that cannot be read.
pub(crate) fn reading_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create the file, or correct the path",
        io::ErrorKind::PermissionDenied => "run as root, or correct the owner and mode of the file",
        io::ErrorKind::InvalidData => "write the file in UTF-8",
        io::ErrorKind::IsADirectory => "write the path of a file, not of a folder",
        _ => "see the cause",
    }
}

/// The candidate that `word` is most likely a slip of.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b`, `c` ``
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}
