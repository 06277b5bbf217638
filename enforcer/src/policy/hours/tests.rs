use proptest::prelude::*;

use super::*;

fn hours(zone: &str, windows: &[&str]) -> Hours {
    let windows = windows.iter().map(|text| text.parse().unwrap());
    Hours::new(time_zone(zone).unwrap(), windows.collect()).unwrap()
}

fn at(text: &str) -> WallInstant {
    let timestamp: Timestamp = text.parse().unwrap();
    WallInstant::from_unix_nanos(i64::try_from(timestamp.as_nanosecond()).unwrap())
}

#[track_caller]
fn closes(hours: &Hours, now: &str, until: Option<&str>) {
    assert_eq!(hours.open_until(at(now)), until.map(at), "{now}");
    assert_eq!(hours.are_open(at(now)), until.is_some(), "{now}");
}

#[test]
fn a_window_is_open_from_its_start_until_just_before_its_end() {
    let office = hours("Europe/Berlin", &["mon-fri 08:00-18:00", "sat 09:00-13:00"]);
    // Monday, in winter.
    closes(&office, "2026-01-05T06:59:59.999Z", None);
    let end = Some("2026-01-05T17:00:00Z");
    closes(&office, "2026-01-05T07:00:00Z", end);
    closes(&office, "2026-01-05T16:59:59.999Z", end);
    closes(&office, "2026-01-05T17:00:00Z", None);
    // Saturday and Sunday.
    closes(
        &office,
        "2026-01-10T09:00:00Z",
        Some("2026-01-10T12:00:00Z"),
    );
    closes(&office, "2026-01-11T09:00:00Z", None);
}

#[test]
fn windows_over_midnight_belong_to_the_day_they_start_on_and_touching_ones_are_one() {
    let night = hours("UTC", &["fri 22:00-06:00"]);
    closes(&night, "2026-01-09T21:59:00Z", None);
    closes(&night, "2026-01-09T23:00:00Z", Some("2026-01-10T06:00:00Z"));
    closes(&night, "2026-01-10T05:00:00Z", Some("2026-01-10T06:00:00Z"));
    closes(&night, "2026-01-09T05:00:00Z", None);
    let weekend = hours("UTC", &["fri 22:00-24:00", "sat,sun 00:00-24:00"]);
    closes(
        &weekend,
        "2026-01-09T22:00:00Z",
        Some("2026-01-12T00:00:00Z"),
    );
    let overlapping = hours(
        "UTC",
        &["mon 08:00-12:00", "mon 11:00-13:00", "mon 09:00-10:00"],
    );
    closes(
        &overlapping,
        "2026-01-05T11:30:00Z",
        Some("2026-01-05T13:00:00Z"),
    );
}

#[test]
fn a_day_is_shorter_or_longer_where_clocks_are_set() {
    // Berlin: from 02:00 to 03:00 on 2026-03-29, from 03:00 to 02:00 on 2026-10-25.
    let berlin = hours("Europe/Berlin", &["sat-sun 00:00-06:00"]);
    closes(
        &berlin,
        "2026-03-28T23:00:00Z",
        Some("2026-03-29T04:00:00Z"),
    );
    closes(
        &berlin,
        "2026-10-24T22:00:00Z",
        Some("2026-10-25T05:00:00Z"),
    );
    // New York: 2026-03-08 and 2026-11-01.
    let york = hours("America/New_York", &["sun 00:00-06:00"]);
    closes(&york, "2026-03-08T05:00:00Z", Some("2026-03-08T10:00:00Z"));
    closes(&york, "2026-11-01T04:00:00Z", Some("2026-11-01T11:00:00Z"));
    // The same office hours, an hour earlier by UTC from one day to the next.
    let office = hours("America/New_York", &["sat-mon 09:00-17:00"]);
    closes(
        &office,
        "2026-03-07T15:00:00Z",
        Some("2026-03-07T22:00:00Z"),
    );
    closes(
        &office,
        "2026-03-08T15:00:00Z",
        Some("2026-03-08T21:00:00Z"),
    );
}

#[test]
fn an_end_that_clocks_pass_over_comes_with_the_step() {
    let berlin = hours("Europe/Berlin", &["sun 01:00-02:30"]);
    closes(
        &berlin,
        "2026-03-29T00:30:00Z",
        Some("2026-03-29T01:00:00Z"),
    );
    closes(&berlin, "2026-03-29T01:00:00Z", None);
    let start = hours("Europe/Berlin", &["sun 02:30-04:00"]);
    closes(&start, "2026-03-29T00:59:00Z", None);
    closes(&start, "2026-03-29T01:00:00Z", Some("2026-03-29T02:00:00Z"));
    let within = hours("America/New_York", &["sun 02:10-02:50"]);
    closes(&within, "2026-03-08T07:00:00Z", None);
    closes(&within, "2026-03-08T06:59:00Z", None);
}

#[test]
fn an_hour_that_is_shown_twice_counts_once() {
    let berlin = hours("Europe/Berlin", &["sun 01:00-02:30"]);
    closes(
        &berlin,
        "2026-10-25T00:15:00Z",
        Some("2026-10-25T00:30:00Z"),
    );
    // It is 02:15 again.
    closes(&berlin, "2026-10-25T01:15:00Z", None);
    let york = hours("America/New_York", &["sun 01:30-03:00"]);
    closes(&york, "2026-11-01T05:30:00Z", Some("2026-11-01T08:00:00Z"));
}

#[test]
fn windows_print_as_they_are_read() {
    for text in [
        "mon-fri 08:00-18:00",
        "mon 00:00-24:00",
        "mon-tue,thu,sat-sun 22:30-06:00",
        "mon-sun 22:00-24:00",
        "mon 08:00:30-18:00:05",
    ] {
        assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
    }
    let around: Window = "Sat-Mon 09:00-10:00".parse().unwrap();
    assert_eq!(around.to_string(), "mon,sat-sun 09:00-10:00");
}

#[test]
fn what_is_no_window_says_why() {
    for (text, why) in [
        ("08:00-18:00", BadWindow::Shape),
        ("mon 08:00", BadWindow::Shape),
        ("montag 08:00-18:00", BadWindow::Day),
        ("mon- 08:00-18:00", BadWindow::Day),
        ("mon 8:00-18:00", BadWindow::Time),
        ("mon 08:60-18:00", BadWindow::Time),
        ("mon 08:00:60-18:00", BadWindow::Time),
        ("mon 08:00:00:00-18:00", BadWindow::Time),
        ("mon 08:00-24:01", BadWindow::Time),
        ("mon 08:00-08:00", BadWindow::Empty),
        ("mon 24:00-06:00", BadWindow::Empty),
    ] {
        assert_eq!(text.parse::<Window>(), Err(why), "{text}");
    }
}

#[test]
fn hours_open_and_close() {
    let utc = || time_zone("UTC").unwrap();
    assert_eq!(Hours::new(utc(), Vec::new()), Err(BadHours::NeverOpen));
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let almost = parse(&["mon-sat 06:00-05:59", "sun 00:00-24:00"]);
    assert!(Hours::new(utc(), almost).is_ok());
    let whole = parse(&[
        "mon-fri 00:00-24:00",
        "sat 00:00-12:00",
        "sat 11:00-24:00",
        "sun 00:00-24:00",
    ]);
    assert_eq!(Hours::new(utc(), whole), Err(BadHours::NeverClose));
    assert!(time_zone("Mars/Olympus").is_none());
}

proptest! {
    #[test]
    fn what_is_open_closes_and_is_open_until_then(
        seconds in 1_700_000_000_i64..1_900_000_000,
        from in 0_u32..86_400,
        length in 1_u32..86_400,
        days in prop::array::uniform7(any::<bool>()),
        berlin: bool,
    ) {
        prop_assume!(days.contains(&true));
        let zone = if berlin { "Europe/Berlin" } else { "America/New_York" };
        let window = Window { days, from, to: from + length };
        let hours = Hours::new(time_zone(zone).unwrap(), vec![window]).unwrap();
        let now = WallInstant::from_unix_seconds(seconds);
        let until = hours.open_until(now);
        prop_assert_eq!(hours.are_open(now), until.is_some());
        if let Some(until) = until {
            let nanosecond = std::time::Duration::from_nanos(1);
            prop_assert!(until > now);
            prop_assert!(hours.are_open(until.saturating_sub(nanosecond)));
            prop_assert!(!hours.are_open(until));
        }
    }
}
