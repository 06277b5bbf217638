//! The machine against its table, and what may never happen to a session.

use proptest::prelude::*;

use super::super::ShownCertificate;
use super::*;
use crate::policy::{Mode, NetworkBinding};

const START: Now = Now {
    boot: BootInstant::from_nanos(1_000_000_000_000),
    wall: WallInstant::from_unix_seconds(1_700_000_000),
};

fn after(seconds: u64) -> Now {
    let passed = Duration::from_secs(seconds);
    Now {
        boot: START.boot.saturating_add(passed),
        wall: START.wall.saturating_add(passed),
    }
}

fn terms(policy: &str, limits: &Limits) -> Terms<'static> {
    Terms {
        policies: vec![policy.to_owned()].into(),
        applied: Applied::alone(limits),
        hours_end_at: None,
    }
}

fn limits(max_session: u64, idle_timeout: Option<u64>) -> Limits {
    Limits {
        max_session: Duration::from_secs(max_session),
        idle_timeout: idle_timeout.map(Duration::from_secs),
        warn_before: Duration::from_secs(10),
        farewell: Duration::from_secs(1),
        activity: ActivityKind::Application,
        mode: Mode::Enforce,
        max_connections: None,
        sessions_per_subject: None,
        bind_network: None,
    }
}

fn credential(key: &[u8], expires_in: u64) -> Credential {
    Credential {
        principal: Principal {
            issuer: "iss".into(),
            subject: "sub".into(),
        },
        key: SessionKey::from_token(key),
        names_session: false,
        authorized_party: None,
        authenticated_at: None,
        expires_at: after(expires_in).wall,
        assumed_expiry: false,
        signing_key: None,
        certificate: None,
    }
}

fn open(expires_in: u64, limits: &Limits) -> Session {
    let id = SessionId::from_u64(1).unwrap();
    Session::open(
        id,
        &credential(b"t", expires_in),
        &terms("p", limits),
        None,
        START,
    )
    .unwrap()
}

#[test]
fn a_deadline_is_shown_as_it_was_claimed_unless_the_clock_was_set() {
    let claimed = after(100).wall;
    let mut session = open(100, &limits(1000, Some(30)));
    let read_apart = Now {
        wall: after(10).wall.saturating_add(Duration::from_micros(3)),
        ..after(10)
    };
    let deadline = session.deadline().at;
    assert_eq!(session.wall_limit(deadline, read_apart), claimed);
    let idle = after(30).boot;
    assert_eq!(session.wall_limit(idle, after(10)), after(30).wall);
    let set_back = Now {
        wall: START.wall,
        ..after(10)
    };
    session.wall_clock_stepped(None, set_back);
    assert_eq!(session.wall_limit(deadline, set_back), after(90).wall);
}

#[test]
fn the_life_of_a_session_follows_the_table() {
    let idle = |at| Limit {
        at: after(at).boot,
        reason: EndReason::Idle,
    };
    let token = |at| Limit {
        at: after(at).boot,
        reason: EndReason::Token,
    };
    let mut session = open(100, &limits(1000, Some(30)));
    // (now, touched before, expected step, expected phase)
    let table = [
        (0, false, Step::Wait(after(20).boot), Phase::Alive),
        (20, false, Step::Warn(idle(30)), Phase::Warned),
        (21, false, Step::Wait(after(29).boot), Phase::Warned),
        (22, true, Step::Wait(after(42).boot), Phase::Alive),
        (51, false, Step::Farewell(idle(52)), Phase::Leaving),
        (51, false, Step::Wait(after(52).boot), Phase::Leaving),
        (51, true, Step::Wait(after(71).boot), Phase::Alive),
        (80, true, Step::Wait(after(90).boot), Phase::Alive),
        (95, true, Step::Warn(token(100)), Phase::Warned),
        (99, true, Step::Farewell(token(100)), Phase::Leaving),
        (100, true, Step::End(token(100)), Phase::Leaving),
    ];
    for (row, (now, touched, step, phase)) in table.into_iter().enumerate() {
        if touched {
            session.touch(after(now).boot);
        }
        assert_eq!(session.advance(after(now).boot, None), step, "row {row}");
        assert_eq!(session.phase(), phase, "row {row}");
    }
}

#[test]
fn the_deadline_is_the_earlier_of_max_session_and_exp_and_counts_from_auth_time() {
    assert_eq!(
        open(50, &limits(100, None)).deadline().reason,
        EndReason::Token
    );
    assert_eq!(
        open(200, &limits(100, None)).deadline().reason,
        EndReason::Deadline
    );
    let mut old = credential(b"t", 200);
    old.authenticated_at = Some(START.wall.saturating_sub(Duration::from_secs(60)));
    let id = SessionId::from_u64(1).unwrap();
    let session = Session::open(id, &old, &terms("p", &limits(100, None)), None, START).unwrap();
    assert_eq!(session.deadline().at, after(40).boot);
    let refused = Session::open(id, &old, &terms("p", &limits(60, None)), None, START);
    assert_eq!(refused, Err(Refused::TooOld));
    let refused = Session::open(
        id,
        &credential(b"t", 0),
        &terms("p", &limits(60, None)),
        None,
        START,
    );
    assert_eq!(refused, Err(Refused::Expired));
}

#[test]
fn renewal_moves_the_deadline_with_the_token_but_never_past_max_session() {
    let mut session = open(50, &limits(100, None));
    session.renew(&credential(b"newer", 80), after(10)).unwrap();
    assert_eq!(
        session.deadline(),
        Limit {
            at: after(80).boot,
            reason: EndReason::Token
        }
    );
    session
        .renew(&credential(b"newest", 500), after(20))
        .unwrap();
    assert_eq!(
        session.deadline(),
        Limit {
            at: after(100).boot,
            reason: EndReason::Deadline
        }
    );
    session.renew(&credential(b"t", 50), after(30)).unwrap();
    assert_eq!(
        session.deadline().at,
        after(100).boot,
        "an older token shortens nothing"
    );
    assert_eq!(session.keys.len(), 3);
}

#[test]
fn only_credentials_of_the_session_renew_it() {
    let mut session = open(50, &limits(100, None));
    let mut other = credential(b"x", 80);
    other.principal.subject = "else".into();
    assert_eq!(session.renew(&other, after(1)), Err(Refused::Stranger));
    let mut named = credential(b"x", 80);
    named.names_session = true;
    assert_eq!(session.renew(&named, after(1)), Err(Refused::Stranger));
    assert_eq!(
        session.renew(&credential(b"x", 5), after(6)),
        Err(Refused::Expired)
    );
    let mut party = credential(b"x", 80);
    party.authorized_party = Some("app".into());
    assert_eq!(session.renew(&party, after(1)), Err(Refused::Stranger));
}

#[test]
fn a_stricter_policy_shortens_and_one_that_would_have_ended_it_is_refused() {
    let mut session = open(500, &limits(400, None));
    session
        .join(&terms("strict", &limits(60, Some(20))), after(10))
        .unwrap();
    assert_eq!(session.deadline().at, after(60).boot);
    assert_eq!(session.limit(None).at, after(20).boot);
    let before = session.clone();
    assert_eq!(
        session.join(&terms("stricter", &limits(5, None)), after(10)),
        Err(Refused::TooOld)
    );
    assert_eq!(session, before);
    session
        .join(&terms("loose", &limits(4000, None)), after(10))
        .unwrap();
    assert_eq!(session.deadline().at, after(60).boot);
}

#[test]
fn payload_counts_only_where_the_limits_say_so() {
    let mut session = open(500, &limits(400, Some(30)));
    assert_eq!(session.limit(Some(after(25).boot)).at, after(30).boot);
    session.limits.activity = ActivityKind::Payload;
    assert_eq!(session.limit(Some(after(25).boot)).at, after(55).boot);
}

fn within_hours(limits: &Limits, hours_end: u64) -> Terms<'static> {
    Terms {
        hours_end_at: Some(after(hours_end).wall),
        ..terms("p", limits)
    }
}

#[test]
fn a_session_ends_with_the_hours_of_its_policies() {
    let id = SessionId::from_u64(1).unwrap();
    let limits = limits(1000, None);
    let open = |hours_end| {
        let terms = within_hours(&limits, hours_end);
        Session::open(id, &credential(b"t", 500), &terms, None, START)
    };
    let hours = |at| Limit {
        at: after(at).boot,
        reason: EndReason::Hours,
    };
    let mut session = open(60).unwrap();
    assert_eq!(session.deadline(), hours(60));
    assert_eq!(session.wall_limit(after(60).boot, after(1)), after(60).wall);
    // Neither a newer token nor longer hours move it.
    session.renew(&credential(b"u", 900), after(1)).unwrap();
    assert_eq!(session.deadline(), hours(60));
    let longer = Terms {
        policies: vec!["q".to_owned()].into(),
        ..within_hours(&limits, 90)
    };
    session.join(&longer, after(2)).unwrap();
    assert_eq!(session.deadline(), hours(60));
    let shorter = Terms {
        policies: vec!["r".to_owned()].into(),
        ..within_hours(&limits, 30)
    };
    session.join(&shorter, after(3)).unwrap();
    assert_eq!(session.deadline(), hours(30));
    assert_eq!(session.advance(after(30).boot, None), Step::End(hours(30)));
    assert_eq!(open(900).unwrap().deadline().reason, EndReason::Token);
    assert_eq!(open(0), Err(Refused::OutsideHours));
    let closed = Terms {
        policies: vec!["s".to_owned()].into(),
        ..within_hours(&limits, 4)
    };
    assert_eq!(session.join(&closed, after(4)), Err(Refused::OutsideHours));
}

#[test]
fn a_set_clock_that_is_outside_of_hours_ends_the_session() {
    let id = SessionId::from_u64(1).unwrap();
    let terms = within_hours(&limits(1000, None), 60);
    let mut session = Session::open(id, &credential(b"t", 500), &terms, None, START).unwrap();
    let set_back = Now {
        wall: START.wall.saturating_sub(Duration::from_secs(3600)),
        ..after(10)
    };
    session.wall_clock_stepped(Some(set_back.wall), set_back);
    assert_eq!(session.deadline().at, set_back.boot);
    assert_eq!(session.deadline().reason, EndReason::Hours);
}

#[test]
fn an_address_belongs_to_the_network_of_the_first() {
    let mut limits = limits(1000, None);
    limits.bind_network = Some(NetworkBinding { ipv4: 24, ipv6: 64 });
    let id = SessionId::from_u64(1).unwrap();
    let open = |first: Option<&str>| {
        let first = first.map(|address| address.parse().unwrap());
        let terms = terms("p", &limits);
        Session::open(id, &credential(b"t", 500), &terms, first, START).unwrap()
    };
    let takes = |session: &Session, address: &str| session.takes_address(address.parse().unwrap());
    let session = open(Some("192.0.2.7"));
    assert!(takes(&session, "192.0.2.250"));
    assert!(!takes(&session, "192.0.3.7"));
    assert!(!takes(&session, "2001:db8::1"));
    let session = open(Some("2001:db8::1"));
    assert!(takes(&session, "2001:db8::ffff:1"));
    assert!(!takes(&session, "2001:db8:0:1::1"));
    assert!(takes(&open(None), "192.0.3.7"));
}

proptest! {
    #[test]
    fn a_step_of_the_wall_clock_never_lengthens(step in -100_000_i64..100_000, passed in 0_u64..90) {
        let mut session = open(100, &limits(1000, None));
        let before = session.deadline().at;
        let mut now = after(passed);
        now.wall = WallInstant::from_unix_seconds(now.wall.as_unix_seconds() + step);
        session.wall_clock_stepped(None, now);
        prop_assert!(session.deadline().at <= before);
        if step > 0 {
            let expected = now.boot_at(session.token_expires_at);
            prop_assert_eq!(session.deadline().at, expected.min(before));
        }
    }

    #[test]
    fn nothing_moves_the_end_past_max_session(
        renewals in prop::collection::vec((0_u64..120, 1_u64..1000), 0..8),
    ) {
        let mut session = open(20, &limits(100, Some(50)));
        let latest = after(100).boot;
        for (at, expires_in) in renewals {
            let _ = session.renew(&credential(&at.to_le_bytes(), expires_in), after(at));
            session.touch(after(at).boot);
            prop_assert!(session.limit(None).at <= latest);
        }
    }
}

#[test]
fn the_key_of_the_latest_credential_vouches_for_a_session() {
    let [old, new] = [1, 2].map(|byte| KeyThumbprint::from_bytes([byte; 32]));
    let signed = |key: &[u8], expires_in, by| Credential {
        signing_key: Some(by),
        ..credential(key, expires_in)
    };
    let id = SessionId::from_u64(1).unwrap();
    let terms = terms("p", &limits(3600, None));
    let first = signed(b"a", 60, old);
    let mut session = Session::open(id, &first, &terms, None, after(0)).unwrap();
    assert!(session.stands_by(&[new, old], after(5).boot));
    assert!(!session.stands_by(&[new], after(5).boot));
    assert!(session.stands_by(&[], after(0).boot.saturating_sub(Duration::from_nanos(1))));
    // A credential that is no newer changes nothing.
    session.renew(&signed(b"b", 60, new), after(1)).unwrap();
    assert!(!session.stands_by(&[new], after(5).boot));
    session.renew(&signed(b"c", 90, new), after(2)).unwrap();
    assert!(session.stands_by(&[new], after(5).boot));
    assert!(!session.stands_by(&[old], after(2).boot));
    assert!(session.stands_by(&[old], after(1).boot));
    let unsigned = Session::open(id, &credential(b"a", 60), &terms, None, after(0));
    assert!(unsigned.unwrap().stands_by(&[], after(5).boot));
}

#[test]
fn a_credential_is_good_no_longer_than_the_certificate_beside_it() {
    let beside = |seconds: u64| Credential {
        certificate: Some(ShownCertificate {
            chain: vec![CertificateId::new(b"authority", b"1")],
            expires_at: after(seconds).wall,
        }),
        ..credential(b"t", 50)
    };
    assert_eq!(beside(40).good_until(), after(40).wall);
    assert_eq!(beside(60).good_until(), after(50).wall);
}
