//! Hours of the day and week in a time zone.
//!
//! A window starts at the first instant at which the clocks of the zone have reached its start, and
//! ends at the first at which they have reached its end. So where clocks are set forward over an
//! end, it comes with the step, and where they are set back, an hour that is shown twice counts
//! once, the first time.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, Weekday},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

use crate::clock::WallInstant;

const SECONDS_PER_DAY: u32 = 24 * 60 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Windows of the day before may reach into a day.
const AROUND_TODAY: RangeInclusive<i32> = -1..=0;
/// Windows that touch are one; not even that makes it longer than a week.
const NEXT_WEEK: RangeInclusive<i32> = -1..=8;

/// When something is allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Hours {
    time_zone: TimeZone,
    windows: Vec<Window>,
}

/// A time of some days: `mon-fri 08:00-18:00`. One that ends before it starts ends on the next day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// From Monday.
    days: [bool; 7],
    /// Seconds of the day.
    from: u32,
    /// Seconds of the day; above a day's for the next day.
    to: u32,
}

/// Why a text is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// Not days and times.
    #[error("is not days and times")]
    Shape,
    /// An unknown day.
    #[error("has a day that is none of mon, tue, wed, thu, fri, sat and sun")]
    Day,
    /// Not a time of the day.
    #[error("has a time that is not between 00:00 and 24:00")]
    Time,
    /// Start and end are the same.
    #[error("never opens: it ends when it starts")]
    Empty,
}

/// Why hours make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHours {
    /// No window.
    #[error("they never open")]
    NeverOpen,
    /// The windows cover the whole week.
    #[error("they never close")]
    NeverClose,
}

/// A time zone of the database that is part of this program.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

impl Hours {
    /// The windows, by the clocks of the zone.
    ///
    /// # Errors
    /// If they are always or never open.
    pub fn new(time_zone: TimeZone, windows: Vec<Window>) -> Result<Self, BadHours> {
        if windows.is_empty() {
            return Err(BadHours::NeverOpen);
        }
        if cover_the_week(&windows) {
            return Err(BadHours::NeverClose);
        }
        Ok(Self { time_zone, windows })
    }

    /// Whether a window is open.
    pub fn are_open(&self, now: WallInstant) -> bool {
        let Some(now) = timestamp(now) else {
            return false;
        };
        let spans = self.spans(now, AROUND_TODAY);
        spans.into_iter().any(|(from, to)| from <= now && now < to)
    }

    /// Until when the window that is open stays so; `None` if none is open. Windows that touch are
    /// one.
    pub fn open_until(&self, now: WallInstant) -> Option<WallInstant> {
        let now = timestamp(now)?;
        let mut spans = self.spans(now, NEXT_WEEK);
        spans.sort_unstable();
        let mut until: Option<Timestamp> = None;
        for (from, to) in spans {
            match until {
                None if from <= now && now < to => until = Some(to),
                None => {}
                Some(end) if from <= end => until = Some(end.max(to)),
                Some(_) => break,
            }
        }
        let nanos = i64::try_from(until?.as_nanosecond()).ok()?;
        Some(WallInstant::from_unix_nanos(nanos))
    }

    /// When windows are open, that start on these days from today.
    fn spans(&self, now: Timestamp, days: RangeInclusive<i32>) -> Vec<(Timestamp, Timestamp)> {
        let today = self.time_zone.to_datetime(now).date();
        let dates = days.filter_map(|days| today.checked_add(days.days()).ok());
        dates
            .flat_map(|date| {
                let windows = self.windows.iter();
                windows.filter_map(move |window| {
                    if !window.is_of(date.weekday()) {
                        return None;
                    }
                    let span = (
                        self.reached(date, window.from)?,
                        self.reached(date, window.to)?,
                    );
                    // A window within an hour that clocks pass over is not there that day.
                    (span.0 < span.1).then_some(span)
                })
            })
            .collect()
    }

    /// The first instant at which clocks show this second of the day, or a later one.
    fn reached(&self, date: Date, second: u32) -> Option<Timestamp> {
        let days = i32::from(second >= SECONDS_PER_DAY);
        let of_day = i64::from(second % SECONDS_PER_DAY);
        let midnight = date.checked_add(days.days()).ok()?.at(0, 0, 0, 0);
        let at = midnight
            .checked_add(SignedDuration::from_secs(of_day))
            .ok()?;
        let ambiguous = self.time_zone.to_ambiguous_timestamp(at);
        match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => {
                // As if clocks had been set already: before they are.
                let before = ambiguous.earlier().ok()?;
                let just_before = before.checked_sub(SignedDuration::from_nanos(1)).ok()?;
                let transition = self.time_zone.following(just_before).next()?;
                Some(transition.timestamp())
            }
            _ => ambiguous.earlier().ok(),
        }
    }
}

/// `mon-fri 08:00-18:00, sat 09:00-13:00 (Europe/Berlin)`
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, window) in self.windows.iter().enumerate() {
            write!(f, "{}{window}", if index == 0 { "" } else { ", " })?;
        }
        match self.time_zone.iana_name() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

impl Window {
    fn is_of(&self, day: Weekday) -> bool {
        let index = usize::try_from(day.to_monday_zero_offset()).ok();
        index.is_some_and(|index| self.days[index])
    }
}

impl FromStr for Window {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let (days, times) = text.trim().rsplit_once(' ').ok_or(BadWindow::Shape)?;
        let (from, to) = times.split_once('-').ok_or(BadWindow::Shape)?;
        let (from, mut to) = (second(from)?, second(to)?);
        if from == to || from == SECONDS_PER_DAY {
            return Err(BadWindow::Empty);
        }
        if to < from {
            to += SECONDS_PER_DAY;
        }
        let mut chosen = [false; 7];
        for part in days.split(',').map(str::trim) {
            match part.split_once('-') {
                None => chosen[day(part)?] = true,
                Some((first, last)) => {
                    let (mut current, last) = (day(first.trim())?, day(last.trim())?);
                    chosen[last] = true;
                    while current != last {
                        chosen[current] = true;
                        current = (current + 1) % DAYS.len();
                    }
                }
            }
        }
        Ok(Self {
            days: chosen,
            from,
            to,
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut day = 0;
        while day < DAYS.len() {
            let run = self.days[day..]
                .iter()
                .take_while(|chosen| **chosen)
                .count();
            if run > 0 {
                write!(f, "{separator}{}", DAYS[day])?;
                if run > 1 {
                    write!(f, "-{}", DAYS[day + run - 1])?;
                }
                separator = ",";
            }
            day += run.max(1);
        }
        let to = match self.to {
            next_day if next_day > SECONDS_PER_DAY => next_day - SECONDS_PER_DAY,
            to => to,
        };
        write!(f, " {}-{}", TimeOfDay(self.from), TimeOfDay(to))
    }
}

/// Seconds of the day as `HH:MM`, with seconds where there are any.
struct TimeOfDay(u32);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{hour:02}:{minute:02}")?;
        match second {
            0 => Ok(()),
            second => write!(f, ":{second:02}"),
        }
    }
}

/// Whether there is no second of the week outside of the windows.
fn cover_the_week(windows: &[Window]) -> bool {
    let week = SECONDS_PER_DAY * 7;
    let mut spans = Vec::new();
    for window in windows {
        for day in (0..7_u32).filter(|day| window.days[*day as usize]) {
            let start = day * SECONDS_PER_DAY;
            spans.push((start + window.from, start + window.to));
            // What reaches beyond Sunday is there on Monday.
            if start + window.to > week {
                spans.push((0, start + window.to - week));
            }
        }
    }
    spans.sort_unstable();
    let covered = spans.iter().fold(0, |covered, (from, to)| {
        if *from <= covered {
            covered.max(*to)
        } else {
            covered
        }
    });
    covered >= week
}

fn day(text: &str) -> Result<usize, BadWindow> {
    let found = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    found.ok_or(BadWindow::Day)
}

/// `HH:MM` or `HH:MM:SS`, up to `24:00`.
fn second(text: &str) -> Result<u32, BadWindow> {
    let mut parts = text.split(':').map(|part| match part.as_bytes() {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Ok(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
        _ => Err(BadWindow::Time),
    });
    let hour = parts.next().ok_or(BadWindow::Time)??;
    let minute = parts.next().ok_or(BadWindow::Time)??;
    let second = parts.next().transpose()?.unwrap_or(0);
    let of_day = hour * 3600 + minute * 60 + second;
    if parts.next().is_some() || minute > 59 || second > 59 || of_day > SECONDS_PER_DAY {
        return Err(BadWindow::Time);
    }
    Ok(of_day)
}

fn timestamp(at: WallInstant) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(at.as_unix_nanos())).ok()
}

#[cfg(test)]
mod tests;
