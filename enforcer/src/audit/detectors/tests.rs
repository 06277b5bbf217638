//! The detectors on recorded traffic: audit records of real runs, in `recorded/`.

use super::*;

fn records(lines: &str) -> Vec<Record> {
    let records = lines.lines().map(serde_json::from_str);
    records.collect::<Result<_, _>>().unwrap()
}

fn settings(kind: DetectorKind, threshold: u32, window: Duration) -> Detectors {
    let settings = DetectorSettings { threshold, window };
    let idle = BTreeMap::from([("main".to_owned(), Duration::from_secs(2))]);
    Detectors::new(BTreeMap::from([(kind, settings)]), idle)
}

fn run(detectors: &mut Detectors, records: &[Record]) -> Vec<Record> {
    let alerts = records
        .iter()
        .flat_map(|record| detectors.observe(record, record.time));
    alerts.map(Alert::into_record).collect()
}

/// The alerts of one detector on a recording.
fn alerts(kind: DetectorKind, threshold: u32, window: Duration, lines: &str) -> Vec<Record> {
    let found = run(&mut settings(kind, threshold, window), &records(lines));
    for alert in &found {
        assert_eq!(alert.event, Event::Alert);
        assert_eq!(alert.reason.as_deref(), Some(kind.as_str()));
        assert!(alert.detail.is_some(), "{alert:?}");
    }
    found
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn refresh_storm() {
    let lines = include_str!("recorded/tokens.jsonl");
    let found = alerts(DetectorKind::RefreshStorm, 5, MINUTE, lines);
    let [alert] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(alert.subject.as_deref(), Some("alice"));
    assert!(alert.session.is_some());
    assert!(alerts(DetectorKind::RefreshStorm, 7, MINUTE, lines).is_empty());
}

#[test]
fn idle_return() {
    let lines = include_str!("recorded/networks.jsonl");
    let found = alerts(DetectorKind::IdleReturn, 50, MINUTE, lines);
    let [alert] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(alert.client.unwrap().ip().to_string(), "10.78.0.1");
    // It was not idle for as long as that, or the network is familiar.
    assert!(alerts(DetectorKind::IdleReturn, 95, MINUTE, lines).is_empty());
    let back = lines.replace("10.78.0.1:", "10.77.0.1:");
    assert!(alerts(DetectorKind::IdleReturn, 50, MINUTE, &back).is_empty());
}

#[test]
fn address_burst() {
    let lines = include_str!("recorded/refusals.jsonl");
    let found = alerts(DetectorKind::AddressBurst, 6, MINUTE, lines);
    let [alert] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(
        alert.detail.as_ref().unwrap().contains("10.77.0.1"),
        "{alert:?}"
    );
    // Refusals and an expiry alone are too few.
    let refusals = lines
        .lines()
        .filter(|line| line.contains("session_refused"));
    let expiries = lines.lines().filter(|line| line.contains("session_ended"));
    assert_eq!((refusals.count(), expiries.count()), (5, 1));
    assert!(alerts(DetectorKind::AddressBurst, 7, MINUTE, lines).is_empty());
}

#[test]
fn our_own_faults_are_nobodys_burst() {
    let lines = include_str!("recorded/refusals.jsonl");
    let lines = lines.replace("missing_token", "unavailable");
    assert!(alerts(DetectorKind::AddressBurst, 6, MINUTE, &lines).is_empty());
}

#[test]
fn many_networks() {
    let lines = include_str!("recorded/networks.jsonl");
    let found = alerts(DetectorKind::ManyNetworks, 3, MINUTE, lines);
    let [alert] = &found[..] else {
        panic!("{found:?}");
    };
    let detail = alert.detail.as_ref().unwrap();
    for network in ["10.77.0.0/24", "10.78.0.0/24", "10.79.0.0/24"] {
        assert!(detail.contains(network), "{detail}");
    }
    assert!(alerts(DetectorKind::ManyNetworks, 4, MINUTE, lines).is_empty());
    let short = Duration::from_millis(1);
    assert!(alerts(DetectorKind::ManyNetworks, 3, short, lines).is_empty());
}

#[test]
fn ended_token() {
    let lines = include_str!("recorded/tokens.jsonl");
    let found = alerts(DetectorKind::EndedToken, 3, MINUTE, lines);
    let [alert] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(alert.subject.as_deref(), Some("alice"));
    assert!(alerts(DetectorKind::EndedToken, 5, MINUTE, lines).is_empty());
}

#[test]
fn clock_skew() {
    let lines = include_str!("recorded/refusals.jsonl");
    let found = alerts(DetectorKind::ClockSkew, 3, MINUTE, lines);
    let [alert] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(alert.issuer.is_some());
    assert!(
        alert.detail.as_ref().unwrap().contains("`iat` is"),
        "{alert:?}"
    );
    assert!(alerts(DetectorKind::ClockSkew, 4, MINUTE, lines).is_empty());
}

#[test]
fn a_detector_without_settings_says_nothing() {
    let mut detectors = Detectors::new(BTreeMap::new(), BTreeMap::new());
    let lines = include_str!("recorded/tokens.jsonl");
    assert!(run(&mut detectors, &records(lines)).is_empty());
}

#[test]
fn defaults_leave_an_ordinary_day_alone() {
    let idle = BTreeMap::from([("main".to_owned(), Duration::from_secs(2))]);
    let mut detectors = Detectors::new(DetectorKind::all_defaults(), idle);
    let lines = include_str!("recorded/ordinary.jsonl");
    assert!(run(&mut detectors, &records(lines)).is_empty());
}
