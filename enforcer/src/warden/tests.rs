//! What the warden believes of a gateway, and what it takes over: on the real maps, as root.

mod again;
mod dismissing;
mod policies;
mod relimit;
mod withdrawing;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use enforcer_abi::{self as abi, map_name};

use super::{
    core::{Core, Parts},
    gateways::GatewayId,
    store::{Snapshot, Store, StoredSession},
};
use crate::{
    audit::{AuditLog, AuditSettings},
    channel::{BoundRole, Kinship, Refusal, SessionView, ToGateway, ToWarden},
    clock::{BootInstant, Now, WallInstant},
    kernel::{
        attach::{self, Sizes},
        cgroup::{self, DaemonCgroup},
        maps::Maps,
        reset::Resetter,
    },
    policy::{
        ActivityKind, AtSessionLimit, Hours, Limits, Mode, NetworkBinding, Policy,
        SessionsPerSubject, time_zone,
    },
    session::{
        CertificateId, Credential, EndReason, KeyThumbprint, KeyUse, Principal, SessionId,
        SessionKey, ShownCertificate,
    },
};

const GATEWAY: GatewayId = GatewayId(1);

/// Hours that were open for a minute of yesterday.
fn never() -> Hours {
    let now = Now::read().wall.as_unix_seconds();
    let day = (now / 86_400 - 1 + 3) % 7;
    let day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][day as usize];
    let window = format!("{day} 00:00-00:01").parse().unwrap();
    Hours::new(time_zone("UTC").unwrap(), vec![window]).unwrap()
}

/// A core on pinned maps of its own, and what must be removed again.
struct Bench {
    core: Core,
    connections: HashMap<MapData, u64, abi::Connection>,
    bpf_dir: PathBuf,
    cgroup: DaemonCgroup,
    _state: tempfile::TempDir,
    _audit: AuditLog,
    answers: tokio::sync::mpsc::Receiver<super::gateways::Outgoing>,
}

impl Bench {
    fn new() -> Self {
        Self::sized(100)
    }

    fn sized(sessions: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "enforcer-unit-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let bpf_dir = PathBuf::from("/sys/fs/bpf").join(&name);
        crate::kernel::probe::check(&bpf_dir).unwrap();
        let folder = cgroup::mount_point().unwrap().join(&name);
        std::fs::create_dir(&folder).unwrap();
        let cgroup = DaemonCgroup::locate(Some(&folder)).unwrap();
        attach::attach(
            &bpf_dir,
            &cgroup,
            Sizes {
                sessions,
                connections: 100,
            },
        )
        .unwrap();
        let connections = MapData::from_pin(bpf_dir.join(map_name::CONNECTIONS)).unwrap();
        let state = tempfile::tempdir().unwrap();
        let database = state.path().join(super::store::DATABASE_NAME);
        let (store, _) = Store::open(&database, Now::read().wall).unwrap();
        let audit = AuditLog::open(AuditSettings::within(state.path())).unwrap();
        let limits = |max_session, idle_timeout| Limits {
            max_session: Duration::from_secs(max_session),
            idle_timeout: Some(Duration::from_secs(idle_timeout)),
            warn_before: Duration::from_secs(1),
            farewell: Duration::ZERO,
            activity: ActivityKind::Application,
            mode: Mode::Enforce,
            max_connections: None,
            sessions_per_subject: None,
            bind_network: None,
        };
        let policy = Policy::from;
        let mut core = Core::new(Parts {
            policies: BTreeMap::from([
                ("normal".to_owned(), policy(limits(600, 60))),
                ("strict".to_owned(), policy(limits(60, 10))),
                (
                    "alone".to_owned(),
                    policy(Limits {
                        sessions_per_subject: Some(SessionsPerSubject {
                            max: 1,
                            then: AtSessionLimit::Refuse,
                        }),
                        ..limits(600, 60)
                    }),
                ),
                (
                    "latest".to_owned(),
                    policy(Limits {
                        sessions_per_subject: Some(SessionsPerSubject {
                            max: 2,
                            then: AtSessionLimit::EndOldest,
                        }),
                        ..limits(600, 60)
                    }),
                ),
                (
                    "bound".to_owned(),
                    policy(Limits {
                        max_connections: Some(2),
                        bind_network: Some(NetworkBinding { ipv4: 24, ipv6: 64 }),
                        ..limits(600, 60)
                    }),
                ),
                (
                    "closed".to_owned(),
                    Policy {
                        hours: Some(never()),
                        ..policy(limits(600, 60))
                    },
                ),
                (
                    "observed".to_owned(),
                    policy(Limits {
                        mode: Mode::Observe,
                        ..limits(60, 10)
                    }),
                ),
            ]),
            pre_authentication_timeout: Duration::from_secs(10),
            maps: Maps::open(&bpf_dir).unwrap(),
            resetter: Resetter::open().unwrap(),
            audit: audit.sink(),
            store,
        });
        let state_of = super::admin::GatewayState::Serving;
        let answers = core.gateways.add(GATEWAY, state_of, 1);
        Self {
            core,
            connections: Map::from_map_data(connections).unwrap().try_into().unwrap(),
            bpf_dir,
            cgroup,
            _state: state,
            _audit: audit,
            answers,
        }
    }

    /// A connection, as sock_ops writes it.
    fn connect(&mut self, cookie: u64, role: abi::Role) {
        let connection = abi::Connection {
            opened_at_ns: Now::read().boot.as_nanos(),
            family: 2,
            role: role.code(),
            ..abi::Connection::default()
        };
        self.connections.insert(cookie, connection, 0).unwrap();
    }

    fn open(&mut self, cookie: u64, credential: &Credential) -> Result<SessionView, Refusal> {
        self.core.open(
            cookie,
            credential,
            &["normal".to_owned()],
            None,
            Now::read(),
        )
    }

    /// What the gateway is answered.
    fn ask(&mut self, message: ToWarden) -> ToGateway {
        self.core.on_message(GATEWAY, message, Now::read());
        loop {
            let message = self.answers.try_recv().unwrap().message;
            if !matches!(message, ToGateway::Changed { .. } | ToGateway::Ended { .. }) {
                return message;
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let removed = attach::remove(&self.bpf_dir);
        self.cgroup.remove();
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

fn later(now: Now, passed: Duration) -> Now {
    Now {
        boot: now.boot.saturating_add(passed),
        wall: now.wall.saturating_add(passed),
    }
}

fn credential(subject: &str, expires_in: u64) -> Credential {
    Credential {
        principal: Principal {
            issuer: "iss".to_owned(),
            subject: subject.to_owned(),
        },
        key: SessionKey::from_token(subject.as_bytes()),
        names_session: true,
        authorized_party: None,
        authenticated_at: None,
        expires_at: Now::read()
            .wall
            .saturating_add(Duration::from_secs(expires_in)),
        assumed_expiry: false,
        signing_key: None,
        certificate: None,
    }
}

#[test]
fn a_session_is_in_the_map_and_its_socket_bound_when_the_gateway_hears_of_it() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let view = bench.open(7, &credential("alice", 30)).unwrap();
    let entry = bench.core.maps.session(view.id.as_u64()).unwrap();
    assert_eq!(entry.deadline_ns, view.deadline.as_nanos());
    assert_eq!(entry.idle_timeout_ns, 60_000_000_000);
    let binding = bench.core.maps.binding(7).unwrap();
    assert_eq!(
        (binding.session_id, binding.role),
        (view.id.as_u64(), abi::Role::Client.code())
    );
}

#[test]
fn a_bound_socket_is_never_bound_again() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let alice = bench.open(7, &credential("alice", 30)).unwrap();
    assert_eq!(
        bench.open(7, &credential("mallory", 30)),
        Err(Refusal::AnotherSession)
    );
    bench.connect(8, abi::Role::Client);
    let mallory = bench.open(8, &credential("mallory", 500)).unwrap();
    let bind = |session, role| ToWarden::Bind {
        request: 1,
        cookie: 7,
        session,
        role,
        target: None,
    };
    for (session, role) in [
        (mallory.id, BoundRole::Client),
        (mallory.id, BoundRole::Upstream),
        (alice.id, BoundRole::Upstream),
    ] {
        let answer = bench.ask(bind(session, role));
        let refused = ToGateway::Refused {
            request: 1,
            refusal: Refusal::AnotherSession,
        };
        assert_eq!(answer, refused, "{role:?}");
    }
    assert_eq!(
        bench.core.maps.binding(7).unwrap().session_id,
        alice.id.as_u64()
    );
}

#[test]
fn only_known_open_sockets_of_the_right_kind_are_bound() {
    let mut bench = Bench::new();
    let unbindable = Err(Refusal::UnbindableSocket);
    assert_eq!(
        bench.open(1, &credential("alice", 30)),
        unbindable,
        "unknown"
    );
    bench.connect(2, abi::Role::Pooled);
    assert_eq!(
        bench.open(2, &credential("alice", 30)),
        unbindable,
        "an upstream's"
    );
    bench.connect(3, abi::Role::Client);
    let closed = abi::Connection {
        closed_at_ns: 1,
        ..bench.connections.get(&3, 0).unwrap()
    };
    bench.connections.insert(3, closed, 0).unwrap();
    assert_eq!(
        bench.open(3, &credential("alice", 30)),
        unbindable,
        "closed"
    );
    bench.connect(4, abi::Role::Client);
    let old = abi::Connection {
        opened_at_ns: 1,
        ..bench.connections.get(&4, 0).unwrap()
    };
    bench.connections.insert(4, old, 0).unwrap();
    assert_eq!(
        bench.open(4, &credential("alice", 30)),
        unbindable,
        "too late"
    );
    assert!(bench.core.maps.sessions().is_empty());
}

#[test]
fn no_message_moves_a_limit_past_the_policy() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let before = Now::read().boot;
    let view = bench.open(7, &credential("alice", 1_000_000)).unwrap();
    let latest = Now::read().boot.saturating_add(Duration::from_secs(600));
    assert!(view.deadline <= latest && view.deadline > before);
    let forged = credential("alice", 2_000_000);
    let renew = ToWarden::Renew {
        request: 3,
        session: view.id,
        credential: forged,
    };
    let ToGateway::Opened { session, .. } = bench.ask(renew) else {
        panic!("not renewed")
    };
    assert_eq!(session.deadline, view.deadline);

    let future = latest.saturating_add(Duration::from_secs(3600));
    bench.core.on_message(
        GATEWAY,
        ToWarden::Touch {
            session: view.id,
            at: future,
        },
        Now::read(),
    );
    let entry = bench.core.maps.session(view.id.as_u64()).unwrap();
    assert!(entry.idle_base_ns <= Now::read().boot.as_nanos());
    assert!(entry.deadline_ns <= latest.as_nanos());
}

#[test]
fn finding_a_session_opens_none_and_binds_to_it() {
    let mut bench = Bench::new();
    for cookie in 7..11 {
        bench.connect(cookie, abi::Role::Client);
    }
    let find = |bench: &mut Bench, cookie, credential: &Credential, kinship| {
        bench
            .core
            .find(cookie, credential, kinship, None, Now::read())
    };
    let token = |key: &str, seconds| Credential {
        key: SessionKey::from_token(key.as_bytes()),
        names_session: false,
        ..credential("alice", seconds)
    };
    let alice = token("first", 30);
    let nothing = find(&mut bench, 7, &alice, Kinship::Successor);
    assert_eq!(nothing.unwrap_err(), Refusal::NoSession);
    let view = bench.open(7, &alice).unwrap();
    let (found, usage) = find(&mut bench, 8, &alice, Kinship::Own).unwrap();
    assert_eq!((found.id, usage.connections), (view.id, 2));
    assert_eq!(found.policies, ["normal"]);

    // A newer token with another key: on a bound connection, or where it is asked to renew.
    let newer = |seconds| token(&format!("{seconds}"), seconds);
    let stranger = find(&mut bench, 9, &newer(40), Kinship::Own);
    assert_eq!(stranger.unwrap_err(), Refusal::NoSession);
    let (renewed, _) = find(&mut bench, 8, &newer(40), Kinship::Own).unwrap();
    assert!(renewed.id == view.id && renewed.deadline > view.deadline);
    let (again, _) = find(&mut bench, 9, &newer(50), Kinship::Successor).unwrap();
    assert!(again.id == view.id && again.deadline > renewed.deadline);
    let older = find(&mut bench, 10, &newer(35), Kinship::Successor);
    assert_eq!(older.unwrap_err(), Refusal::NoSession);

    // Which of two sessions would it be?
    let second = token("second", 30);
    assert_ne!(bench.open(10, &second).unwrap().id, view.id);
    bench.connect(11, abi::Role::Client);
    let unclear = find(&mut bench, 11, &newer(60), Kinship::Successor);
    assert_eq!(unclear.unwrap_err(), Refusal::NoSession);
    let moving = find(&mut bench, 10, &alice, Kinship::Own);
    assert_eq!(moving.unwrap_err(), Refusal::AnotherSession);
}

#[test]
fn a_session_under_two_policies_has_the_strictest_of_their_limits() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let alice = credential("alice", 500);
    let view = bench.open(7, &alice).unwrap();
    let joined = bench
        .core
        .open(7, &alice, &["strict".to_owned()], None, Now::read())
        .unwrap();
    assert_eq!(joined.id, view.id);
    assert!(joined.deadline < view.deadline);
    let entry = bench.core.maps.session(view.id.as_u64()).unwrap();
    assert_eq!(entry.idle_timeout_ns, 10_000_000_000);
    let unknown = bench
        .core
        .open(7, &alice, &["none".to_owned()], None, Now::read());
    assert_eq!(unknown, Err(Refusal::UnknownPolicy));
}

#[test]
fn full_bindings_refuse_a_socket_and_leave_the_others_alone() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    bench.open(7, &credential("alice", 30)).unwrap();
    let of_nobody = abi::Binding {
        session_id: 1,
        role: abi::Role::Client.code(),
        padding: 0,
    };
    let others = 1_000..;
    let full = others.take_while(|cookie| bench.core.maps.bind(*cookie, of_nobody).is_ok());
    assert!(full.count() > 10);
    bench.connect(8, abi::Role::Client);
    let refused = bench.open(8, &credential("bob", 30));
    assert_eq!(refused, Err(Refusal::Capacity));
    assert!(bench.core.maps.binding(7).is_some());
}

#[test]
fn a_listing_is_made_in_slices_and_leaves_out_what_ends_meanwhile() {
    const SESSIONS: u64 = 600;
    let mut bench = Bench::sized(1_000);
    let now = Now::read();
    let sessions = (1..=SESSIONS).map(|id| {
        let mut session = stored(id, now.wall);
        session.keys[0].key = SessionKey::from_token(&id.to_le_bytes());
        session
    });
    let snapshot = Snapshot {
        sessions: sessions.collect(),
        ..Snapshot::default()
    };
    bench.core.recover(snapshot, now);
    let (reply, mut listed) = tokio::sync::oneshot::channel();
    bench.core.begin_listing(reply);
    let mut slices = 0;
    while bench.core.is_listing() {
        assert!(listed.try_recv().is_err());
        bench.core.list_on(Now::read());
        slices += 1;
        if slices == 1 {
            let everybody = bench.core.book.ids();
            bench
                .core
                .end_all(&everybody, EndReason::Revoked, None, Now::read());
        }
    }
    let listed = listed.try_recv().unwrap();
    assert!(slices > 1 && (1..SESSIONS as usize).contains(&listed.len()));
}

#[test]
fn full_maps_refuse_new_sessions_and_leave_the_others_alone() {
    let mut bench = Bench::sized(1);
    bench.connect(7, abi::Role::Client);
    let view = bench.open(7, &credential("alice", 30)).unwrap();
    bench.connect(8, abi::Role::Client);
    assert_eq!(
        bench.open(8, &credential("bob", 30)),
        Err(Refusal::Capacity)
    );
    assert_eq!(bench.core.maps.binding(8), None);
    assert!(bench.core.maps.session(view.id.as_u64()).is_some());
}

fn stored(id: u64, started_at: WallInstant) -> StoredSession {
    let until = Now::read().wall.saturating_add(Duration::from_secs(500));
    StoredSession {
        id: SessionId::from_u64(id).unwrap(),
        keys: vec![KeyUse {
            key: SessionKey::from_token(b"alice"),
            until,
        }],
        principal: Principal {
            issuer: "iss".to_owned(),
            subject: "alice".to_owned(),
        },
        authorized_party: None,
        names_session: true,
        started_at,
        opened_at: started_at,
        deadline: started_at.saturating_add(Duration::from_secs(500)),
        token_expires_at: until,
        signing_key: None,
        certificates: Vec::new(),
        policies: vec!["normal".to_owned()],
        hours_end_at: None,
        first_address: None,
        last_activity: started_at,
        warned_for: None,
    }
}

#[test]
fn recovery_takes_limits_from_the_maps_and_cuts_what_the_store_does_not_know() {
    let mut bench = Bench::new();
    let now = Now::read();
    let deadline = now.boot.saturating_add(Duration::from_secs(100));
    let entry = abi::Session {
        deadline_ns: deadline.as_nanos(),
        idle_timeout_ns: 60_000_000_000,
        idle_base_ns: now.boot.as_nanos(),
        policy_id: 1,
        mode: abi::Mode::Enforce.code(),
        activity: abi::ActivityKind::Application.code(),
        state: abi::SessionState::Active.code(),
    };
    for id in [1, 2] {
        bench.core.maps.add_session(id, entry).unwrap();
    }
    bench.connect(7, abi::Role::Client);
    let binding = abi::Binding {
        session_id: 1,
        role: abi::Role::Client.code(),
        padding: 0,
    };
    bench.core.maps.bind(7, binding).unwrap();
    let snapshot = Snapshot {
        sessions: vec![stored(1, now.wall)],
        ..Snapshot::default()
    };
    let recovered = bench.core.recover(snapshot, Now::read());
    assert_eq!((recovered.sessions, recovered.cut), (1, 1));
    assert_eq!(bench.core.maps.session(2), None);
    let live = bench
        .core
        .book
        .get(SessionId::from_u64(1).unwrap())
        .unwrap();
    assert_eq!(live.session.deadline().at, deadline);
    assert!(live.legs.contains_key(&7));
}

#[test]
fn recovery_ends_what_went_idle_meanwhile_and_keeps_it_ended() {
    let mut bench = Bench::new();
    let now = Now::read();
    let long_ago = now.wall.saturating_sub(Duration::from_secs(200));
    // As after a reboot: nothing is in the maps.
    let snapshot = Snapshot {
        sessions: vec![stored(1, long_ago)],
        ..Snapshot::default()
    };
    assert_eq!(bench.core.recover(snapshot, Now::read()).sessions, 0);
    assert_eq!(bench.core.maps.session(1), None);
    bench.connect(7, abi::Role::Client);
    let refused = bench.open(7, &credential("alice", 400));
    assert_eq!(refused, Err(Refusal::SessionEnded(EndReason::Idle)));
}

#[test]
fn what_the_ring_buffer_lost_is_read_from_the_maps() {
    let mut bench = Bench::new();
    bench.connect(7, abi::Role::Client);
    let view = bench.open(7, &credential("alice", 30)).unwrap();
    let closed = abi::Connection {
        session_id: view.id.as_u64(),
        closed_at_ns: Now::read().boot.as_nanos(),
        ..bench.connections.get(&7, 0).unwrap()
    };
    bench.connections.insert(7, closed, 0).unwrap();
    bench.connect(8, abi::Role::Client);
    bench.core.reconcile(Now::read());
    assert!(bench.core.book.get(view.id).unwrap().legs.is_empty());
    assert!(bench.connections.get(&7, 0).is_err(), "collected");
    assert!(bench.core.unbound.contains_key(&8), "found");
}
