//! The files that make the daemon take another configuration by themselves: its own, and those that
//! this names.

use std::path::Path;

use super::{NamedFiles, Origin, Read};
use crate::kernel::file_watch::FileWatch;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// None while `daemon.watch` is off.
    watch: Option<FileWatch>,
    /// The configuration in force.
    in_force: Seen,
    /// The one that was read last.
    read: Seen,
    /// The last one that was refused: it is not refused twice.
    refused: Option<Seen>,
    /// What the daemon's file said when an operator went back to an earlier version: it is not
    /// applied before it says something else.
    overruled: Option<String>,
}

/// A configuration, and the files that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    text: String,
    named: NamedFiles,
}

impl Watching {
    /// The daemon has started with the text of the file at `path`. Needs a tokio runtime.
    pub(super) fn new(path: &Path, text: &str, wanted: bool) -> Self {
        let in_force = Seen {
            text: text.to_owned(),
            named: if wanted {
                NamedFiles::look(text, path)
            } else {
                NamedFiles::default()
            },
        };
        let mut watching = Self {
            read: in_force.clone(),
            in_force,
            ..Self::default()
        };
        watching.start(path, wanted);
        watching
    }

    /// Watches what is named now, at the places where it is now. What has changed before is not
    /// seen: it is to be looked for.
    pub(super) fn start(&mut self, path: &Path, wanted: bool) {
        self.watch = None;
        if wanted {
            let named = self.in_force.named.paths().chain(self.read.named.paths());
            self.watch = FileWatch::start(std::iter::once(path).chain(named))
                .map_err(|error| tracing::error!("{} cannot be watched: {error}", path.display()))
                .ok();
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.watch.is_some()
    }

    /// Waits until one of them has changed. May be given up and asked again.
    pub(super) async fn changed(&mut self) {
        match &mut self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// What the daemon's file says while it is not to be applied.
    pub(super) fn overruled(&self) -> Option<&str> {
        self.overruled.as_deref()
    }

    /// A candidate was read. False if it is nothing new to a watched file: it is in force, or was
    /// refused already, or is not there for a moment.
    pub(super) fn note_read(&mut self, origin: Origin, read: &Read) -> bool {
        let (Ok((_, text)) | Err((Some(text), _))) = &read.outcome else {
            return origin != Origin::Watch;
        };
        self.read = Seen {
            text: text.clone(),
            named: read.named.clone(),
        };
        let known = self.read == self.in_force || self.refused.as_ref() == Some(&self.read);
        origin != Origin::Watch || !known
    }

    /// What was read last is in force. `overruled`: the text of the daemon's file, if that is
    /// another.
    pub(super) fn note_applied(&mut self, overruled: Option<String>) {
        self.in_force.clone_from(&self.read);
        self.overruled = overruled.filter(|text| *text != self.in_force.text);
        self.refused = None;
    }

    /// What was read last is refused.
    pub(super) fn note_refused(&mut self) {
        self.refused = Some(self.read.clone());
    }
}
