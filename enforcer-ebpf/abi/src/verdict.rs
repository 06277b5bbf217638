//! Whether a packet passes: one pure function, called by the eBPF programs for every packet and by
//! property tests on the host.

use crate::layout::{Activity, ActivityKind, Mode, Session, SessionState, codes};

/// Outgoing payload stops this long before the limit.
///
/// A packet that is judged just before the limit still has to travel from the hook to the wire;
/// without the guard it could be captured there microseconds after. What is held back is not
/// latched: a session that is renewed in the guard band retransmits and goes on.
pub const EGRESS_GUARD_NS: u64 = 1_000_000;

/// Which way a packet goes, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the socket.
    Ingress,
    /// From the socket.
    Egress,
}

/// What the verdict needs to know of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// It carries TCP payload.
    pub payload: bool,
    /// Its RST flag is set.
    pub reset: bool,
}

/// What is known of the socket that a segment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The socket has no storage.
    Untracked,
    /// A listener: the segment belongs to a handshake. A client may send its first payload along
    /// with the last segment of it.
    Listener,
    /// Accepted, not bound yet.
    Unbound {
        /// When the handshake finished.
        opened_at_ns: u64,
    },
    /// Shared by sessions; the gateway answers for it.
    Pooled,
    /// Latched to a session.
    Bound {
        /// The socket is the client's leg.
        client: bool,
        /// The session; all zero when its entry is gone.
        session: Session,
        /// What the kernel has seen of the session.
        activity: Activity,
    },
}

codes! {
    /// Why a packet was dropped or a session ended.
    Reason {
        /// The session's deadline has passed.
        Deadline = 1,
        /// The session's idle limit has passed.
        Idle = 2,
        /// The session was revoked.
        Revoked = 3,
        /// The session's entry is gone.
        UnknownSession = 4,
        /// Nobody authenticated within the limit.
        PreAuthentication = 5,
        /// Payload on a socket without storage.
        Untracked = 6,
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Pass,
    /// It is dropped.
    Drop(Reason),
    /// It is dropped for now: outgoing payload in the guard band before the limit.
    Hold,
    /// It passes only because the mode is observe.
    Observe(Reason),
}

/// The verdict on one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do with it.
    pub action: Action,
    /// It is the client's payload, and it passes.
    pub client_activity: bool,
    /// The first packet that met the session's limit, this one. Where that is enforced its expiry is
    /// to be latched.
    pub latch: Option<Limit>,
}

/// The instant at which a session ends, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The instant.
    pub at_ns: u64,
    /// [`Reason::Deadline`] or [`Reason::Idle`].
    pub reason: Reason,
}

impl Verdict {
    const PASS: Self = Self {
        action: Action::Pass,
        client_activity: false,
        latch: None,
    };

    #[inline(always)]
    const fn refuse(reason: Reason, mode: u32) -> Self {
        let action = if mode == Mode::Observe.code() {
            Action::Observe(reason)
        } else {
            Action::Drop(reason)
        };
        Self {
            action,
            client_activity: false,
            latch: None,
        }
    }
}

/// The earlier of a session's deadline and its idle limit.
#[inline(always)]
pub fn session_limit(session: &Session, activity: &Activity) -> Limit {
    let deadline = Limit {
        at_ns: session.deadline_ns,
        reason: Reason::Deadline,
    };
    if session.idle_timeout_ns == 0 {
        return deadline;
    }
    let mut base = session.idle_base_ns;
    if session.activity == ActivityKind::Payload.code() && activity.last_client_payload_at_ns > base
    {
        base = activity.last_client_payload_at_ns;
    }
    let idle_at_ns = base.saturating_add(session.idle_timeout_ns);
    if idle_at_ns < deadline.at_ns {
        Limit {
            at_ns: idle_at_ns,
            reason: Reason::Idle,
        }
    } else {
        deadline
    }
}

/// Judges one TCP segment.
///
/// `now_ns` must have been read before the session was looked up: then a limit that was moved
/// before it was reached is always seen moved (see the renewal rule in the warden).
#[inline(always)]
pub fn verdict(
    now_ns: u64,
    packet: Packet,
    standing: Standing,
    mode: u32,
    pre_authentication_timeout_ns: u64,
) -> Verdict {
    // A RST without payload always passes, or a peer of a dying socket would never learn.
    if packet.reset && !packet.payload {
        return Verdict::PASS;
    }
    match standing {
        Standing::Untracked if packet.payload => Verdict::refuse(Reason::Untracked, mode),
        Standing::Untracked | Standing::Listener | Standing::Pooled => Verdict::PASS,
        Standing::Unbound { opened_at_ns } => {
            if now_ns >= opened_at_ns.saturating_add(pre_authentication_timeout_ns) {
                Verdict::refuse(Reason::PreAuthentication, mode)
            } else {
                Verdict::PASS
            }
        }
        Standing::Bound {
            client,
            session,
            activity,
        } => judge_session(now_ns, packet, client, &session, &activity),
    }
}

#[inline(always)]
fn judge_session(
    now_ns: u64,
    packet: Packet,
    client: bool,
    session: &Session,
    activity: &Activity,
) -> Verdict {
    match SessionState::from_code(session.state) {
        Some(SessionState::Active) => {}
        Some(SessionState::Revoked) => {
            return Verdict::refuse(Reason::Revoked, Mode::Enforce.code());
        }
        None => return Verdict::refuse(Reason::UnknownSession, Mode::Enforce.code()),
    }
    let limit = session_limit(session, activity);
    // What was over under an enforced limit stays over, whatever the mode is by now.
    if activity.expired_at_ns != 0 {
        return Verdict::refuse(limit.reason, Mode::Enforce.code());
    }
    let from_client = client && matches!(packet.direction, Direction::Ingress);
    if now_ns >= limit.at_ns {
        let mut verdict = Verdict::refuse(limit.reason, session.mode);
        let observed = matches!(verdict.action, Action::Observe(_));
        verdict.client_activity = observed && packet.payload && from_client;
        if !observed || activity.observed_at_ns == 0 {
            verdict.latch = Some(limit);
        }
        return verdict;
    }
    let to_wire = matches!(packet.direction, Direction::Egress);
    if packet.payload
        && to_wire
        && session.mode == Mode::Enforce.code()
        && limit.at_ns - now_ns <= EGRESS_GUARD_NS
    {
        return Verdict {
            action: Action::Hold,
            client_activity: false,
            latch: None,
        };
    }
    Verdict {
        action: Action::Pass,
        client_activity: packet.payload && from_client,
        latch: None,
    }
}
