//! What is shown and asked. Pure: readings and keys in, effects out.

use std::cmp::Reverse;

use crate::session::SessionId;

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: SessionId,
    /// Empty where only the maps are known.
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) policies: String,
    pub(super) state: String,
    pub(super) age_seconds: Option<u64>,
    pub(super) left_seconds: u64,
    pub(super) idle_left_seconds: Option<u64>,
    pub(super) idle_timeout_seconds: Option<u64>,
    pub(super) connections: usize,
}

impl Row {
    /// How much of its life is left, from 0 to 1.
    pub(super) fn left(&self) -> Option<f64> {
        share(self.left_seconds, self.age_seconds? + self.left_seconds)
    }

    /// How much of its idle timeout is left, from 0 to 1.
    pub(super) fn idle_left(&self) -> Option<f64> {
        share(self.idle_left_seconds?, self.idle_timeout_seconds?)
    }

    fn matches(&self, filter: &str) -> bool {
        let filter = filter.to_lowercase();
        let id = self.id.to_string();
        [
            &id,
            &self.subject,
            &self.issuer,
            &self.policies,
            &self.state,
        ]
        .iter()
        .any(|text| text.to_lowercase().contains(&filter))
    }
}

fn share(left: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (left as f64 / whole as f64).min(1.0))
}

/// Where a reading comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A running daemon.
    Daemon,
    /// The pinned maps: no daemon runs, and nothing can be changed.
    Maps,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) origin: Origin,
    pub(super) rows: Vec<Row>,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Left,
    IdleLeft,
    Age,
    Subject,
    Policies,
    Connections,
}

impl Order {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Left => "time left",
            Self::IdleLeft => "idle left",
            Self::Age => "age",
            Self::Subject => "subject",
            Self::Policies => "policy",
            Self::Connections => "connections",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Left => Self::IdleLeft,
            Self::IdleLeft => Self::Age,
            Self::Age => Self::Subject,
            Self::Subject => Self::Policies,
            Self::Policies => Self::Connections,
            Self::Connections => Self::Left,
        }
    }
}

/// What keys mean now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Browsing,
    /// They are written into the filter.
    Filtering,
    /// They answer whether to revoke this session.
    Asking(SessionId),
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up(usize),
    Down(usize),
    Enter,
    Escape,
    Backspace,
    Interrupt,
    Char(char),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Revoke(SessionId),
}

/// All of it.
#[derive(Debug)]
pub(super) struct Model {
    reading: Reading,
    pub(super) order: Order,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// What was last said to the user.
    pub(super) message: String,
    selected: Option<SessionId>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            reading: Reading {
                origin: Origin::Daemon,
                rows: Vec::new(),
            },
            order: Order::default(),
            reversed: false,
            filter: String::new(),
            mode: Mode::default(),
            message: String::new(),
            selected: None,
        }
    }
}

impl Model {
    /// Something new was read.
    pub(super) fn read(&mut self, reading: Reading) {
        self.reading = reading;
        if let Mode::Asking(id) = self.mode
            && self.row(id).is_none()
        {
            self.mode = Mode::Browsing;
            self.message = format!("session {id} has ended");
        }
    }

    /// Says something to the user.
    pub(super) fn say(&mut self, message: String) {
        self.message = message;
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.reading.origin
    }

    /// How many sessions there are, shown or not.
    pub(super) fn count(&self) -> usize {
        self.reading.rows.len()
    }

    pub(super) fn row(&self, id: SessionId) -> Option<&Row> {
        self.reading.rows.iter().find(|row| row.id == id)
    }

    /// The rows that are shown, in order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let rows = self.reading.rows.iter();
        let mut rows: Vec<_> = rows.filter(|row| row.matches(&self.filter)).collect();
        rows.sort_by_key(|row| row.id);
        let none_last = |seconds: Option<u64>| seconds.unwrap_or(u64::MAX);
        match self.order {
            Order::Left => rows.sort_by_key(|row| row.left_seconds),
            Order::IdleLeft => rows.sort_by_key(|row| none_last(row.idle_left_seconds)),
            Order::Age => rows.sort_by_key(|row| Reverse(row.age_seconds)),
            Order::Subject => rows.sort_by(|a, b| a.subject.cmp(&b.subject)),
            Order::Policies => rows.sort_by(|a, b| a.policies.cmp(&b.policies)),
            Order::Connections => rows.sort_by_key(|row| Reverse(row.connections)),
        }
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// Where the selected row is among those that are shown: the first if it is gone.
    pub(super) fn position(&self) -> Option<usize> {
        let rows = self.rows();
        let found = rows.iter().position(|row| Some(row.id) == self.selected);
        found.or_else(|| (!rows.is_empty()).then_some(0))
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) -> Option<Effect> {
        if key == Key::Interrupt {
            return Some(Effect::Quit);
        }
        match self.mode {
            Mode::Browsing => self.browse(key),
            Mode::Filtering => {
                self.edit_filter(key);
                None
            }
            Mode::Asking(id) => self.answer(id, key),
        }
    }

    fn browse(&mut self, key: Key) -> Option<Effect> {
        self.message.clear();
        match key {
            Key::Char('q') | Key::Escape => return Some(Effect::Quit),
            Key::Up(by) => self.move_to(|at| at.saturating_sub(by)),
            Key::Down(by) => self.move_to(|at| at.saturating_add(by)),
            Key::Char('k') => self.move_to(|at| at.saturating_sub(1)),
            Key::Char('j') => self.move_to(|at| at.saturating_add(1)),
            Key::Char('s') => self.order = self.order.next(),
            Key::Char('r') => self.reversed = !self.reversed,
            Key::Char('/') => self.mode = Mode::Filtering,
            Key::Char('x') => self.ask(),
            _ => {}
        }
        None
    }

    fn move_to(&mut self, target: impl Fn(usize) -> usize) {
        let Some(position) = self.position() else {
            return;
        };
        let rows = self.rows();
        let target = target(position).min(rows.len() - 1);
        self.selected = Some(rows[target].id);
    }

    fn ask(&mut self) {
        if self.reading.origin == Origin::Maps {
            self.message = "no daemon runs: nothing can be revoked".to_owned();
            return;
        }
        let row = self
            .position()
            .and_then(|at| self.rows().get(at).map(|row| row.id));
        match row {
            Some(id) => {
                self.selected = Some(id);
                self.mode = Mode::Asking(id);
            }
            None => self.message = "there is no session to revoke".to_owned(),
        }
    }

    fn answer(&mut self, id: SessionId, key: Key) -> Option<Effect> {
        self.mode = Mode::Browsing;
        if matches!(key, Key::Char('y' | 'Y')) {
            return Some(Effect::Revoke(id));
        }
        self.message = "nothing was revoked".to_owned();
        None
    }

    fn edit_filter(&mut self, key: Key) {
        match key {
            Key::Char(character) => self.filter.push(character),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.mode = Mode::Browsing,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Browsing;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn id(number: u64) -> SessionId {
        SessionId::from_u64(number).unwrap()
    }

    pub(in super::super) fn row(number: u64, subject: &str, left: u64) -> Row {
        Row {
            id: id(number),
            subject: subject.to_owned(),
            issuer: "https://idp.example".to_owned(),
            policies: "standard".to_owned(),
            state: "active".to_owned(),
            age_seconds: Some(60),
            left_seconds: left,
            idle_left_seconds: Some(30),
            idle_timeout_seconds: Some(60),
            connections: 2,
        }
    }

    pub(in super::super) fn model(origin: Origin, rows: Vec<Row>) -> Model {
        let mut model = Model::default();
        model.read(Reading { origin, rows });
        model
    }

    fn three() -> Model {
        let rows = vec![row(1, "carol", 30), row(2, "alice", 20), row(3, "bob", 10)];
        model(Origin::Daemon, rows)
    }

    fn shown(model: &Model) -> Vec<&str> {
        model
            .rows()
            .iter()
            .map(|row| row.subject.as_str())
            .collect()
    }

    fn type_in(model: &mut Model, keys: &str) -> Vec<Effect> {
        keys.chars()
            .filter_map(|character| model.press(Key::Char(character)))
            .collect()
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let mut model = three();
        assert_eq!(shown(&model), ["bob", "alice", "carol"]);
        type_in(&mut model, "r");
        assert_eq!(shown(&model), ["carol", "alice", "bob"]);
        type_in(&mut model, "rsss");
        assert_eq!(model.order, Order::Subject);
        assert_eq!(shown(&model), ["alice", "bob", "carol"]);
        type_in(&mut model, "/CAR");
        assert_eq!(shown(&model), ["carol"]);
        model.press(Key::Backspace);
        model.press(Key::Enter);
        assert_eq!((model.mode, model.filter.as_str()), (Mode::Browsing, "CA"));
        type_in(&mut model, "/");
        model.press(Key::Escape);
        assert_eq!(model.filter, "");
    }

    #[test]
    fn the_selection_stays_with_its_session() {
        let mut model = three();
        model.press(Key::Down(1));
        assert_eq!(model.position(), Some(1));
        type_in(&mut model, "r");
        assert_eq!(model.rows()[model.position().unwrap()].subject, "alice");
        model.press(Key::Down(usize::MAX));
        assert_eq!(model.position(), Some(2));
        model.press(Key::Up(usize::MAX));
        assert_eq!(model.position(), Some(0));
        model.read(Reading {
            origin: Origin::Daemon,
            rows: Vec::new(),
        });
        assert_eq!(model.position(), None);
        model.press(Key::Down(1));
    }

    #[test]
    fn a_session_is_revoked_only_after_a_yes() {
        let mut model = three();
        assert!(type_in(&mut model, "x").is_empty());
        assert_eq!(model.mode, Mode::Asking(id(3)));
        assert!(type_in(&mut model, "n").is_empty());
        assert_eq!(model.mode, Mode::Browsing);
        assert_eq!(type_in(&mut model, "xy"), [Effect::Revoke(id(3))]);
        assert_eq!(model.mode, Mode::Browsing);
    }

    #[test]
    fn a_session_that_ends_while_it_is_asked_about_is_not_mistaken_for_another() {
        let mut model = three();
        type_in(&mut model, "x");
        model.read(Reading {
            origin: Origin::Daemon,
            rows: vec![row(1, "carol", 30)],
        });
        assert!(type_in(&mut model, "y").is_empty());
    }

    #[test]
    fn without_a_daemon_nothing_is_revoked() {
        let mut model = model(Origin::Maps, vec![row(1, "", 30)]);
        assert!(type_in(&mut model, "xy").is_empty());
        assert_eq!(model.mode, Mode::Browsing);
    }

    #[test]
    fn it_ends_by_a_key_in_every_mode() {
        for keys in ["", "/a", "x"] {
            let mut model = three();
            type_in(&mut model, keys);
            assert_eq!(model.press(Key::Interrupt), Some(Effect::Quit));
        }
        assert_eq!(type_in(&mut three(), "q"), [Effect::Quit]);
    }

    #[test]
    fn shares_are_of_what_is_known() {
        let mut row = row(1, "a", 60);
        assert_eq!((row.left(), row.idle_left()), (Some(0.5), Some(0.5)));
        row.age_seconds = None;
        row.idle_timeout_seconds = Some(0);
        assert_eq!((row.left(), row.idle_left()), (None, None));
    }
}
