//! Draws the model.

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row as TableRow, Table, TableState},
};

use super::model::{Mode, Model, Origin, Row};
use crate::cli::text::{NOTHING, duration, or_nothing};

const BAR: usize = 10;
const KEYS: &str = "q quit  s sort  r reverse  / filter  x revoke";

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ]);
    let [head, body, foot] = areas.areas(frame.area());
    frame.render_widget(title(model), head);
    let mut state = TableState::new().with_selected(model.position());
    frame.render_stateful_widget(table(model), body, &mut state);
    frame.render_widget(footer(model), foot);
}

fn title(model: &Model) -> Paragraph<'_> {
    let shown = model.rows().len();
    let count = match model.count() {
        all if all == shown => format!("{all} sessions"),
        all => format!("{shown} of {all} sessions"),
    };
    let order = if model.reversed { ", reversed" } else { "" };
    let text = format!("enforcer  {count}, by {}{order}", model.order.name());
    let mut line = vec![Span::styled(text, Modifier::BOLD)];
    if *model.origin() == Origin::Maps {
        let text = "  no daemon runs: from the pinned maps, read-only";
        line.push(Span::styled(text, Color::Yellow));
    }
    Paragraph::new(Line::from(line))
}

fn table(model: &Model) -> Table<'_> {
    let header = [
        "ID",
        "SUBJECT",
        "POLICY",
        "STATE",
        "AGE",
        "TIME LEFT",
        "IDLE LEFT",
        "CONN",
    ];
    let bar = Constraint::Length(BAR as u16 + 8);
    let widths = [
        Constraint::Length(16),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(7),
        bar,
        bar,
        Constraint::Length(4),
    ];
    let rows: Vec<_> = model.rows().into_iter().map(row).collect();
    Table::new(rows, widths)
        .header(TableRow::new(header).style(Modifier::UNDERLINED))
        .row_highlight_style(Modifier::REVERSED)
}

fn row(row: &Row) -> TableRow<'_> {
    let subject = match row.subject.as_str() {
        "" => NOTHING,
        subject => subject,
    };
    TableRow::new([
        Cell::from(row.id.to_string()),
        Cell::from(subject),
        Cell::from(row.policies.as_str()),
        Cell::from(row.state.as_str()),
        Cell::from(or_nothing(row.age_seconds.map(duration))),
        left(row.left(), Some(row.left_seconds)),
        left(row.idle_left(), row.idle_left_seconds),
        Cell::from(row.connections.to_string()),
    ])
}

/// A bar for the share, and the time.
fn left(share: Option<f64>, seconds: Option<u64>) -> Cell<'static> {
    let time = or_nothing(seconds.map(duration));
    let Some(share) = share else {
        return Cell::from(time);
    };
    let full = (share * BAR as f64).ceil() as usize;
    let bar = "█".repeat(full) + &"░".repeat(BAR - full);
    let colour = match share {
        share if share <= 0.1 => Color::Red,
        share if share <= 0.25 => Color::Yellow,
        _ => Color::Green,
    };
    let bar = Span::styled(bar, Style::new().fg(colour));
    Cell::from(Line::from(vec![bar, Span::raw(format!(" {time}"))]))
}

fn footer(model: &Model) -> Paragraph<'_> {
    let text = match model.mode {
        Mode::Filtering => format!("filter: {}_  (Enter keeps it, Esc clears it)", model.filter),
        Mode::Asking(id) => {
            let of = match model.row(id) {
                Some(row) => format!(" of {} with {} connections", row.subject, row.connections),
                None => String::new(),
            };
            format!("revoke session {id}{of}? y/n")
        }
        Mode::Browsing if !model.message.is_empty() => model.message.clone(),
        Mode::Browsing if !model.filter.is_empty() => {
            format!("{KEYS}   filter: {}", model.filter)
        }
        Mode::Browsing => KEYS.to_owned(),
    };
    let style = match model.mode {
        Mode::Asking(_) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        _ => Style::new(),
    };
    Paragraph::new(Span::styled(text, style))
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::cli::top::model::{
        Key,
        tests::{model, row},
    };

    fn screen(model: &Model) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 7)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    fn assert_shows(model: &Model, expected: &[&str]) {
        let screen = screen(model);
        for text in expected {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    #[test]
    fn a_session_is_a_line_with_bars() {
        let rows = vec![row(0xabc, "alice", 60), row(2, "bob", 3)];
        let model = model(Origin::Daemon, rows);
        assert_shows(
            &model,
            &[
                "2 sessions, by time left",
                "0000000000000abc alice",
                "█████░░░░░ 1m 00s",
                "█░░░░░░░░░ 3s",
                KEYS,
            ],
        );
    }

    #[test]
    fn what_the_maps_do_not_know_is_left_out() {
        let mut unnamed = row(1, "", 60);
        unnamed.age_seconds = None;
        unnamed.idle_left_seconds = None;
        let model = model(Origin::Maps, vec![unnamed]);
        assert_shows(&model, &["read-only", "0000000000000001 -"]);
        assert!(!screen(&model).contains('█'));
    }

    #[test]
    fn it_asks_before_it_revokes() {
        let mut model = model(Origin::Daemon, vec![row(1, "alice", 60)]);
        model.press(Key::Char('x'));
        assert_shows(
            &model,
            &["revoke session 0000000000000001 of alice with 2 connections? y/n"],
        );
        model.press(Key::Char('n'));
        assert_shows(&model, &["nothing was revoked"]);
    }

    #[test]
    fn any_size_will_do() {
        let model = model(Origin::Daemon, vec![row(1, "alice", 60)]);
        for (width, height) in [(1, 1), (10, 2), (300, 3)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &model)).unwrap();
        }
    }
}
