//! The verdict held against the design's table.
//!
//! Three parts: the table read aloud, one named test a row; a model of the table, written with
//! other means (first row that applies wins, in 128 bits), that has to agree with the function on
//! whatever proptest comes up with; and the promises that matter alone, without the model.

use enforcer_abi::{
    Action, Activity, ActivityKind, Direction, EGRESS_GUARD_NS, Limit, Mode, Packet, Reason,
    Session, SessionState, Standing, Verdict, session_limit, verdict,
};
use proptest::prelude::*;

const ENFORCE: u32 = Mode::Enforce as u32;
const OBSERVE: u32 = Mode::Observe as u32;
const SECOND: u64 = 1_000_000_000;
const PRE_AUTHENTICATION_TIMEOUT_NS: u64 = 10 * SECOND;

/// Everything that the verdict depends on.
#[derive(Clone, Copy, Debug)]
struct Question {
    now_ns: u64,
    packet: Packet,
    standing: Standing,
    mode: u32,
    pre_authentication_timeout_ns: u64,
}

impl Question {
    fn ask(self) -> Verdict {
        verdict(
            self.now_ns,
            self.packet,
            self.standing,
            self.mode,
            self.pre_authentication_timeout_ns,
        )
    }
}

fn passed(action: Action) -> bool {
    matches!(action, Action::Pass | Action::Observe(_))
}

mod model {
    //! The table: rows from top to bottom, the first that applies decides.

    use super::*;

    /// A row of the design's table.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Row {
        BareReset,
        UntrackedWithPayload,
        UntrackedWithoutPayload,
        Handshake,
        Pooled,
        WaitsForBinding,
        PreAuthenticationLimit,
        Gone,
        Revoked,
        Latched,
        LimitReached,
        GuardBand,
        Alive,
    }

    /// The sooner of the two ends, as exact sums.
    pub(crate) fn limit(session: &Session, activity: &Activity) -> (u128, Reason) {
        let deadline = (u128::from(session.deadline_ns), Reason::Deadline);
        let kernel_counts = session.activity == ActivityKind::Payload as u32;
        let last_activity_at = [
            Some(session.idle_base_ns),
            kernel_counts.then_some(activity.last_client_payload_at_ns),
        ]
        .into_iter()
        .flatten()
        .max()
        .map_or(0, u128::from);
        let idle = (
            last_activity_at + u128::from(session.idle_timeout_ns),
            Reason::Idle,
        );
        if session.idle_timeout_ns != 0 && idle.0 < deadline.0 {
            idle
        } else {
            deadline
        }
    }

    pub(crate) fn row(question: &Question) -> Row {
        let now = u128::from(question.now_ns);
        let packet = question.packet;
        match (packet.reset, packet.payload, question.standing) {
            (true, false, _) => Row::BareReset,
            (_, true, Standing::Untracked) => Row::UntrackedWithPayload,
            (_, false, Standing::Untracked) => Row::UntrackedWithoutPayload,
            (_, _, Standing::Listener) => Row::Handshake,
            (_, _, Standing::Pooled) => Row::Pooled,
            (_, _, Standing::Unbound { opened_at_ns }) => {
                let end =
                    u128::from(opened_at_ns) + u128::from(question.pre_authentication_timeout_ns);
                // The clock has no instant after the last: it counts as reached.
                if now < end.min(u128::from(u64::MAX)) {
                    Row::WaitsForBinding
                } else {
                    Row::PreAuthenticationLimit
                }
            }
            (
                _,
                payload,
                Standing::Bound {
                    session, activity, ..
                },
            ) => {
                let end = limit(&session, &activity).0;
                let enforced = session.mode == ENFORCE;
                let leaves = packet.direction == Direction::Egress;
                if session.state == SessionState::Revoked as u32 {
                    Row::Revoked
                } else if session.state != SessionState::Active as u32 {
                    Row::Gone
                } else if activity.expired_at_ns != 0 {
                    Row::Latched
                } else if end <= now {
                    Row::LimitReached
                } else if payload && leaves && enforced && end - now <= u128::from(EGRESS_GUARD_NS)
                {
                    Row::GuardBand
                } else {
                    Row::Alive
                }
            }
        }
    }

    pub(crate) fn answer(question: &Question) -> Verdict {
        let (mode, ends, client, seen) = match question.standing {
            Standing::Bound {
                client,
                session,
                activity,
            } => {
                let (at, reason) = limit(&session, &activity);
                // Never cut short: no end lies behind the deadline, which has 64 bits.
                let at_ns = at as u64;
                let seen = activity.observed_at_ns != 0;
                (session.mode, Some(Limit { at_ns, reason }), client, seen)
            }
            _ => (question.mode, None, false, false),
        };
        // Anything but an explicit "observe" is enforced.
        let unless_observed = |reason| match mode {
            OBSERVE => Action::Observe(reason),
            _ => Action::Drop(reason),
        };
        let row = row(question);
        let action = match row {
            Row::BareReset
            | Row::UntrackedWithoutPayload
            | Row::Handshake
            | Row::Pooled
            | Row::WaitsForBinding
            | Row::Alive => Action::Pass,
            Row::UntrackedWithPayload => unless_observed(Reason::Untracked),
            Row::PreAuthenticationLimit => unless_observed(Reason::PreAuthentication),
            Row::Gone => Action::Drop(Reason::UnknownSession),
            Row::Revoked => Action::Drop(Reason::Revoked),
            Row::Latched => Action::Drop(ends.expect("only a bound socket gets here").reason),
            Row::LimitReached => {
                unless_observed(ends.expect("only a bound socket gets here").reason)
            }
            Row::GuardBand => Action::Hold,
        };
        Verdict {
            action,
            client_activity: (row == Row::Alive
                || row == Row::LimitReached && matches!(action, Action::Observe(_)))
                && client
                && question.packet.payload
                && question.packet.direction == Direction::Ingress,
            latch: ends.filter(|_| {
                let again = matches!(action, Action::Observe(_)) && seen;
                row == Row::LimitReached && !again
            }),
        }
    }
}

mod table {
    //! Each row of the table, at the edges of its condition.

    use super::{model::Row, *};

    const OPENED_AT: u64 = 1_000 * SECOND;
    const DEADLINE: u64 = 2_000 * SECOND;
    const IDLE_BASE: u64 = 1_100 * SECOND;
    const IDLE_TIMEOUT: u64 = 300 * SECOND;
    const IDLE_AT: u64 = IDLE_BASE + IDLE_TIMEOUT;

    const REQUEST: Packet = packet(Direction::Ingress, true, false);
    const RESPONSE: Packet = packet(Direction::Egress, true, false);
    const ACK_IN: Packet = packet(Direction::Ingress, false, false);
    const ACK_OUT: Packet = packet(Direction::Egress, false, false);
    const RESET_IN: Packet = packet(Direction::Ingress, false, true);
    const RESET_OUT: Packet = packet(Direction::Egress, false, true);
    const RESET_WITH_PAYLOAD: Packet = packet(Direction::Egress, true, true);

    /// Ends at its deadline.
    const PLAIN: Session = Session {
        deadline_ns: DEADLINE,
        idle_timeout_ns: 0,
        idle_base_ns: OPENED_AT,
        policy_id: 0,
        mode: ENFORCE,
        activity: ActivityKind::Application as u32,
        state: SessionState::Active as u32,
    };
    /// Ends when the gateway has seen nothing for a while.
    const IDLE: Session = Session {
        idle_timeout_ns: IDLE_TIMEOUT,
        idle_base_ns: IDLE_BASE,
        ..PLAIN
    };
    /// Ends when the kernel has seen nothing for a while.
    const IDLE_PAYLOAD: Session = Session {
        activity: ActivityKind::Payload as u32,
        ..IDLE
    };
    const REVOKED: Session = Session {
        state: SessionState::Revoked as u32,
        ..PLAIN
    };
    /// What an eBPF program makes of a lookup that found nothing.
    const GONE: Session = Session {
        deadline_ns: 0,
        idle_timeout_ns: 0,
        idle_base_ns: 0,
        policy_id: 0,
        mode: 0,
        activity: 0,
        state: 0,
    };
    const FRESH: Activity = Activity {
        last_client_payload_at_ns: 0,
        expired_at_ns: 0,
        observed_at_ns: 0,
        first_drop_at_ns: 0,
    };
    const OBSERVED: Activity = Activity {
        observed_at_ns: DEADLINE,
        ..FRESH
    };
    const LATCHED: Activity = Activity {
        expired_at_ns: DEADLINE,
        ..FRESH
    };

    const fn packet(direction: Direction, payload: bool, reset: bool) -> Packet {
        Packet {
            direction,
            payload,
            reset,
        }
    }

    const fn observed(session: Session) -> Session {
        Session {
            mode: OBSERVE,
            ..session
        }
    }

    const fn heard_at(last_client_payload_at_ns: u64) -> Activity {
        Activity {
            last_client_payload_at_ns,
            ..FRESH
        }
    }

    const fn client(session: Session, activity: Activity) -> Standing {
        Standing::Bound {
            client: true,
            session,
            activity,
        }
    }

    const fn upstream(session: Session, activity: Activity) -> Standing {
        Standing::Bound {
            client: false,
            session,
            activity,
        }
    }

    const UNBOUND: Standing = Standing::Unbound {
        opened_at_ns: OPENED_AT,
    };
    const PRE_AUTHENTICATION_ENDS_AT: u64 = OPENED_AT + PRE_AUTHENTICATION_TIMEOUT_NS;

    const PASS: Verdict = plain(Action::Pass);
    const ACTIVITY: Verdict = Verdict {
        client_activity: true,
        ..PASS
    };
    const HOLD: Verdict = plain(Action::Hold);

    const fn plain(action: Action) -> Verdict {
        Verdict {
            action,
            client_activity: false,
            latch: None,
        }
    }

    const fn drop(reason: Reason) -> Verdict {
        plain(Action::Drop(reason))
    }

    const fn observe(reason: Reason) -> Verdict {
        plain(Action::Observe(reason))
    }

    const fn latching(verdict: Verdict, at_ns: u64, reason: Reason) -> Verdict {
        Verdict {
            latch: Some(Limit { at_ns, reason }),
            ..verdict
        }
    }

    /// `name: (row, now, packet, standing, mode of what belongs to no session) => verdict`
    macro_rules! rows {
        ($($name:ident: ($row:ident, $now:expr, $packet:expr, $standing:expr, $mode:expr) => $expected:expr;)+) => {
            $(
                #[test]
                fn $name() {
                    let question = Question {
                        now_ns: $now,
                        packet: $packet,
                        standing: $standing,
                        mode: $mode,
                        pre_authentication_timeout_ns: PRE_AUTHENTICATION_TIMEOUT_NS,
                    };
                    assert_eq!(question.ask(), $expected);
                    assert_eq!(model::row(&question), Row::$row);
                    assert_eq!(model::answer(&question), $expected);
                }
            )+
        };
    }

    // Latched, session alive.
    rows! {
        alive_passes_and_notes_client_payload:
            (Alive, DEADLINE - SECOND, REQUEST, client(PLAIN, FRESH), ENFORCE) => ACTIVITY;
        alive_passes_what_the_server_sends:
            (Alive, DEADLINE - SECOND, RESPONSE, client(PLAIN, FRESH), ENFORCE) => PASS;
        alive_does_not_note_a_bare_ack:
            (Alive, DEADLINE - SECOND, ACK_IN, client(PLAIN, FRESH), ENFORCE) => PASS;
        alive_does_not_note_what_an_upstream_says:
            (Alive, DEADLINE - SECOND, REQUEST, upstream(PLAIN, FRESH), ENFORCE) => PASS;
        alive_passes_to_an_upstream:
            (Alive, DEADLINE - SECOND, RESPONSE, upstream(PLAIN, FRESH), ENFORCE) => PASS;
        alive_until_the_last_nanosecond_for_the_client:
            (Alive, DEADLINE - 1, REQUEST, client(PLAIN, FRESH), ENFORCE) => ACTIVITY;
        alive_until_the_last_nanosecond_for_acks:
            (Alive, DEADLINE - 1, ACK_OUT, client(PLAIN, FRESH), ENFORCE) => PASS;
        alive_though_what_belongs_to_no_session_is_observed:
            (Alive, DEADLINE - SECOND, REQUEST, client(PLAIN, FRESH), OBSERVE) => ACTIVITY;
    }

    // The guard band before a limit.
    rows! {
        guard_band_not_yet_entered:
            (Alive, DEADLINE - EGRESS_GUARD_NS - 1, RESPONSE, client(PLAIN, FRESH), ENFORCE) => PASS;
        guard_band_first_nanosecond_holds_without_latching:
            (GuardBand, DEADLINE - EGRESS_GUARD_NS, RESPONSE, client(PLAIN, FRESH), ENFORCE) => HOLD;
        guard_band_last_nanosecond_holds:
            (GuardBand, DEADLINE - 1, RESPONSE, client(PLAIN, FRESH), ENFORCE) => HOLD;
        guard_band_before_an_idle_limit_holds:
            (GuardBand, IDLE_AT - 1, RESPONSE, client(IDLE, FRESH), ENFORCE) => HOLD;
        guard_band_holds_towards_an_upstream:
            (GuardBand, DEADLINE - 1, RESPONSE, upstream(PLAIN, FRESH), ENFORCE) => HOLD;
        guard_band_holds_a_reset_with_payload:
            (GuardBand, DEADLINE - 1, RESET_WITH_PAYLOAD, client(PLAIN, FRESH), ENFORCE) => HOLD;
        guard_band_does_not_hold_in_observe_mode:
            (Alive, DEADLINE - 1, RESPONSE, client(observed(PLAIN), FRESH), ENFORCE) => PASS;
    }

    // Deadline or idle limit reached.
    rows! {
        deadline_drops_and_latches:
            (LimitReached, DEADLINE, REQUEST, client(PLAIN, FRESH), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        deadline_drops_responses:
            (LimitReached, DEADLINE, RESPONSE, client(PLAIN, FRESH), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        deadline_drops_acks:
            (LimitReached, DEADLINE + SECOND, ACK_OUT, client(PLAIN, FRESH), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        deadline_drops_on_the_upstream_leg:
            (LimitReached, DEADLINE, REQUEST, upstream(PLAIN, FRESH), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        deadline_is_enforced_though_what_belongs_to_no_session_is_observed:
            (LimitReached, DEADLINE, REQUEST, client(PLAIN, FRESH), OBSERVE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        idle_limit_not_yet_reached:
            (Alive, IDLE_AT - 1, REQUEST, client(IDLE, FRESH), ENFORCE) => ACTIVITY;
        idle_limit_drops_and_latches:
            (LimitReached, IDLE_AT, REQUEST, client(IDLE, FRESH), ENFORCE)
                => latching(drop(Reason::Idle), IDLE_AT, Reason::Idle);
        idle_limit_of_application_activity_ignores_payload:
            (LimitReached, IDLE_AT, REQUEST, client(IDLE, heard_at(IDLE_AT - 1)), ENFORCE)
                => latching(drop(Reason::Idle), IDLE_AT, Reason::Idle);
        idle_limit_of_payload_activity_moves_with_payload:
            (Alive, IDLE_AT, REQUEST, client(IDLE_PAYLOAD, heard_at(IDLE_BASE + 1)), ENFORCE)
                => ACTIVITY;
        idle_limit_of_payload_activity_drops_in_its_turn:
            (LimitReached, IDLE_AT + 1, REQUEST, client(IDLE_PAYLOAD, heard_at(IDLE_BASE + 1)), ENFORCE)
                => latching(drop(Reason::Idle), IDLE_AT + 1, Reason::Idle);
        idle_base_wins_over_older_payload:
            (Alive, IDLE_AT - 1, REQUEST, client(IDLE_PAYLOAD, heard_at(OPENED_AT)), ENFORCE)
                => ACTIVITY;
        deadline_is_not_moved_by_payload:
            (LimitReached, DEADLINE, REQUEST, client(IDLE_PAYLOAD, heard_at(DEADLINE - 1)), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        deadline_is_the_reason_when_both_fall_together:
            (LimitReached, IDLE_AT, REQUEST, client(Session { deadline_ns: IDLE_AT, ..IDLE }, FRESH), ENFORCE)
                => latching(drop(Reason::Deadline), IDLE_AT, Reason::Deadline);
        unknown_mode_is_enforced:
            (LimitReached, DEADLINE, REQUEST, client(Session { mode: 0, ..PLAIN }, FRESH), OBSERVE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
    }

    // An expired session never comes back to life.
    rows! {
        latched_is_not_latched_again:
            (Latched, DEADLINE + SECOND, REQUEST, client(PLAIN, LATCHED), ENFORCE)
                => drop(Reason::Deadline);
        latched_stays_so_under_a_later_deadline:
            (Latched, DEADLINE + SECOND, REQUEST,
                client(Session { deadline_ns: u64::MAX, ..PLAIN }, LATCHED), ENFORCE)
                => drop(Reason::Deadline);
        latched_stays_so_under_new_activity:
            (Latched, IDLE_AT + 1, REQUEST,
                client(IDLE_PAYLOAD, Activity { expired_at_ns: IDLE_AT, ..heard_at(IDLE_AT) }), ENFORCE)
                => drop(Reason::Idle);
        latched_drops_before_the_limit_too:
            (Latched, OPENED_AT, ACK_IN, client(PLAIN, LATCHED), ENFORCE) => drop(Reason::Deadline);
    }

    // Revoked, or its entry is gone.
    rows! {
        revoked_drops:
            (Revoked, OPENED_AT, REQUEST, client(REVOKED, FRESH), ENFORCE) => drop(Reason::Revoked);
        revoked_drops_though_latched:
            (Revoked, DEADLINE, REQUEST, client(REVOKED, LATCHED), ENFORCE) => drop(Reason::Revoked);
        revoked_drops_in_observe_mode:
            (Revoked, OPENED_AT, REQUEST, client(observed(REVOKED), FRESH), OBSERVE)
                => drop(Reason::Revoked);
        gone_drops:
            (Gone, OPENED_AT, REQUEST, client(GONE, FRESH), ENFORCE) => drop(Reason::UnknownSession);
        gone_drops_in_observe_mode:
            (Gone, OPENED_AT, ACK_OUT, client(observed(GONE), FRESH), OBSERVE)
                => drop(Reason::UnknownSession);
        state_of_another_version_drops:
            (Gone, OPENED_AT, REQUEST, client(Session { state: 3, ..PLAIN }, FRESH), ENFORCE)
                => drop(Reason::UnknownSession);
    }

    // Accepted, not yet bound.
    rows! {
        unbound_passes:
            (WaitsForBinding, OPENED_AT, REQUEST, UNBOUND, ENFORCE) => PASS;
        unbound_passes_until_the_last_nanosecond:
            (WaitsForBinding, PRE_AUTHENTICATION_ENDS_AT - 1, RESPONSE, UNBOUND, ENFORCE) => PASS;
        unbound_drops_at_the_pre_authentication_limit:
            (PreAuthenticationLimit, PRE_AUTHENTICATION_ENDS_AT, REQUEST, UNBOUND, ENFORCE)
                => drop(Reason::PreAuthentication);
        unbound_drops_acks_too:
            (PreAuthenticationLimit, PRE_AUTHENTICATION_ENDS_AT, ACK_OUT, UNBOUND, ENFORCE)
                => drop(Reason::PreAuthentication);
        unbound_is_enforced_when_nobody_wrote_the_mode:
            (PreAuthenticationLimit, PRE_AUTHENTICATION_ENDS_AT, REQUEST, UNBOUND, 0)
                => drop(Reason::PreAuthentication);
    }

    // Role pooled.
    rows! {
        pooled_passes_out: (Pooled, u64::MAX, RESPONSE, Standing::Pooled, ENFORCE) => PASS;
        pooled_passes_in: (Pooled, u64::MAX, REQUEST, Standing::Pooled, ENFORCE) => PASS;
    }

    // Without storage.
    rows! {
        untracked_passes_without_payload:
            (UntrackedWithoutPayload, 0, ACK_IN, Standing::Untracked, ENFORCE) => PASS;
        untracked_drops_payload_in:
            (UntrackedWithPayload, 0, REQUEST, Standing::Untracked, ENFORCE)
                => drop(Reason::Untracked);
        untracked_drops_payload_out:
            (UntrackedWithPayload, 0, RESPONSE, Standing::Untracked, ENFORCE)
                => drop(Reason::Untracked);
        untracked_drops_payload_with_a_reset:
            (UntrackedWithPayload, 0, RESET_WITH_PAYLOAD, Standing::Untracked, ENFORCE)
                => drop(Reason::Untracked);
        listener_passes_a_handshake:
            (Handshake, 0, ACK_IN, Standing::Listener, ENFORCE) => PASS;
        listener_passes_payload_that_comes_with_the_handshake:
            (Handshake, 0, REQUEST, Standing::Listener, ENFORCE) => PASS;
    }

    // Observe mode.
    rows! {
        observe_passes_and_latches_at_the_deadline:
            (LimitReached, DEADLINE, REQUEST, client(observed(PLAIN), FRESH), ENFORCE)
                => Verdict {
                    client_activity: true,
                    ..latching(observe(Reason::Deadline), DEADLINE, Reason::Deadline)
                };
        observe_passes_and_latches_at_the_idle_limit:
            (LimitReached, IDLE_AT, RESPONSE, client(observed(IDLE), FRESH), ENFORCE)
                => latching(observe(Reason::Idle), IDLE_AT, Reason::Idle);
        observe_counts_after_the_first:
            (LimitReached, DEADLINE + SECOND, RESPONSE, client(observed(PLAIN), OBSERVED), ENFORCE)
                => observe(Reason::Deadline);
        observe_brings_back_nothing_that_was_over:
            (Latched, DEADLINE + SECOND, REQUEST, client(observed(PLAIN), LATCHED), ENFORCE)
                => drop(Reason::Deadline);
        what_was_only_observed_goes_on_under_enforced_limits:
            (Alive, DEADLINE + SECOND, REQUEST,
                client(Session { deadline_ns: u64::MAX, ..PLAIN }, OBSERVED), ENFORCE)
                => ACTIVITY;
        what_was_only_observed_ends_at_an_enforced_limit:
            (LimitReached, DEADLINE, REQUEST, client(PLAIN, OBSERVED), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
        observe_passes_the_unbound:
            (PreAuthenticationLimit, PRE_AUTHENTICATION_ENDS_AT, REQUEST, UNBOUND, OBSERVE)
                => observe(Reason::PreAuthentication);
        observe_passes_the_untracked:
            (UntrackedWithPayload, 0, REQUEST, Standing::Untracked, OBSERVE)
                => observe(Reason::Untracked);
    }

    // RST of a socket that is being cut.
    rows! {
        reset_leaves_at_the_deadline:
            (BareReset, DEADLINE, RESET_OUT, client(PLAIN, FRESH), ENFORCE) => PASS;
        reset_leaves_a_latched_session:
            (BareReset, DEADLINE + SECOND, RESET_OUT, client(PLAIN, LATCHED), ENFORCE) => PASS;
        reset_leaves_a_revoked_session:
            (BareReset, OPENED_AT, RESET_OUT, client(REVOKED, FRESH), ENFORCE) => PASS;
        reset_leaves_a_session_that_is_gone:
            (BareReset, OPENED_AT, RESET_OUT, client(GONE, FRESH), ENFORCE) => PASS;
        reset_leaves_the_unbound:
            (BareReset, PRE_AUTHENTICATION_ENDS_AT, RESET_OUT, UNBOUND, ENFORCE) => PASS;
        reset_arrives_too:
            (BareReset, DEADLINE, RESET_IN, client(PLAIN, FRESH), ENFORCE) => PASS;
        reset_with_payload_is_payload:
            (LimitReached, DEADLINE, RESET_WITH_PAYLOAD, client(PLAIN, FRESH), ENFORCE)
                => latching(drop(Reason::Deadline), DEADLINE, Reason::Deadline);
    }
}

/// Numbers that meet: multiples of half the guard, one more or less, at both ends of the range.
fn number() -> impl Strategy<Value = u64> {
    let half = EGRESS_GUARD_NS / 2;
    prop_oneof![
        6 => (0u64..8, -1i64..=1).prop_map(move |(n, off)| (n * half).saturating_add_signed(off)),
        2 => (0u64..8, 0u64..3).prop_map(move |(n, off)| u64::MAX - n * half - off),
        1 => any::<u64>(),
    ]
}

/// Valid codes mostly, and some that no version writes.
fn code() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1u32..=2, 1 => 0u32..=4, 1 => any::<u32>()]
}

fn packets() -> impl Strategy<Value = Packet> {
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(ingress, payload, reset)| Packet {
            direction: if ingress {
                Direction::Ingress
            } else {
                Direction::Egress
            },
            payload,
            reset,
        },
    )
}

/// Packets that aren't the exception.
fn judged_packets() -> impl Strategy<Value = Packet> {
    packets().prop_map(|packet| Packet {
        reset: packet.reset && packet.payload,
        ..packet
    })
}

prop_compose! {
    fn sessions()(
        deadline_ns in number(),
        idle_timeout_ns in number(),
        idle_base_ns in number(),
        policy_id in any::<u32>(),
        mode in code(),
        activity in code(),
        state in code(),
    ) -> Session {
        Session { deadline_ns, idle_timeout_ns, idle_base_ns, policy_id, mode, activity, state }
    }
}

fn active_sessions(mode: u32) -> impl Strategy<Value = Session> {
    sessions().prop_map(move |session| Session {
        state: SessionState::Active.code(),
        mode,
        ..session
    })
}

prop_compose! {
    fn activities()(
        last_client_payload_at_ns in number(),
        expired_at_ns in prop_oneof![3 => Just(0), 1 => number()],
        observed_at_ns in prop_oneof![1 => Just(0), 1 => number()],
        first_drop_at_ns in number(),
    ) -> Activity {
        Activity { last_client_payload_at_ns, expired_at_ns, observed_at_ns, first_drop_at_ns }
    }
}

fn unlatched() -> impl Strategy<Value = Activity> {
    activities().prop_map(|activity| Activity {
        expired_at_ns: 0,
        ..activity
    })
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        1 => Just(Standing::Untracked),
        1 => Just(Standing::Listener),
        1 => Just(Standing::Pooled),
        3 => number().prop_map(|opened_at_ns| Standing::Unbound { opened_at_ns }),
        9 => (any::<bool>(), sessions(), activities()).prop_map(|(client, session, activity)| {
            Standing::Bound { client, session, activity }
        }),
    ]
}

prop_compose! {
    fn questions()(
        now_ns in number(),
        packet in packets(),
        standing in standings(),
        mode in code(),
        pre_authentication_timeout_ns in number(),
    ) -> Question {
        Question { now_ns, packet, standing, mode, pre_authentication_timeout_ns }
    }
}

prop_compose! {
    /// A packet of a session, whatever the rest.
    fn bound(session: impl Strategy<Value = Session>, activity: impl Strategy<Value = Activity>)(
        question in questions(),
        packet in judged_packets(),
        client in any::<bool>(),
        session in session,
        activity in activity,
    ) -> (Question, Session, Activity) {
        let standing = Standing::Bound { client, session, activity };
        (Question { packet, standing, ..question }, session, activity)
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1024,
        // A failure prints the smallest question that shows it; that goes into the table above.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_model(question in questions()) {
        prop_assert_eq!(question.ask(), model::answer(&question), "{:?}", model::row(&question));
    }

    #[test]
    fn limit_agrees_with_the_model(session in sessions(), activity in activities()) {
        let limit = session_limit(&session, &activity);
        let (at, reason) = model::limit(&session, &activity);
        prop_assert_eq!((u128::from(limit.at_ns), limit.reason), (at, reason));
    }

    #[test]
    fn limit_is_never_after_the_deadline(session in sessions(), activity in activities()) {
        prop_assert!(session_limit(&session, &activity).at_ns <= session.deadline_ns);
    }

    #[test]
    fn limit_ignores_payload_unless_the_kernel_counts(
        session in sessions(),
        activity in prop_oneof![Just(ActivityKind::Application.code()), Just(0), 3u32..],
        before in activities(),
        after in activities(),
    ) {
        let session = Session { activity, ..session };
        prop_assert_eq!(session_limit(&session, &before), session_limit(&session, &after));
    }

    #[test]
    fn nothing_passes_at_or_after_the_limit(
        (question, session, activity) in bound(active_sessions(ENFORCE), activities()),
        late_ns in number(),
    ) {
        let limit = session_limit(&session, &activity);
        let question = Question { now_ns: limit.at_ns.saturating_add(late_ns), ..question };
        prop_assert_eq!(question.ask().action, Action::Drop(limit.reason));
    }

    #[test]
    fn everything_but_the_guard_band_passes_before_the_limit(
        (question, session, activity) in bound(active_sessions(ENFORCE), unlatched()),
        left_ns in number(),
    ) {
        let limit = session_limit(&session, &activity);
        prop_assume!(limit.at_ns > 0);
        let left_ns = left_ns.clamp(1, limit.at_ns);
        let question = Question { now_ns: limit.at_ns - left_ns, ..question };
        let action = question.ask().action;
        let guarded = question.packet.payload
            && question.packet.direction == Direction::Egress
            && left_ns <= EGRESS_GUARD_NS;
        prop_assert_eq!(action, if guarded { Action::Hold } else { Action::Pass });
    }

    #[test]
    fn a_latched_session_never_passes(
        (question, session, activity) in bound(
            prop_oneof![active_sessions(ENFORCE), active_sessions(OBSERVE)],
            activities().prop_map(|activity| Activity {
                expired_at_ns: activity.expired_at_ns.max(1),
                ..activity
            }),
        ),
    ) {
        let verdict = question.ask();
        prop_assert_eq!(verdict.action, Action::Drop(session_limit(&session, &activity).reason));
    }

    #[test]
    fn a_revoked_or_missing_session_never_passes_in_any_mode(
        (question, session, _) in bound(
            sessions().prop_filter("not active", |s| s.state != SessionState::Active.code()),
            activities(),
        ),
    ) {
        let reason = if session.state == SessionState::Revoked.code() {
            Reason::Revoked
        } else {
            Reason::UnknownSession
        };
        let verdict = question.ask();
        prop_assert_eq!(verdict.action, Action::Drop(reason));
        prop_assert_eq!(verdict.latch, None);
    }

    #[test]
    fn observe_never_drops_for_a_limit(
        (question, ..) in bound(active_sessions(OBSERVE), unlatched()),
    ) {
        let action = question.ask().action;
        prop_assert!(passed(action), "{:?}", action);
    }

    #[test]
    fn observe_tells_what_enforce_would_drop(
        (question, session, activity) in bound(active_sessions(OBSERVE), unlatched()),
    ) {
        let Standing::Bound { client, .. } = question.standing else { unreachable!() };
        let session = Session { mode: ENFORCE, ..session };
        let enforced = Question { standing: Standing::Bound { client, session, activity }, ..question };
        let (observed, enforced) = (question.ask(), enforced.ask());
        let expected = match enforced.action {
            Action::Drop(reason) => Action::Observe(reason),
            // The guard keeps a promise that observe mode doesn't give.
            Action::Pass | Action::Hold => Action::Pass,
            Action::Observe(_) => unreachable!("the session is enforced"),
        };
        prop_assert_eq!(observed.action, expected);
        prop_assert_eq!(observed.latch, enforced.latch.filter(|_| activity.observed_at_ns == 0));
    }

    #[test]
    fn a_reset_without_payload_always_passes(question in questions()) {
        let packet = Packet { payload: false, reset: true, ..question.packet };
        let verdict = Question { packet, ..question }.ask();
        let silent = Verdict { action: Action::Pass, client_activity: false, latch: None };
        prop_assert_eq!(verdict, silent);
    }

    #[test]
    fn payload_passes_on_a_listener_and_never_on_an_untracked_socket(
        question in questions(), mode in code(),
    ) {
        let packet = Packet { payload: true, ..question.packet };
        let ask = |standing| Question { packet, standing, mode, ..question }.ask().action;
        prop_assert_eq!(ask(Standing::Listener), Action::Pass);
        let untracked = if mode == OBSERVE {
            Action::Observe(Reason::Untracked)
        } else {
            Action::Drop(Reason::Untracked)
        };
        prop_assert_eq!(ask(Standing::Untracked), untracked);
    }

    #[test]
    fn guard_band_holds_what_leaves_and_passes_what_arrives(
        (question, session, activity) in bound(active_sessions(ENFORCE), unlatched()),
        left_ns in prop_oneof![Just(1), Just(EGRESS_GUARD_NS), 1..=EGRESS_GUARD_NS],
    ) {
        let limit = session_limit(&session, &activity);
        prop_assume!(limit.at_ns > 0);
        let left_ns = left_ns.min(limit.at_ns);
        let now_ns = limit.at_ns - left_ns;
        let ask = |direction| {
            let packet = Packet { direction, payload: true, ..question.packet };
            Question { now_ns, packet, ..question }.ask()
        };
        let (leaves, arrives) = (ask(Direction::Egress), ask(Direction::Ingress));
        prop_assert_eq!((leaves.action, leaves.latch), (Action::Hold, None));
        prop_assert_eq!((arrives.action, arrives.latch), (Action::Pass, None));
    }

    #[test]
    fn the_latch_is_asked_for_once(
        (question, session, activity) in bound(
            prop_oneof![active_sessions(ENFORCE), active_sessions(OBSERVE), sessions()],
            activities(),
        ),
    ) {
        let first = question.ask();
        if let Some(limit) = first.latch {
            prop_assert_eq!(activity.expired_at_ns, 0);
            prop_assert_eq!(limit, session_limit(&session, &activity));
            prop_assert!(limit.at_ns <= question.now_ns);
        }
        let Standing::Bound { client, .. } = question.standing else { unreachable!() };
        let at = question.now_ns.max(1);
        let activity = match first.action {
            Action::Observe(_) => Activity { observed_at_ns: at, ..activity },
            _ => Activity { expired_at_ns: at, ..activity },
        };
        let next = Question { standing: Standing::Bound { client, session, activity }, ..question };
        prop_assert_eq!(next.ask().latch, None);
    }

    #[test]
    fn the_latch_is_asked_for_by_the_first_packet_at_the_limit(
        (question, session, activity) in bound(
            prop_oneof![active_sessions(ENFORCE), active_sessions(OBSERVE)],
            unlatched(),
        ),
    ) {
        let limit = session_limit(&session, &activity);
        let seen = session.mode == OBSERVE && activity.observed_at_ns != 0;
        let expected = (limit.at_ns <= question.now_ns && !seen).then_some(limit);
        prop_assert_eq!(question.ask().latch, expected);
    }

    #[test]
    fn only_client_payload_that_arrives_and_passes_is_activity(question in questions()) {
        if question.ask().client_activity {
            prop_assert!(passed(question.ask().action));
            prop_assert!(question.packet.payload);
            prop_assert_eq!(question.packet.direction, Direction::Ingress);
            let is_client = matches!(question.standing, Standing::Bound { client: true, .. });
            prop_assert!(is_client);
        }
    }

    #[test]
    fn time_alone_never_brings_a_connection_back(question in questions(), later_ns in number()) {
        let later = Question { now_ns: question.now_ns.saturating_add(later_ns), ..question };
        if !passed(question.ask().action) {
            prop_assert!(!passed(later.ask().action));
        }
    }

    #[test]
    fn the_last_instants_do_not_overflow(
        question in questions(),
        picks in prop::collection::vec(prop_oneof![Just(u64::MAX), Just(u64::MAX - 1), Just(0)], 7),
    ) {
        let standing = match question.standing {
            Standing::Unbound { .. } => Standing::Unbound { opened_at_ns: picks[0] },
            Standing::Bound { client, session, activity } => Standing::Bound {
                client,
                session: Session {
                    deadline_ns: picks[1],
                    idle_timeout_ns: picks[2],
                    idle_base_ns: picks[3],
                    ..session
                },
                activity: Activity { last_client_payload_at_ns: picks[4], ..activity },
            },
            other => other,
        };
        let question = Question {
            now_ns: picks[5],
            pre_authentication_timeout_ns: picks[6],
            standing,
            ..question
        };
        prop_assert_eq!(question.ask(), model::answer(&question));
    }
}
