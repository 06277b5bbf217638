//! How things look in tables.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

/// Columns for people: a header and left-aligned cells, no lines.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The text without anything that a terminal would obey: subjects come from tokens.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            // Writing to a string does not fail.
            let _ = write!(printable, "{}", character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Separators and marks of direction, which would make a line look like another.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// A duration by its two largest units: `9s`, `14m 03s`, `2h 05m`, `3d 04h`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// What stands where there is nothing.
pub(super) const NOTHING: &str = "-";

/// The value, or [`NOTHING`].
pub(super) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// `1 session`, `2 sessions`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (843, "14m 03s"),
            (7_500, "2h 05m"),
            (3 * 86_400 + 4 * 3_600 + 59, "3d 04h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn nothing_in_a_table_is_obeyed_by_a_terminal() {
        let evil = "alice\u{1b}[2J\n\u{9b}1m\u{202e}";
        let text = table(&["SUBJECT", "N"], [vec![evil.to_owned(), "1".to_owned()]]);
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.contains("alice\\u{1b}[2J\\n\\u{9b}1m\\u{202e}  1"),
            "{text}"
        );
        assert_eq!(printable("Zoë 😀"), "Zoë 😀");
    }

    #[test]
    fn a_table_is_columns_without_lines() {
        let rows = [vec!["a".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["LONG", "X"], rows), "LONG  X\na     b");
    }
}
