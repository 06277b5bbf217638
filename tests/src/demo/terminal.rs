//! Output: lines that stay and one that lives. Nothing is changed that would have to be restored.

use std::io::{self, IsTerminal as _, Write as _};

/// Where the demonstration is seen.
#[derive(Debug)]
pub(super) struct Terminal {
    live: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self {
            live: io::stdout().is_terminal(),
        }
    }

    /// A headline.
    pub(super) fn title(&self, text: &str) {
        if self.live {
            println!("\n\x1b[1m{text}\x1b[0m");
        } else {
            println!("\n{text}");
        }
    }

    /// Text that stays, indented.
    pub(super) fn say(&self, text: &str) {
        self.erase();
        for line in text.lines() {
            println!("  {line}");
        }
    }

    /// The line that lives: replaces what it was before. Shown only where it can be replaced.
    pub(super) fn live(&self, text: &str) {
        if self.live {
            print!("\r\x1b[K  {text}");
            // A terminal that is gone misses nothing.
            let _ = io::stdout().flush();
        }
    }

    /// Whether the line that lives is seen.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    fn erase(&self) {
        if self.live {
            print!("\r\x1b[K");
        }
    }
}
